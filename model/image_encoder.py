"""Encode images in batches, on request with compiled code."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from .call import UNTRACKED, Call
from .families.family import Family
from .halving import halve_on_out_of_memory
from .segmentation import Embedding

Run = Callable[[Tensor], tuple[Tensor, ...]]  # `Family.embed`


def to_graphs(run: Run) -> Run:
    """Compile an encoder with `torch.compile`. On a GPU, it then runs as CUDA graphs.

    torch keeps the compiled code in a folder. The next process uses it again, unless the code, torch or the machine has
    changed.
    """
    compiled: Run = torch.compile(run, dynamic=False, mode="reduce-overhead")
    return compiled


class ImageEncoder:
    """The image encoder of a model. Safe to share between threads.

    Args:
        family: the loaded model.
        name: name of the checkpoint.
        images_per_batch: number of images encoded together.
        compiler: compiles the encoder, such as `to_graphs`; None for no compilation. The encoder is compiled when the
            object is created, which can take minutes.
    """

    def __init__(
        self, family: Family, name: str, images_per_batch: int, compiler: Callable[[Run], Run] | None = None
    ) -> None:
        self.family, self.name, self.images_per_batch = family, name, images_per_batch
        self._compiled = compiler(family.embed) if compiler else None
        if self._compiled:  # for both sizes of batches, so that no request waits for a compiler
            for count in {1, images_per_batch}:
                self.embed([np.zeros((64, 64, 3), np.uint8)] * count)

    @torch.inference_mode()
    def embed(self, images: Sequence[np.ndarray], call: Call = UNTRACKED) -> list[Embedding]:
        """Encode images. Arguments, result and exceptions are those of `Segmenter.embed`."""
        embeddings = []
        for start in range(0, len(images), self.images_per_batch):
            call.check()
            embeddings += halve_on_out_of_memory(self.embed_batch, images[start : start + self.images_per_batch])
        return embeddings

    def embed_batch(self, images: Sequence[np.ndarray]) -> list[Embedding]:
        """Encode at most `images_per_batch` images together."""
        pixels = self.family.prepare(images)
        # Code is compiled for one image and for a full batch. Other batches are filled up with copies.
        if self._compiled and len(images) > 1:
            pixels = pixels[torch.arange(self.images_per_batch) % len(images)]
        features = (self._compiled or self.family.embed)(pixels)
        # Each image gets a copy of its features: a view would keep those of the whole batch in memory, and a CUDA graph
        # overwrites its results when it runs again.
        copied = self._compiled or len(images) > 1
        return [
            Embedding(
                tuple(part[i : i + 1].clone() if copied else part for part in features), image.shape[:2], self.name
            )
            for i, image in enumerate(images)
        ]
