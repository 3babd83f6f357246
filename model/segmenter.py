"""The two verbs: `embed` an image, `segment` an embedding by prompts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from model import families, threads
from model.errors import NO_MEMORY, Busy, is_out_of_memory
from model.families.family import Family
from model.masks import Cut
from model.memory import keep_freed
from model.precision import EXACT, lower
from model.prompts import Prompt, batch, batches
from model.upscaling import above

Item = TypeVar("Item")
Result = TypeVar("Result")
TOKENS_TOGETHER = 8192  # of images, for which a batch of prompts is worth the calls of its operators


@dataclass(frozen=True)
class Embedding:
    """All the decoder needs of one image: a value that can be kept, passed on and moved between devices.

    features: feature maps, each (1, channels, height, width); size: the image's (height, width);
    model: the name of the checkpoint that made it.
    """

    features: tuple[Tensor, ...]
    size: tuple[int, int]
    model: str

    @property
    def nbytes(self) -> int:
        """Bytes held by the features."""
        return sum(feature.numel() * feature.element_size() for feature in self.features)

    @property
    def device(self) -> torch.device:
        return self.features[0].device

    def to(self, device: str | torch.device) -> Embedding:
        """The same embedding on another device."""
        return replace(self, features=tuple(feature.to(device) for feature in self.features))


@dataclass(frozen=True)
class Ask:
    """Prompts on one image, and whether each is to be answered by 3 masks or by 1. Three that are all predicted an IoU
    of `least` or less may be without logits: zeros."""

    embedding: Embedding
    prompts: Sequence[Prompt]
    multimask_output: bool = True
    least: float = -math.inf


Asked = tuple[tuple[int, int], Embedding, Prompt]  # a prompt of an Ask: which one of which, scaled to the model's input


@dataclass(frozen=True)
class Segmentation:
    """What one prompt answers, m masks (3 or 1) in the model's order.

    logits: (m, *low_res_size) float32 on the model's device; scores: (m,) float32 predicted IoU;
    size: the image's (height, width).
    """

    logits: Tensor
    scores: np.ndarray
    size: tuple[int, int]


class Segmenter:
    """A checkpoint on a device. Keeps nothing between calls, so that threads may share one."""

    def __init__(
        self, family: Family, name: str, *, images_per_batch: int | None = None, prompts_per_batch: int | None = None
    ) -> None:
        on_gpu = family.device.type != "cpu"
        self.family = family
        self.name = name
        self.images_per_batch = images_per_batch or (8 if on_gpu else 1)
        self.prompts_per_batch = prompts_per_batch or (64 if on_gpu else 16)

    @classmethod
    def load(
        cls, checkpoint: str, device: str | None = None, precision: str = EXACT, **batching: int | None
    ) -> Segmenter:
        """From a Hugging Face id or a folder; `device` is `cuda` when there is one, else `cpu`, unless named.

        precision: of the image encoder, as `precision.lower` has it. Raises ValueError for a checkpoint that cannot be
        loaded, a device that is not there, or a precision that is unknown.
        """
        keep_freed()
        chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            torch.empty(0, device=chosen)
        except (RuntimeError, AssertionError):
            raise ValueError(f"device '{chosen}' is not available on this machine") from None
        family = families.load(checkpoint, chosen)
        lower(family.model.vision_encoder, precision)
        return cls(family, checkpoint, **batching)

    @torch.inference_mode()
    def embed(self, images: Sequence[np.ndarray]) -> list[Embedding]:
        """RGB images, each (h, w, 3) uint8, to their embeddings, `images_per_batch` at a time, fewer where memory is
        short. Raises Busy when it is too short for one."""
        embeddings = []
        for start in range(0, len(images), self.images_per_batch):
            embeddings += halving(self._embed, images[start : start + self.images_per_batch])
        return embeddings

    def _embed(self, images: Sequence[np.ndarray]) -> list[Embedding]:
        pixels = torch.stack([self.family.preprocess(image) for image in images])
        features = self.family.embed(pixels.to(self.family.device))
        # A copy where the batch has several, so that keeping one image does not keep them all.
        return [
            Embedding(
                tuple(part[i : i + 1].clone() if len(images) > 1 else part for part in features),
                image.shape[:2],
                self.name,
            )
            for i, image in enumerate(images)
        ]

    def segment(
        self,
        embedding: Embedding,
        prompts: Sequence[Prompt],
        multimask_output: bool = True,
        least: float = -math.inf,
    ) -> list[Segmentation]:
        """One segmentation a prompt, in order. A prompt's answer does not depend on the prompts beside it. `least` is
        Ask's."""
        return self.segment_many([Ask(embedding, prompts, multimask_output, least)])[0]

    @torch.inference_mode()
    def segment_many(self, asks: Sequence[Ask]) -> list[list[Segmentation]]:
        """What `segment` answers to each, `prompts_per_batch` at a time, prompts of several images together; fewer
        where memory is short. Raises Busy when it is too short for one."""
        found: dict[tuple[int, int], Segmentation] = {}
        for multimask_output, least in {(ask.multimask_output, ask.least) for ask in asks}:
            scaled = [
                ((i, j), ask.embedding, prompt.scaled(*self.family.scale(ask.embedding.size)))
                for i, ask in enumerate(asks)
                if (ask.multimask_output, ask.least) == (multimask_output, least)
                for j, prompt in enumerate(ask.prompts)
            ]
            largest = self._together([embedding for _, embedding, _ in scaled])
            together = [
                [scaled[position] for position in positions]
                for positions in batches([prompt for _, _, prompt in scaled], largest)
            ]
            decode = partial(self._decode, multimask_output=multimask_output, least=least)
            beside = len(together) > 1 and self.family.device.type == "cpu"
            for some in threads.each(decode, together) if beside else map(decode, together):
                found.update(some)
        return [[found[i, j] for j in range(len(ask.prompts))] for i, ask in enumerate(asks)]

    def _together(self, embeddings: Sequence[Embedding]) -> int:
        """How many prompts, of those on these embeddings, to decode in one batch. On a CPU every thread has a batch, as
        long as its operators are large enough to be worth their calls."""
        if self.family.device.type != "cpu" or not embeddings:
            return self.prompts_per_batch
        tokens = embeddings[0].features[-1].shape[-2:].numel()
        enough = max(math.ceil(len(embeddings) / threads.COUNT), math.ceil(TOKENS_TOGETHER / tokens))
        return min(self.prompts_per_batch, enough)

    def _decode(
        self, some: Sequence[Asked], multimask_output: bool, least: float
    ) -> list[tuple[tuple[int, int], Segmentation]]:
        """Some prompts, and their answers under their places; fewer at a time where memory is short."""
        decode = partial(self._decode_batch, multimask_output=multimask_output, least=least)
        answers = halving(decode, some)
        return [(place, answer) for (place, _, _), answer in zip(some, answers, strict=True)]

    @torch.inference_mode()  # which each thread enters for itself
    def _decode_batch(self, some: Sequence[Asked], multimask_output: bool, least: float) -> list[Segmentation]:
        embeddings, prompts = [embedding for _, embedding, _ in some], [prompt for _, _, prompt in some]
        logits, scores = self.family.decode(self._features(embeddings), batch(prompts), multimask_output, least)
        found = zip(logits, scores.float().cpu().numpy(), embeddings, strict=True)
        return [Segmentation(own, score, embedding.size) for own, score, embedding in found]

    def _features(self, embeddings: list[Embedding]) -> tuple[Tensor, ...]:
        """The features of each prompt's image, on the model's device: one image's are not copied for each."""
        first = embeddings[0]
        if all(one is first for one in embeddings):
            return tuple(part.expand(len(embeddings), -1, -1, -1) for part in first.to(self.family.device).features)
        parts = zip(*(one.to(self.family.device).features for one in embeddings), strict=True)
        return tuple(torch.cat(part) for part in parts)

    @torch.inference_mode()
    def full(self, segmentation: Segmentation) -> Tensor:
        """(m, h, w) logits of the image's size, on the model's device."""
        return self.family.upscale(segmentation.logits, segmentation.size)

    def cuts(self, segmentation: Segmentation) -> list[Cut]:
        """The m masks: where the upscaled logits are above 0."""
        steps = self.family.upscaling(segmentation.size)
        return [above(logits, steps, (0.0,))[0] for logits in segmentation.logits.float().cpu().numpy()]

    def masks(self, segmentation: Segmentation) -> np.ndarray:
        """(m, h, w) bool masks of the image's size."""
        return np.stack([cut.whole() for cut in self.cuts(segmentation)])

    def stable_mask(self, logits: Tensor, size: tuple[int, int], offset: float) -> tuple[Cut, float]:
        """The mask of one mask's low-resolution logits, and its stability score: the IoU of the masks cut `offset`
        above and below 0, which is 0 where both are empty."""
        larger, mask, smaller = above(logits.float().cpu().numpy(), self.family.upscaling(size), (-offset, 0.0, offset))
        return mask, float(smaller.inside.sum()) / max(1.0, float(larger.inside.sum()))


def halving(run: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item]) -> list[Result]:
    """What `run` answers to a batch; where memory is too short for it, to its halves. Raises Busy when it is too short
    for one item."""
    try:
        return run(items)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Out of the except block, which holds on to what the failed call held.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(items) == 1:
        raise Busy(NO_MEMORY)
    middle = len(items) // 2
    return halving(run, items[:middle]) + halving(run, items[middle:])
