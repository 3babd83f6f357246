"""Load a SAM, predict the masks of one box, and print the seconds from the end of the imports.

Usage: python -m benchmarks.first FOLDER IMAGE X1,Y1,X2,Y2 plain|eager|ours

Each implementation imports only what it needs, because the time of the whole process is measured too.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import Any


def plain(folder: str, image: str, box: list[float], attention: str | None = None) -> float:
    """Measure plain transformers.

    Args:
        folder: The folder of the checkpoint.
        image: The path of the image.
        box: x1, y1, x2, y2 in pixels.
        attention: transformers' implementation of attention; None for the one that `from_pretrained` chooses.

    Returns:
        Seconds.
    """
    import torch
    from PIL import Image
    from transformers import SamModel, SamProcessor

    started = time.perf_counter()
    options: Any = {} if attention is None else {"attn_implementation": attention}
    model: Any = SamModel.from_pretrained(folder, **options).eval()
    processor: Any = SamProcessor.from_pretrained(folder)
    inputs = processor(images=Image.open(image).convert("RGB"), input_boxes=[[box]], return_tensors="pt")
    sizes = [inputs.pop(name) for name in ("original_sizes", "reshaped_input_sizes")]
    with torch.no_grad():
        outputs = model(**inputs)
    processor.post_process_masks(outputs.pred_masks, *sizes)
    return time.perf_counter() - started


def ours(folder: str, image: str, box: list[float]) -> float:
    """Measure this project. Arguments and result are those of `plain`."""
    from sam_endpoint.scoring.process import configure_process

    configure_process()

    from pathlib import Path

    import numpy as np

    from sam_endpoint.model.images import ImageLimits, decode
    from sam_endpoint.model.prompts import Prompt
    from sam_endpoint.model.segmenter import Segmenter

    started = time.perf_counter()
    segmenter = Segmenter.load(folder, "cpu")
    (embedding,) = segmenter.embed([decode(Path(image).read_bytes(), ImageLimits())])
    (segmentation,) = segmenter.segment(embedding, [Prompt(box=np.array(box, np.float32))])
    segmenter.masks(segmentation)
    return time.perf_counter() - started


if __name__ == "__main__":
    folder, image, box, way = sys.argv[1:]
    ways: dict[str, Any] = {"plain": plain, "eager": partial(plain, attention="eager"), "ours": ours}
    print(ways[way](folder, image, [float(side) for side in box.split(",")]))
