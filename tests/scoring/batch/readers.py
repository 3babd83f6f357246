"""Read label files with other projects' packages, and print their content as JSON.

Usage:
    .venv/clients/bin/python readers.py supervision-coco IMAGES ANNOTATIONS
    .venv/clients/bin/python readers.py supervision-yolo IMAGES LABELS DATA
    .venv/clients/bin/python readers.py label-studio TASKS
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def describe(dataset: Any) -> dict[str, Any]:
    """Return the names of the classes of a supervision data set, and the classes and mask pixels of each image."""
    images = {}
    for path, _, detections in dataset:
        masks = [np.flatnonzero(mask).tolist() for mask in detections.mask] if detections.mask is not None else []
        name = path.rpartition("/")[2]
        images[name] = {"classes": [int(class_id) for class_id in detections.class_id], "masks": masks}
    return {"names": list(dataset.classes), "images": images}


def main(kind: str, *files: str) -> Any:
    """Read the files of a kind, and return their content."""
    if kind == "label-studio":
        from label_studio_sdk.converter import brush

        regions = []
        for task in json.loads(Path(files[0]).read_text()):
            for result in task["predictions"][0]["result"]:
                height, width = result["original_height"], result["original_width"]
                alpha = brush.decode_rle(result["value"]["rle"]).reshape(height, width, 4)[..., 3]
                regions.append([result["value"]["brushlabels"], np.flatnonzero(alpha).tolist()])
        return regions
    from supervision import DetectionDataset

    if kind == "supervision-coco":
        return describe(DetectionDataset.from_coco(files[0], files[1], force_masks=True))
    return describe(DetectionDataset.from_yolo(files[0], files[1], files[2], force_masks=True))


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
