"""The two verbs on a model: `embed` images, and `segment` an embedding by prompts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from . import families, threads
from .call import UNTRACKED, Call
from .errors import OUT_OF_MEMORY, Overloaded, is_out_of_memory
from .families.family import Family
from .masks import CroppedMask
from .precision import EXACT, quantize_encoder
from .prompts import Prompt, group_by_layout, stack
from .upscaling import above

Item = TypeVar("Item")
Result = TypeVar("Result")
MIN_TOKENS = 8192  # image tokens of a batch of prompts; smaller batches spend their time on calling operators


@dataclass(frozen=True)
class Embedding:
    """All that the decoder needs of one image: a value that can be cached, stored and moved between devices.

    Attributes:
        features: feature maps, each (1, channels, height, width).
        size: (height, width) of the image in pixels.
        model: name of the checkpoint that made it.
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
        """Device of the features."""
        return self.features[0].device

    def to(self, device: str | torch.device) -> Embedding:
        """Return the same embedding on another device."""
        return replace(self, features=tuple(feature.to(device) for feature in self.features))


@dataclass(frozen=True)
class SegmentRequest:
    """Prompts on one image.

    Attributes:
        embedding: the image.
        prompts: one mask, or three candidates, are decoded for each.
        multimask_output: whether each prompt gets 3 masks or 1.
        min_score: if all three scores of a prompt are at most `min_score`, its logits may be zeros.
    """

    embedding: Embedding
    prompts: Sequence[Prompt]
    multimask_output: bool = True
    min_score: float = -math.inf


# A prompt scaled to the model's input, with its place: (number of its request, number within the request).
PlacedPrompt = tuple[tuple[int, int], Embedding, Prompt]


@dataclass(frozen=True)
class Segmentation:
    """The m masks (3 or 1) of one prompt, in the model's order.

    Attributes:
        logits: (m, *low_res_size) float32 on the model's device.
        scores: (m,) float32 predicted IoU.
        size: (height, width) of the image in pixels.
    """

    logits: Tensor
    scores: np.ndarray
    size: tuple[int, int]


class Segmenter:
    """A model on a device. It keeps no state between calls, so threads may share it.

    Args:
        family: the loaded model.
        name: name of the checkpoint.
        images_per_batch: images encoded together; by default 8 on a GPU and 1 on a CPU.
        prompts_per_batch: prompts decoded together; by default 64 on a GPU and 16 on a CPU.
    """

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
        """Load a checkpoint.

        Args:
            checkpoint: a Hugging Face id, a folder, or one of Meta's files.
            device: `cpu`, `cuda`, `cuda:1`; by default `cuda` if there is one, else `cpu`.
            precision: precision of the image encoder, one of `precision.PRECISIONS`.
            **batching: `images_per_batch` and `prompts_per_batch`.

        Raises:
            ValueError: the checkpoint cannot be loaded, the device does not exist, or the precision is unknown.
        """
        chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            torch.empty(0, device=chosen)
        except (RuntimeError, AssertionError):
            raise ValueError(f"device '{chosen}' is not available on this machine") from None
        family = families.load(checkpoint, chosen)
        quantize_encoder(family.model.vision_encoder, precision)
        return cls(family, checkpoint, **batching)

    @property
    def weights_nbytes(self) -> int:
        """Bytes held by the weights."""
        return sum(weight.numel() * weight.element_size() for weight in self.family.model.parameters())

    @torch.inference_mode()
    def embed(self, images: Sequence[np.ndarray], call: Call = UNTRACKED) -> list[Embedding]:
        """Encode RGB images, each (height, width, 3) uint8, `images_per_batch` at a time, fewer if memory is short.

        Raises:
            Overloaded: memory is too short for a single image.
            ClientDisconnected: the call was cancelled between two batches.
        """
        embeddings = []
        for start in range(0, len(images), self.images_per_batch):
            call.check()
            embeddings += halve_on_out_of_memory(self._embed, images[start : start + self.images_per_batch])
        return embeddings

    def _embed(self, images: Sequence[np.ndarray]) -> list[Embedding]:
        pixels = torch.stack([self.family.preprocess(image) for image in images])
        features = self.family.embed(pixels.to(self.family.device))
        # Features of a batch are copied image by image, so that caching one image does not hold the whole batch.
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
        min_score: float = -math.inf,
        call: Call = UNTRACKED,
    ) -> list[Segmentation]:
        """Decode prompts on one image: one segmentation a prompt, in order.

        The result of a prompt does not depend on the other prompts. Arguments are those of SegmentRequest. Raises as
        `segment_many` does.
        """
        call.check()
        return self.segment_many([SegmentRequest(embedding, prompts, multimask_output, min_score)])[0]

    @torch.inference_mode()
    def segment_many(self, requests: Sequence[SegmentRequest]) -> list[list[Segmentation]]:
        """Decode several requests, `prompts_per_batch` prompts at a time, prompts of different images together.

        Returns:
            One list of segmentations a request, in order.

        Raises:
            Overloaded: memory is too short for a single prompt.
        """
        segmentations: dict[tuple[int, int], Segmentation] = {}
        for multimask_output, min_score in {(request.multimask_output, request.min_score) for request in requests}:
            scaled: list[PlacedPrompt] = [
                ((i, j), request.embedding, prompt.scaled(*self.family.scale(request.embedding.size)))
                for i, request in enumerate(requests)
                if (request.multimask_output, request.min_score) == (multimask_output, min_score)
                for j, prompt in enumerate(request.prompts)
            ]
            size = self._batch_size([embedding for _, embedding, _ in scaled])
            batches = [
                [scaled[position] for position in positions]
                for positions in group_by_layout([prompt for _, _, prompt in scaled], size)
            ]
            decode = partial(self._decode, multimask_output=multimask_output, min_score=min_score)
            in_threads = len(batches) > 1 and self.family.device.type == "cpu"
            for batch in threads.each(decode, batches) if in_threads else map(decode, batches):
                segmentations.update(batch)
        return [[segmentations[i, j] for j in range(len(request.prompts))] for i, request in enumerate(requests)]

    def _batch_size(self, embeddings: Sequence[Embedding]) -> int:
        """Return how many prompts on these embeddings to decode in one batch.

        On a CPU every thread gets a batch, as long as the batches are large enough to be worth their operator calls.
        """
        if self.family.device.type != "cpu" or not embeddings:
            return self.prompts_per_batch
        tokens = embeddings[0].features[-1].shape[-2:].numel()
        enough = max(math.ceil(len(embeddings) / threads.thread_count()), math.ceil(MIN_TOKENS / tokens))
        return min(self.prompts_per_batch, enough)

    def _decode(
        self, batch: Sequence[PlacedPrompt], multimask_output: bool, min_score: float
    ) -> list[tuple[tuple[int, int], Segmentation]]:
        """Decode a batch, in halves if memory is short. Returns the places with their segmentations."""
        decode = partial(self._decode_batch, multimask_output=multimask_output, min_score=min_score)
        segmentations = halve_on_out_of_memory(decode, batch)
        return [(place, segmentation) for (place, _, _), segmentation in zip(batch, segmentations, strict=True)]

    @torch.inference_mode()  # inference mode is a setting of the thread, and this runs in the pool's threads
    def _decode_batch(
        self, batch: Sequence[PlacedPrompt], multimask_output: bool, min_score: float
    ) -> list[Segmentation]:
        embeddings, prompts = [embedding for _, embedding, _ in batch], [prompt for _, _, prompt in batch]
        logits, scores = self.family.decode(self._features(embeddings), stack(prompts), multimask_output, min_score)
        by_prompt = zip(logits, scores.float().cpu().numpy(), embeddings, strict=True)
        return [Segmentation(own, score, embedding.size) for own, score, embedding in by_prompt]

    def _features(self, embeddings: list[Embedding]) -> tuple[Tensor, ...]:
        """Return the features of each prompt's image on the model's device; those of a single image are not copied."""
        first = embeddings[0]
        if all(embedding is first for embedding in embeddings):
            return tuple(part.expand(len(embeddings), -1, -1, -1) for part in first.to(self.family.device).features)
        parts = zip(*(embedding.to(self.family.device).features for embedding in embeddings), strict=True)
        return tuple(torch.cat(part) for part in parts)

    @torch.inference_mode()
    def full_logits(self, segmentation: Segmentation) -> Tensor:
        """Return the (m, height, width) logits at the image's size, on the model's device."""
        return self.family.upscale(segmentation.logits, segmentation.size)

    def cropped_masks(self, segmentation: Segmentation) -> list[CroppedMask]:
        """Return the m masks, each cropped to its extent: the pixels whose upscaled logits are above 0."""
        steps = self.family.upscaling(segmentation.size)
        return [above(logits, steps, (0.0,))[0] for logits in segmentation.logits.float().cpu().numpy()]

    def masks(self, segmentation: Segmentation) -> np.ndarray:
        """Return the (m, height, width) bool masks of the image's size."""
        return np.stack([mask.whole() for mask in self.cropped_masks(segmentation)])

    def stable_mask(self, logits: Tensor, size: tuple[int, int], offset: float) -> tuple[CroppedMask, float]:
        """Return the mask of (h, w) low-resolution logits and its stability score.

        The stability score is the IoU of the masks cut `offset` above and below 0; it is 0 if both are empty.
        """
        larger, mask, smaller = above(logits.float().cpu().numpy(), self.family.upscaling(size), (-offset, 0.0, offset))
        return mask, float(smaller.inside.sum()) / max(1.0, float(larger.inside.sum()))


def halve_on_out_of_memory(run: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item]) -> list[Result]:
    """Run a batch; if memory is too short for it, run its halves. Raises Overloaded if one item is too much."""
    try:
        return run(items)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Outside the except block, because the traceback holds what the failed call allocated.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(items) == 1:
        raise Overloaded(OUT_OF_MEMORY)
    middle = len(items) // 2
    return halve_on_out_of_memory(run, items[:middle]) + halve_on_out_of_memory(run, items[middle:])
