"""The endpoint with faults in it: `python -m tests.scoring.online.faulty [options of `sam-endpoint serve`]`.

An image 77 pixels wide never fits into memory, nor do two images in one batch; one 78 pixels wide meets a defect, whose
message holds a secret; of one 79 pixels wide, libraries tell a secret in every way that there is; encoding one of 60 to
69 pixels takes two seconds longer, which it says first.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from typing import Any
from unittest import mock

import numpy as np
import torch

from sam_endpoint.__main__ import main
from sam_endpoint.model.segmenter import Segmenter

embed = Segmenter._embed


def faulty(self: Segmenter, images: Sequence[np.ndarray]) -> Any:
    widths = [image.shape[1] for image in images]
    if 77 in widths or len(images) > 1:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    if 78 in widths:
        raise KeyError("secret")
    if 79 in widths:
        tell("secret")
    if 60 <= widths[0] < 70:
        print("encoding width", widths[0], flush=True)
        time.sleep(2)
    return embed(self, images)


def tell(secret: str) -> None:
    """Do what libraries do with a value that they do not like."""

    class Broken:
        def __del__(self) -> None:
            raise ValueError(secret)

    def fail() -> None:
        raise ExceptionGroup(secret, [LookupError(secret)])

    warnings.warn(secret, UserWarning, stacklevel=1)
    logging.getLogger("mlflow.models.utils").warning("unknown columns %s", [secret])
    noisy = logging.getLogger("a.library.with.a.handler")
    noisy.addHandler(logging.StreamHandler())
    noisy.propagate = False
    try:
        int(secret)
    except ValueError:
        noisy.exception(f"cannot read {secret}", stack_info=True)
    Broken()
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    raise RuntimeError(secret) from KeyError(secret)


if __name__ == "__main__":
    with mock.patch.object(Segmenter, "_embed", faulty):
        sys.exit(main(["serve", *sys.argv[1:]]))
