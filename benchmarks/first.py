"""Loads a SAM and makes the masks of one box, then ends: `python -m benchmarks.first FOLDER IMAGE X1,Y1,X2,Y2 plain`.

Imports what its way needs and nothing else, as both are part of what is measured. Prints the seconds after the imports.
"""

from __future__ import annotations

import sys
import time
from typing import Any


def plain(folder: str, image: str, box: list[float]) -> float:
    import torch
    from PIL import Image
    from transformers import SamModel, SamProcessor

    began = time.perf_counter()
    model: Any = SamModel.from_pretrained(folder, attn_implementation="eager").eval()
    processor: Any = SamProcessor.from_pretrained(folder)
    inputs = processor(images=Image.open(image).convert("RGB"), input_boxes=[[box]], return_tensors="pt")
    sizes = [inputs.pop(name) for name in ("original_sizes", "reshaped_input_sizes")]
    with torch.no_grad():
        found = model(**inputs)
    processor.post_process_masks(found.pred_masks, *sizes)
    return time.perf_counter() - began


def ours(folder: str, image: str, box: list[float]) -> float:
    from pathlib import Path

    import numpy as np

    from model.images import ImageLimits, decode
    from model.prompts import Prompt
    from model.segmenter import Segmenter

    began = time.perf_counter()
    segmenter = Segmenter.load(folder, "cpu")
    (embedding,) = segmenter.embed([decode(Path(image).read_bytes(), ImageLimits())])
    (found,) = segmenter.segment(embedding, [Prompt(box=np.array(box, np.float32))])
    segmenter.masks(found)
    return time.perf_counter() - began


if __name__ == "__main__":
    folder, image, box, way = sys.argv[1:]
    print({"plain": plain, "ours": ours}[way](folder, image, [float(side) for side in box.split(",")]))
