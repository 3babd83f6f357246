"""The endpoint with a fault in it: `python -m tests.scoring.online.faulty FAULT [options of scoring.online]`.

memory: an image 77 pixels wide never fits into memory, nor do two images in one batch.
defect: an image 77 pixels wide meets a defect, whose message holds a secret.
slow: encoding takes a second longer, and says so.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from model.segmenter import Segmenter
from scoring.online.__main__ import main

FAULT = sys.argv[1]
embed = Segmenter._embed


def faulty(self: Segmenter, images: Sequence[np.ndarray]) -> Any:
    marked = any(image.shape[1] == 77 for image in images)
    if FAULT == "memory" and (marked or len(images) > 1):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    if FAULT == "defect" and marked:
        raise KeyError("secret")
    if FAULT == "slow":
        time.sleep(1)
        print("encoding widths", [image.shape[1] for image in images], flush=True)
    return embed(self, images)


if __name__ == "__main__":
    Segmenter._embed = faulty  # type: ignore[method-assign]
    sys.exit(main(sys.argv[2:]))
