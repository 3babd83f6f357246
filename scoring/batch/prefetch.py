"""Read and decode images in background threads before the model needs them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from sam_endpoint.model.call import UNTRACKED, Call
from sam_endpoint.model.images import ImageLimits, ImageRef, ImageSource, OpenedImage


class ImagePrefetcher:
    """An image source that reads and decodes announced images in background threads, in the announced order.

    Use it as a context manager. Leaving the `with` block stops the threads.

    Args:
        images: source that reads the images.
        threads: number of threads.
        max_images: maximum number of images that are read or decoded at the same time or wait for the model.

    Attributes:
        waited: seconds that the model has waited for announced images.
    """

    def __init__(self, images: ImageSource, threads: int = 8, max_images: int = 16) -> None:
        self._images, self._max_images = images, max_images
        self._pool = ThreadPoolExecutor(threads, "images")
        self._announced: deque[ImageRef] = deque()
        self._opening: dict[ImageRef, Future[OpenedImage]] = {}
        self._last: tuple[ImageRef, OpenedImage] | None = None
        self.waited = 0.0

    def __enter__(self) -> ImagePrefetcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    @property
    def limits(self) -> ImageLimits:
        """Limits of the underlying image source."""
        return self._images.limits

    def reference(self, value: object, upright: bool = False) -> ImageRef:
        """Convert a cell of the column `image` to a reference to an image. Raises BadInput."""
        return self._images.reference(value, upright)

    def announce(self, refs: Iterable[ImageRef]) -> None:
        """Start to read images that the model needs next.

        Args:
            refs: the images, in the order in which the model needs them.
        """
        self._announced.extend(refs)
        self._fill()

    def open(self, ref: ImageRef, call: Call = UNTRACKED) -> OpenedImage:
        """Return an image. Waits for its thread if the image was announced, else reads it now.

        The image of the last call is returned again without reading it. Exceptions from reading or decoding the image
        in a thread are raised here.
        """
        if self._last is not None and self._last[0] == ref:
            return self._last[1]
        future = self._opening.pop(ref, None)
        started = time.perf_counter()
        try:
            image = self._images.open(ref, call) if future is None else future.result()
        finally:
            if future is not None:
                self.waited += time.perf_counter() - started
                self._fill()
        self._last = ref, image
        return image

    def discard(self, refs: Iterable[ImageRef]) -> None:
        """Cancel announced images that the model no longer needs, so that the threads can read other images."""
        for ref in refs:
            future = self._opening.pop(ref, None)
            if future is not None:
                future.cancel()
        self._fill()

    def _fill(self) -> None:
        while self._announced and len(self._opening) < self._max_images:
            ref = self._announced.popleft()
            if ref not in self._opening:
                self._opening[ref] = self._pool.submit(self._open_and_decode, ref)

    def _open_and_decode(self, ref: ImageRef) -> OpenedImage:
        image = self._images.open(ref)
        image.pixels()
        return image
