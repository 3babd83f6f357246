"""Run a model: encode images to embeddings, and decode prompts on an embedding to masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from . import families, threads
from .call import UNTRACKED, Call
from .concepts.finder import ConceptFinder
from .device_masks import encode_masks
from .families.family import Family
from .halving import halve_on_out_of_memory
from .image_encoder import ImageEncoder, to_graphs
from .masks import CroppedMask
from .precision import quantize_encoder
from .prompts import Prompt, group_by_layout, stack
from .segmentation import Embedding, Segmentation, SegmentRequest
from .tracking import TrackedFrame, TrackPrompt, TrackState
from .upscaling import upscale_masks

__all__ = ["Embedding", "SegmentRequest", "Segmentation", "Segmenter"]
Result = TypeVar("Result")
MIN_TOKENS = 8192  # image tokens per batch of prompts; in smaller batches, the overhead of PyTorch's calls dominates
# place (index of the request, index of the prompt in it), embedding of the image, prompt in pixels of the model's input
PlacedPrompt = tuple[tuple[int, int], Embedding, Prompt]


class Segmenter:
    """A model on a device. A segmenter keeps no state between calls, so threads may share it.

    Args:
        family: the loaded model.
        name: name of the checkpoint.
        images_per_batch: number of images encoded together; by default 8 on a GPU and 1 on a CPU.
        prompts_per_batch: maximum number of prompts decoded together; by default 64 on a GPU and 16 on a CPU.
        finder: finds objects by text; by default the family's own finder, if it has one.
        compiled: whether to compile the image encoder (see `ImageEncoder`).

    Example:
        >>> segmenter = Segmenter.load("checkpoints/sam-tiny", "cpu")
        >>> (embedding,) = segmenter.embed([np.zeros((40, 60, 3), np.uint8)])
        >>> (segmentation,) = segmenter.segment(embedding, [Prompt(box=np.array([10, 10, 30, 30], np.float32))])
        >>> segmenter.masks(segmentation).shape, segmentation.scores.shape
        ((3, 40, 60), (3,))
    """

    def __init__(
        self,
        family: Family,
        name: str,
        *,
        images_per_batch: int | None = None,
        prompts_per_batch: int | None = None,
        finder: ConceptFinder | None = None,
        compiled: bool = False,
    ) -> None:
        on_gpu = family.on_gpu
        self.family = family
        self.name = name
        self.finder = finder or family.finder
        self.images_per_batch = images_per_batch or (8 if on_gpu else 1)
        self.prompts_per_batch = prompts_per_batch or (64 if on_gpu else 16)
        self.image_encoder = ImageEncoder(family, name, self.images_per_batch, to_graphs if compiled else None)

    @classmethod
    def load(
        cls,
        checkpoint: str,
        device: str | None = None,
        precision: str | None = None,
        detector: str | None = None,
        *,
        images_per_batch: int | None = None,
        prompts_per_batch: int | None = None,
        compiled: bool = False,
    ) -> Segmenter:
        """Load a checkpoint.

        Args:
            checkpoint: a Hugging Face id, a checkpoint folder, or one of Meta's `.pt` or `.pth` files.
            device: `cpu`, `cuda` or `cuda:1`; by default `cuda` if available, otherwise `cpu`.
            precision: precision of the image encoder, one of `precision.PRECISIONS`; by default `bfloat16` on a GPU and
                `float32` on a CPU.
            detector: Hugging Face id or folder of a transformers detector that finds objects by text; None for none.
            images_per_batch: as in the class.
            prompts_per_batch: as in the class.
            compiled: as in the class.

        Raises:
            ValueError: the checkpoint cannot be loaded, the device does not exist, or the precision is unknown.
        """
        chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            torch.empty(0, device=chosen)
        except (RuntimeError, AssertionError):
            raise ValueError(f"device '{chosen}' is not available on this machine") from None
        family = families.load(checkpoint, chosen)
        quantize_encoder(family.vision_encoder, precision)
        finder = None
        if detector is not None:
            from .concepts.detector import load  # the loaders of transformers take a second to import

            finder = load(detector, chosen)
        sizes = {"images_per_batch": images_per_batch, "prompts_per_batch": prompts_per_batch}
        return cls(family, checkpoint, **sizes, finder=finder, compiled=compiled)

    @property
    def weights_nbytes(self) -> int:
        """Size of the weights in bytes."""
        own: int = sum(weight.numel() * weight.element_size() for weight in self.family.model.parameters())
        return own + (self.finder.nbytes if self.finder else 0)

    def embed(self, images: Sequence[np.ndarray], call: Call = UNTRACKED) -> list[Embedding]:
        """Encode images in batches of `images_per_batch`. If memory is short, batches are halved.

        Args:
            images: RGB images, each (height, width, 3) uint8.
            call: context of the request, checked before each batch.

        Returns:
            One embedding per image, in order.

        Raises:
            Overloaded: there is too little memory for a single image.
            DeadlineExceeded, ClientDisconnected: as `Call.check`.
        """
        return self.image_encoder.embed(images, call)

    def segment(
        self,
        embedding: Embedding,
        prompts: Sequence[Prompt],
        multimask_output: bool = True,
        min_score: float = -math.inf,
        call: Call = UNTRACKED,
    ) -> list[Segmentation]:
        """Decode prompts on one image. The result of a prompt does not depend on the other prompts.

        `call.check` runs before decoding. The other arguments are those of `SegmentRequest`.

        Returns:
            One segmentation per prompt, in order.

        Raises:
            Overloaded, DeadlineExceeded, ClientDisconnected: as `segment_many` and `Call.check`.
        """
        call.check()
        return self.segment_many([SegmentRequest(embedding, prompts, multimask_output, min_score)])[0]

    @torch.inference_mode()
    def segment_many(self, requests: Sequence[SegmentRequest]) -> list[list[Segmentation]]:
        """Decode several requests together. Prompts on different images may share a batch.

        Returns:
            One list per request, in order, with one segmentation per prompt.

        Raises:
            Overloaded: there is too little memory for a single prompt.
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
            in_threads = len(batches) > 1 and not self.family.on_gpu
            for batch in threads.map_parallel(decode, batches) if in_threads else map(decode, batches):
                segmentations.update(batch)
        return [[segmentations[i, j] for j in range(len(request.prompts))] for i, request in enumerate(requests)]

    def _batch_size(self, embeddings: Sequence[Embedding]) -> int:
        """Return the number of prompts per batch for prompts on these embeddings, at most `prompts_per_batch`.

        On a CPU, the number is the larger of prompts / threads and MIN_TOKENS / image tokens of a prompt.
        """
        if self.family.on_gpu or not embeddings:
            return self.prompts_per_batch
        tokens = embeddings[0].features[-1].shape[-2:].numel()
        enough = max(math.ceil(len(embeddings) / threads.thread_count()), math.ceil(MIN_TOKENS / tokens))
        return min(self.prompts_per_batch, enough)

    def _decode(
        self, batch: Sequence[PlacedPrompt], multimask_output: bool, min_score: float
    ) -> list[tuple[tuple[int, int], Segmentation]]:
        """Decode a batch, in halves if memory is short. Return the place and the result of each prompt."""
        decode = partial(self._decode_batch, multimask_output=multimask_output, min_score=min_score)
        segmentations = halve_on_out_of_memory(decode, batch)
        return [(place, segmentation) for (place, _, _), segmentation in zip(batch, segmentations, strict=True)]

    @torch.inference_mode()  # set here too, because the mode is set per thread and this method runs in other threads
    def _decode_batch(
        self, batch: Sequence[PlacedPrompt], multimask_output: bool, min_score: float
    ) -> list[Segmentation]:
        embeddings, prompts = [embedding for _, embedding, _ in batch], [prompt for _, _, prompt in batch]
        logits, scores = self.family.decode(self._features(embeddings), stack(prompts), multimask_output, min_score)
        by_prompt = zip(logits, scores.float().cpu().numpy(), embeddings, strict=True)
        return [Segmentation(own, score, embedding.size) for own, score, embedding in by_prompt]

    def _features(self, embeddings: list[Embedding]) -> tuple[Tensor, ...]:
        """Return the feature maps that a batch of prompts is decoded with, on the model's device.

        Each map has the shape (p, channels, height, width). The features of a single image are expanded, not copied.
        """
        device, count = self.family.device, self.family.prompt_maps
        first = embeddings[0]
        if all(embedding is first for embedding in embeddings):
            return tuple(part.to(device).expand(len(embeddings), -1, -1, -1) for part in first.features[:count])
        parts = zip(*(embedding.features[:count] for embedding in embeddings), strict=True)
        return tuple(torch.cat([part.to(device) for part in same]) for same in parts)

    def track(
        self,
        frames: Iterable[tuple[int, np.ndarray | Embedding]],
        prompts: Iterable[TrackPrompt],
        state: TrackState | None = None,
        backward: bool | None = None,
        call: Call = UNTRACKED,
    ) -> Iterator[TrackedFrame]:
        """Track objects through frames with `tracking.tracker.track`. By default, `state` is empty."""
        from .tracking.tracker import track

        def embed(pixels: np.ndarray) -> Embedding:
            return self.embed([pixels], call)[0]

        known, run = TrackState() if state is None else state, partial(self.run, call=call)
        return track(self.family, frames, prompts, known, backward, embed, self.prompts_per_batch, run, call)

    def run(self, work: Callable[[], Result], call: Call = UNTRACKED) -> Result:
        """Run a network other than this model's encoder and decoder, such as a detector.

        The endpoint's subclass queues `work`: one network runs at a time, and holders of API keys take turns.

        Args:
            work: function that runs the network and returns the result.
            call: context of the request, checked before the network runs.

        Raises:
            Overloaded, DeadlineExceeded, ClientDisconnected: the queue is full, or the request must stop.
        """
        call.check()
        with torch.inference_mode():
            return work()

    @torch.inference_mode()
    def full_logits(self, segmentation: Segmentation) -> Tensor:
        """Return the (m, height, width) float32 logits at the size of the image, on the model's device."""
        return self.family.upscale(segmentation.logits, segmentation.size)

    @torch.inference_mode()
    def cropped_masks(self, segmentation: Segmentation) -> list[CroppedMask]:
        """Return the m masks, each cropped to its bounding box. A mask is where the upscaled logits exceed 0."""
        steps = self.family.upscaling(segmentation.size)
        if self.family.on_gpu:
            return [mask for mask, _ in encode_masks(segmentation.logits, steps)]
        return [upscale_masks(logits, steps, (0.0,))[0] for logits in segmentation.logits.float().cpu().numpy()]

    def masks(self, segmentation: Segmentation) -> np.ndarray:
        """Return the (m, height, width) bool masks at the size of the image."""
        return np.stack([mask.whole() for mask in self.cropped_masks(segmentation)])

    @torch.inference_mode()
    def stable_masks(
        self, logits: Sequence[Tensor], size: tuple[int, int], offset: float
    ) -> Iterator[tuple[CroppedMask, float]]:
        """Compute masks and their stability scores.

        The stability score is the IoU of two masks: where the upscaled logits exceed `offset`, and where they exceed
        `-offset`. The score is 0 if both masks are empty.

        Args:
            logits: (h, w) low-resolution logits of each mask.
            size: (height, width) of the image in pixels.
            offset: distance of each threshold from 0.

        Yields:
            Each mask, cropped to a box that contains it, and its stability score.
        """
        steps = self.family.upscaling(size)
        if self.family.on_gpu and logits:
            yield from encode_masks(torch.stack(list(logits)), steps, offset)
            return
        for own in logits:
            larger, mask, smaller = upscale_masks(own.float().cpu().numpy(), steps, (-offset, 0.0, offset))
            yield mask, float(smaller.inside.sum()) / max(1.0, float(larger.inside.sum()))
