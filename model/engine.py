"""The Engine: embed images, segment them by prompts, and find cached images. Scorer, endpoint and batch jobs use it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from copy import copy

import numpy as np
from torch import Tensor

from . import threads
from .call import UNTRACKED, Call
from .concepts.search import ConceptSearch
from .embedded_image import EmbeddedImage
from .embeddings import EmbeddingCache
from .embeddings.cache import is_key
from .errors import BadInput, UnknownImage
from .everything import DEFAULT_GRID, Box, FoundObject, Grid, everything
from .images import ImageRef, ImageSource, OpenedImage
from .masks import CroppedMask
from .prompts import Prompt
from .prompts.parsing import check_prompts
from .segmenter import Embedding, Segmentation, Segmenter
from .tracking import TrackedFrame, TrackPrompt, TrackState
from .turns import Turns

__all__ = ["EmbeddedImage", "Engine"]

NumberedImage = tuple[int, np.ndarray | ImageRef | EmbeddedImage]


class Engine:
    """A model with an image reader and a cache of embeddings. Safe to share between threads.

    Args:
        segmenter: the model.
        images: reads images by reference.
        cache: caches embeddings. Models can share a cache: the engine uses only embeddings from an encoder with equal
            weights.
        max_prompts: maximum number of prompts in one row of a table, and of points in one prompt.

    Attributes:
        fingerprint: a hash of the model's weights.
        concepts: finds objects by text and by example.

    Example:
        >>> import numpy as np
        >>> from sam_endpoint.model.images import ImageReader
        >>> segmenter = Segmenter.load("checkpoints/sam-tiny", "cpu")
        >>> engine = Engine(segmenter, ImageReader(), EmbeddingCache(max_bytes=2**28))
        >>> image = engine.embed(ImageRef.path("samples/coffee.jpg"))
        >>> prompts = [Prompt(box=np.array([170, 14, 414, 312], np.float32))]
        >>> (segmentation,) = engine.segment(image, prompts, multimask_output=False)
        >>> engine.masks(segmentation).shape
        (1, 400, 600)
    """

    def __init__(
        self, segmenter: Segmenter, images: ImageSource, cache: EmbeddingCache, max_prompts: int = 10_000
    ) -> None:
        self.segmenter = segmenter
        self.images = images
        self.fingerprint = segmenter.family.fingerprint()
        self.cache = cache.for_model(segmenter.family.encoder_fingerprint(), self._is_valid)
        self.max_prompts = max_prompts
        self.concepts = ConceptSearch(segmenter)
        # Each decoded image takes a slot. There is one slot per image of an encoder batch, plus one per torch thread.
        self._decoded = Turns(segmenter.images_per_batch + threads.thread_count())

    def for_tenant(self, tenant: str) -> Engine:
        """Return an engine that finds only the cached images and ids of one tenant (the holder of one API key)."""
        view = copy(self)
        view.cache = self.cache.for_tenant(tenant)
        return view

    def with_images(self, images: ImageSource) -> Engine:
        """Return an engine that reads images from another source. It shares model and cache with this engine."""
        view = copy(self)
        view.images = images
        return view

    @property
    def family(self) -> str:
        """Name of the model family, such as `sam` or `sam2`."""
        return self.segmenter.family.name

    @property
    def tracks(self) -> bool:
        """Whether the model has the layers that remember earlier frames. `track` needs these layers."""
        return self.segmenter.family.tracks

    @property
    def low_res_size(self) -> tuple[int, int]:
        """(height, width) of low-resolution logits and of mask inputs."""
        return self.segmenter.family.low_res_size

    def embed(self, ref: ImageRef, call: Call = UNTRACKED) -> EmbeddedImage:
        """Read and encode an image, or get its embedding from the cache.

        Args:
            ref: reference to the image.
            call: deadline, cancellation and memory budget of the request.

        Returns:
            The image, ready for `segment`.

        Raises:
            BadInput: the image cannot be read or decoded.
            UnknownImage: `ref` is an `image_id`, and no cached image has this id.
            Overloaded, DeadlineExceeded, ClientDisconnected: as `segment`.
        """
        with self.embedded(ref, call=call) as image:
            return image

    @contextmanager
    def embedded(self, ref: ImageRef, pixels: bool = False, call: Call = UNTRACKED) -> Iterator[EmbeddedImage]:
        """Embed an image as `embed` does. If `pixels` is set, the image stays decoded until the `with` block ends."""
        if ref.kind == "id":
            yield self.find(str(ref.value))
            return
        image = self.images.open(ref, call)
        if not pixels:
            yield self.embed_opened(image, call)
            return
        with ExitStack() as held:
            encoded = []

            def encode() -> Embedding:
                held.enter_context(self._decoding(image, call))
                encoded.append(self._encode(image.pixels(call), call))
                return encoded[0]

            embedding = self.cache.get(image.key, encode)
            if not encoded:  # a slot only now, because a thread that waits in `get` for another must not hold one
                held.enter_context(self._decoding(image, call))
            yield EmbeddedImage(embedding, image.key, image)

    def embed_opened(self, image: OpenedImage, call: Call = UNTRACKED) -> EmbeddedImage:
        """Encode an image that has been read already, or get its embedding from the cache.

        Raises the exceptions of `embed`, except UnknownImage.
        """

        def encode() -> Embedding:
            with self._decoding(image, call):
                return self._encode(image.pixels(call), call)

        return EmbeddedImage(self.cache.get(image.key, encode), image.key, image)

    def find(self, image_id: str) -> EmbeddedImage:
        """Return a cached image.

        Args:
            image_id: the `image_id` that `name` assigned, or the image's key.

        Raises:
            UnknownImage: no cached image has this id or key.
        """
        key = self.cache.key(image_id)
        embedding = self.cache.find(key)
        if embedding is None:
            raise UnknownImage("image_id", "the id of a cached image (send the image again)", "an unknown id")
        return EmbeddedImage(embedding, key)

    def name(self, image_id: str, image: EmbeddedImage) -> None:
        """Assign an `image_id` to an image, so that `find` returns the image.

        Args:
            image_id: the id. An id that is in use moves to this image.
            image: the image.

        Raises:
            BadInput: the id has the form of a key (a SHA-256), but is not the key of this image.
        """
        if image_id == image.key:
            return
        if is_key(image_id):
            expected = "the image's own SHA-256, or an id that is not 64 hexadecimal digits"
            raise BadInput("image_id", expected, "another SHA-256")
        self.cache.name(image_id, image.key)

    def from_features(self, features: np.ndarray, size: tuple[int, int], key: str = "") -> EmbeddedImage:
        """Wrap an embedding that the caller computed. Only for families with a single feature map, such as `sam`.

        Args:
            features: (1, channels, height, width) integers or floats, the feature map.
            size: (height, width) of the image in pixels.
            key: the image's key, if it has one.

        Raises:
            BadInput: the shape differs from `features_shape` of the model, or the array holds NaN or a number outside
                -1e6 to 1e6.
        """
        shape = self.segmenter.family.features_shape
        return EmbeddedImage.from_features(features, shape, size, self.segmenter.name, key)

    def check_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Raise BadInput if there are too many prompts or points, or if a mask input does not have `low_res_size`."""
        check_prompts(prompts, self.max_prompts, self.low_res_size)

    def segment(
        self, image: EmbeddedImage, prompts: Sequence[Prompt], multimask_output: bool = True, call: Call = UNTRACKED
    ) -> list[Segmentation]:
        """Segment an image by prompts.

        Args:
            image: the image, as returned by `embed`.
            prompts: the prompts; each selects one object.
            multimask_output: True for 3 masks per prompt, False for 1 mask per prompt.
            call: context of the request.

        Returns:
            One segmentation per prompt, in order.

        Raises:
            Overloaded: a queue is full, or there is too little memory at the moment.
            DeadlineExceeded, ClientDisconnected: the request must stop (see `Call.check`).
        """
        if not prompts:
            return []
        with call.stage("prompt", len(prompts)):
            return self.segmenter.segment(image.embedding, prompts, multimask_output, call=call)

    def track(
        self,
        frames: Iterable[NumberedImage],
        prompts: Iterable[TrackPrompt],
        state: TrackState | None = None,
        backward: bool | None = None,
        call: Call = UNTRACKED,
    ) -> Iterator[TrackedFrame]:
        """Track objects as `Segmenter.track` does. Embeddings of ImageRef frames are cached, those of pixels not."""
        images = ((i, self.embed(frame, call) if isinstance(frame, ImageRef) else frame) for i, frame in frames)
        embedded = ((i, image.embedding if isinstance(image, EmbeddedImage) else image) for i, image in images)
        return self.segmenter.track(embedded, prompts, state, backward, call)

    def everything(
        self, image: EmbeddedImage, grid: Grid = DEFAULT_GRID, keep_logits: bool = False, call: Call = UNTRACKED
    ) -> list[FoundObject]:
        """Segment every object in an image (automatic mask generation).

        Args:
            image: the image, as returned by `embed`.
            grid: point grid and mask filters.
            keep_logits: whether the objects carry low-resolution logits.
            call: context of the request.

        Returns:
            The objects, the best predicted IoU first.

        Raises:
            BadInput: `grid.crop_n_layers` is above 0, and only the embedding of the image is known.
            BadRequest: the masks take more bytes than the call allows.
            Overloaded, DeadlineExceeded, ClientDisconnected: as `segment`.
        """

        def crop(box: Box) -> Embedding:
            x1, y1, x2, y2 = box
            key = f"{image.key} {x1},{y1},{x2},{y2}"
            return self.cache.get(key, lambda: self._encode(image.pixels(call)[y1:y2, x1:x2], call))

        # Reserve the slot for the decoded image before asking the cache for the embeddings of crops. Otherwise, threads
        # that wait for a crop could hold all slots, and the thread that encodes this crop would never get a slot.
        decoding = self._decoding(image.image, call) if grid.crop_n_layers and image.image else nullcontext()
        with decoding:
            return everything(self.segmenter, image.embedding, crop, grid, keep_logits, call)

    def cropped_masks(self, segmentation: Segmentation) -> list[CroppedMask]:
        """Return the masks of a segmentation, each cropped to its bounding box. This is faster than `masks`."""
        return self.segmenter.cropped_masks(segmentation)

    def masks(self, segmentation: Segmentation) -> np.ndarray:
        """Return the masks of a segmentation at the image's size: (masks, height, width) bool."""
        return self.segmenter.masks(segmentation)

    def full_logits(self, segmentation: Segmentation) -> Tensor:
        """Return the logits of a segmentation at the image's size: (masks, height, width)."""
        return self.segmenter.full_logits(segmentation)

    @contextmanager
    def _decoding(self, image: OpenedImage, call: Call) -> Iterator[None]:
        """Reserve memory and a slot for a decoded image until the `with` block ends. Then free its pixels."""
        # Memory first, because a call that waits for memory must not prevent others from decoding.
        with call.hold(image.memory_needed()), self._decoded.turn(call.owner, call.check):
            try:
                yield
            finally:
                image.release()

    def _is_valid(self, embedding: Embedding) -> bool:
        """Return whether an embedding of the store has valid shapes, numbers and image size for this model."""
        return embedding.is_valid(self.segmenter.family.feature_shapes) and self.images.limits.allow(embedding.size)

    def _encode(self, pixels: np.ndarray, call: Call) -> Embedding:
        with call.stage("encode"):
            return self.segmenter.embed([pixels], call)[0]
