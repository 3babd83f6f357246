"""The command `sam-endpoint` with faults in the encoder: `python -m tests.scoring.online.faulty serve [options]`.

The width of an image selects the fault:

- 60 to 69 pixels: encoding takes two seconds longer. The process prints the width before.
- 77 pixels: memory is short. This also happens for a batch of more than one image.
- 78 pixels: an error whose message contains a secret.
- 79 pixels: libraries write a secret to logs and warnings in every possible way, and raise it in an error.
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
from sam_endpoint.model.image_encoder import ImageEncoder

embed = ImageEncoder.embed_batch


def embed_with_faults(self: ImageEncoder, images: Sequence[np.ndarray]) -> Any:
    """Embed images, with the faults that their widths select."""
    widths = [image.shape[1] for image in images]
    if 77 in widths or len(images) > 1:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    if 78 in widths:
        raise KeyError("secret")
    if 79 in widths:
        reveal("secret")
    if 60 <= widths[0] < 70:
        print("encoding width", widths[0], flush=True)
        time.sleep(2)
    return embed(self, images)


def reveal(secret: str) -> None:
    """Write a secret to every channel to which libraries write bad values, and raise it in an error."""

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
    with mock.patch.object(ImageEncoder, "embed_batch", embed_with_faults):
        sys.exit(main(sys.argv[1:]))
