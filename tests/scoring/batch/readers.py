"""Reads label files with other people's packages, in their own virtual environment; prints what was found as JSON.

python readers.py supervision-coco IMAGES ANNOTATIONS | supervision-yolo IMAGES LABELS DATA | label-studio TASKS
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def described(dataset: Any) -> dict[str, Any]:
    found = {}
    for path, _, detections in dataset:
        masks = [np.flatnonzero(mask).tolist() for mask in detections.mask] if detections.mask is not None else []
        name = path.rpartition("/")[2]
        found[name] = {"classes": [int(one) for one in detections.class_id], "masks": masks}
    return {"names": list(dataset.classes), "images": found}


def main(how: str, *files: str) -> Any:
    if how == "label-studio":
        from label_studio_sdk.converter import brush

        found = []
        for task in json.loads(Path(files[0]).read_text()):
            for one in task["predictions"][0]["result"]:
                height, width = one["original_height"], one["original_width"]
                alpha = brush.decode_rle(one["value"]["rle"]).reshape(height, width, 4)[..., 3]
                found.append([one["value"]["brushlabels"], np.flatnonzero(alpha).tolist()])
        return found
    from supervision import DetectionDataset

    if how == "supervision-coco":
        return described(DetectionDataset.from_coco(files[0], files[1], force_masks=True))
    return described(DetectionDataset.from_yolo(files[0], files[1], files[2], force_masks=True))


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
