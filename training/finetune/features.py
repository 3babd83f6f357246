"""Prepare training images: their targets are kept in memory, and their features in a store on disk."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sam_endpoint.evaluation.ground_truth import AnnotatedImage, Problems
from sam_endpoint.model.embeddings import EmbeddingCache, Store
from sam_endpoint.model.segmenter import Embedding, Segmenter
from sam_endpoint.training.finetune.targets import Target, make_targets, region_of

CACHE_BYTES = 2**30


@dataclass(frozen=True)
class Sample:
    """A training image.

    Attributes:
        key: The key of its features in the store.
        size: (height, width) in pixels.
        region: (height, width) of the part of the low-resolution grid that the image covers, in cells. The part begins
            at the top left of the grid.
        targets: The objects, at least one.
    """

    key: str
    size: tuple[int, int]
    region: tuple[int, int]
    targets: list[Target]


class StrictStore(Store):
    """A store that ends the training if it fails. Otherwise, a resumed training would encode images twice unnoticed."""

    problem = ""

    def report_invalid(self) -> None:
        """Do nothing, because the next write replaces a broken file."""

    def _report(self, message: str) -> None:
        self.problem = message

    def check(self) -> None:
        """Wait until all files are written. Raises OSError if the store cannot be read or written."""
        self.flush()
        if self.problem:
            raise OSError(f"{self.root}: {self.problem}; is the disk full? The images encoded so far are kept")


class FeatureSource:
    """Computes and stores the features of training images. Each image is computed once.

    With a frozen encoder, the features of an image are the encoder's feature maps. Otherwise the features are the
    preprocessed pixels, because each step changes the encoder's weights and has to encode the pixels again.

    Args:
        segmenter: The base model.
        folder: The folder of the store, in the format of the endpoint's embedding store.
        frozen: Whether the encoder is frozen.
        cache_bytes: The size of the cache in memory, in bytes.

    Attributes:
        encoded: The number of images that were encoded or preprocessed. Images from the store do not count.
    """

    def __init__(self, segmenter: Segmenter, folder: Path, frozen: bool, cache_bytes: int = CACHE_BYTES) -> None:
        self.segmenter, self.frozen = segmenter, frozen
        self.encoded = 0
        self.store = StrictStore(str(folder))
        family = segmenter.family
        pixels = f"pixels {family.name} {family.input_size} {family.mean} {family.std}"
        fingerprint = family.fingerprint() if frozen else pixels
        self.cache = EmbeddingCache(cache_bytes, self.store).for_model(fingerprint, self._is_valid)

    def add(self, image: AnnotatedImage, problems: Problems) -> Sample | None:
        """Encode an image unless the store has its features, and return its sample.

        Returns:
            The sample, or None if all objects of the image are too small.

        Raises:
            OSError: The store cannot be written.
        """
        family = self.segmenter.family
        targets = make_targets(family, image, problems)
        if not targets:
            return None
        size = (image.pixels.shape[0], image.pixels.shape[1])
        key = hashlib.sha256(f"{size}".encode() + image.pixels.tobytes()).hexdigest()
        self.cache.get(key, lambda: self._encode(image))
        self.store.check()
        return Sample(key, size, region_of(family, size), targets)

    def features(self, sample: Sample) -> tuple[Tensor, ...]:
        """Return the features of a sample, each (1, channels, height, width). Raises OSError if they are missing."""

        def missing() -> Embedding:
            raise OSError(f"{self.store.root}: an embedding of this training is missing; start the same command again")

        return self.cache.get(sample.key, missing).to(self.segmenter.family.device).features

    def _encode(self, image: AnnotatedImage) -> Embedding:
        self.encoded += 1
        family = self.segmenter.family
        pixels = family.preprocess(image.pixels)[None]
        features: tuple[Tensor, ...] = (pixels,)
        if self.frozen:
            # Tensors of inference mode, which `Segmenter.embed` returns, cannot be used in backward passes.
            with torch.no_grad():
                maps = family.embed(pixels.to(family.device))[: family.prompt_maps]
                features = tuple(part.contiguous().cpu() for part in maps)
        return Embedding(features, (image.pixels.shape[0], image.pixels.shape[1]), self.segmenter.name)

    def _is_valid(self, embedding: Embedding) -> bool:
        family = self.segmenter.family
        pixels = ((1, 3, family.input_size, family.input_size),)
        shapes = tuple(tuple(part.shape) for part in embedding.features)
        return shapes == (family.feature_shapes[: family.prompt_maps] if self.frozen else pixels)


def read_samples(
    images: Iterable[AnnotatedImage],
    source: FeatureSource,
    problems: Problems,
    on_first: Callable[[Sample, float], None] = lambda sample, seconds: None,
) -> Iterator[Sample]:
    """Yield a sample for each image with objects.

    Args:
        images: The training images.
        source: Encodes them.
        problems: The function adds the objects and images that it leaves out.
        on_first: The function calls it with the second sample that is encoded and the seconds that the sample took.
            The first sample is slower than the others. If fewer than two images are encoded, there is no call.
    """
    for image in images:
        if not image.objects:
            problems.add("images without usable masks, not trained on", image.name)
            continue
        encoded, started = source.encoded, time.monotonic()
        sample = source.add(image, problems)
        if sample is None:
            problems.add("images without usable masks, not trained on", image.name)
            continue
        if encoded < 2 <= source.encoded:
            on_first(sample, time.monotonic() - started)
        yield sample
