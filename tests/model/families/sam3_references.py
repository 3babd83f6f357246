"""Compute the instances that transformers' SAM 3 finds, for test_sam3.py.

transformers' processor of SAM 3 needs torchvision, which cannot be installed beside the CPU build of torch. So this
script runs in an environment of its own, and its output `sam3_references.npz` is committed:

    python -m venv reference
    reference/bin/pip install torch==2.14.1 torchvision==0.29.1 transformers==5.23.0 pillow==13.0.0
    reference/bin/python -m tests.model.families.sam3_references
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from tests import checkpoints, pictures

FILE = Path(__file__).with_suffix(".npz")
SIZE = (61, 87)  # height and width of the image
SMALL_BOX, LARGE_BOX, EDGE_BOX = [20.0, 15.0, 21.5, 17.0], [10.0, 5.0, 70.5, 52.0], [60.0, 40.0, 87.0, 61.0]
# The text, the exemplar boxes and their labels of each concept.
CONCEPTS: list[tuple[str | None, list[list[float]], list[int]]] = [
    ("cups", [], []),
    ("A red spoon, on the table", [], []),
    ("tasse \N{LATIN SMALL LETTER E WITH ACUTE} \N{HOT BEVERAGE}", [], []),
    (None, [LARGE_BOX], [1]),
    (None, [LARGE_BOX, SMALL_BOX, EDGE_BOX], [1, 0, 1]),
    ("cups", [EDGE_BOX, SMALL_BOX], [1, 1]),
    ("open order", [LARGE_BOX, EDGE_BOX], [0, 0]),
]
PROCESSING: dict[str, Any] = {
    "image_processor_type": "Sam3ImageProcessor",
    "processor_class": "Sam3Processor",
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "size": {"height": checkpoints.SAM3_SIDE, "width": checkpoints.SAM3_SIDE},
    "mask_size": {"height": 72, "width": 72},
}
KINDS = ("sam3", "sam3_lite_text", "sam3_video")


def picture() -> np.ndarray:
    """Return the image, (*SIZE, 3) uint8."""
    return pictures.clutter(*SIZE, seed=30)


def digest(folder: Path) -> str:
    """Return a hash of the image and of the weights of a checkpoint folder, except those of a tracker."""
    weights = load_file(folder / "model.safetensors")
    hashed = hashlib.sha256(picture().tobytes())
    for name in sorted(weights):
        if not name.startswith("tracker_"):
            hashed.update(weights[name].numpy().tobytes())
    return hashed.hexdigest()


def references(kind: str, folder: Path) -> dict[str, np.ndarray]:
    """Find all concepts with transformers, as its users do.

    Args:
        kind: name of the checkpoint in `checkpoints.SAVERS`.
        folder: the checkpoint.

    Returns:
        For the concept with index i, `i/threshold`, `i/scores` (n,), `i/boxes` (n, 4), and `i/masks` (n, bytes): the
        bits of (n, *SIZE) masks. The threshold divides the scores clearly.
    """
    from transformers import Sam3LiteTextModel, Sam3Model, Sam3Processor

    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSING))
    processor = Sam3Processor.from_pretrained(folder)
    model: Any = (Sam3LiteTextModel if kind == "sam3_lite_text" else Sam3Model).from_pretrained(folder)
    arrays = {"digest": np.array(digest(folder))}
    for i, (text, boxes, labels) in enumerate(CONCEPTS):
        examples = {"input_boxes": [boxes], "input_boxes_labels": [labels]} if boxes else {}
        inputs = processor(images=Image.fromarray(picture()), text=text, **examples, return_tensors="pt")
        with torch.no_grad():
            outputs = model(**{name: value for name, value in inputs.items() if name != "original_sizes"})
        scores = (outputs.pred_logits.sigmoid() * outputs.presence_logits.sigmoid())[0].sort(descending=True).values
        rank = 2 + int((scores[2:7] - scores[3:8]).argmax())
        threshold = float(scores[rank] + scores[rank + 1]) / 2
        sizes = inputs["original_sizes"].tolist()
        found = processor.post_process_instance_segmentation(outputs, threshold, 0.5, sizes)[0]
        arrays[f"{i}/threshold"] = np.array(threshold)
        for name in ("scores", "boxes"):
            arrays[f"{i}/{name}"] = found[name].numpy()
        arrays[f"{i}/masks"] = np.packbits(found["masks"].numpy().astype(bool).reshape(len(found["masks"]), -1), 1)
    return arrays


def main() -> None:
    """Write the references of all checkpoints to FILE."""
    arrays: dict[str, Any] = {}
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as scratch:
            folder = checkpoints.SAVERS[kind](Path(scratch))
            arrays |= {f"{kind}/{name}": array for name, array in references(kind, folder).items()}
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
