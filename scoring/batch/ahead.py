"""Images read and decoded ahead of the model, in threads."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from model.scorer import Pixels

Opened = tuple[str, Pixels]
Image = str | bytes


class Ahead:
    """`open(source)` of images in the order in which they will be wanted, at most `images` of them before the model.

    waited: seconds that the model had to wait for an image.
    """

    def __init__(self, open_: Callable[[Image], Opened], threads: int = 8, images: int = 16) -> None:
        self._open, self._most = open_, images
        self._pool = ThreadPoolExecutor(threads, "images")
        self._wanted: deque[Image] = deque()
        self._running: dict[Image, Future[Opened]] = {}
        self.waited = 0.0

    def want(self, sources: Iterable[Image]) -> None:
        """Tells which images come next."""
        self._wanted.extend(sources)
        self._fill()

    def open(self, source: Image) -> Opened:
        """The image, ready where it was announced; raises what opening it raised."""
        future = self._running.pop(source, None)
        if future is None:
            return self._open(source)
        began = time.perf_counter()
        try:
            return future.result()
        finally:
            self.waited += time.perf_counter() - began
            self._fill()

    def _fill(self) -> None:
        while self._wanted and len(self._running) < self._most:
            source = self._wanted.popleft()
            if source not in self._running:
                self._running[source] = self._pool.submit(self._ready, source)

    def _ready(self, source: Image) -> Opened:
        key, pixels = self._open(source)
        pixels()  # decoded here, in this thread, and remembered
        return key, pixels
