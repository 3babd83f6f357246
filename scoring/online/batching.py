"""Calls of many threads, gathered into batches for one worker."""

from __future__ import annotations

import math
import queue
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from model import threads
from model.errors import Busy, Gone
from model.prompts import Prompt
from model.segmenter import Ask, Embedding, Segmentation, Segmenter

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Batching:
    """images, prompts: most images encoded, and most requests' prompts decoded, in one batch.
    wait: seconds that a batch waits for more, once the batch before it held more than one; an idle worker never waits.
    waiting: most items in a queue; one more is refused.
    """

    images: int = 8
    prompts: int = 64
    wait: float = 0.002
    waiting: int = 256


class Caller:
    """Who asked. Once gone, what waits in a queue for it is taken out, and whatever it asks next is refused."""

    def __init__(self) -> None:
        self._waiting: set[Future[Any]] = set()
        self._gone = False
        self._lock = threading.Lock()

    def leave(self) -> None:
        with self._lock:
            self._gone, waiting = True, list(self._waiting)
        for future in waiting:
            future.cancel()

    def check(self) -> None:
        """Raises Gone for who has left."""
        if self._gone:
            raise Gone("the client has hung up")

    def result(self, future: Future[Result]) -> Result:
        """Waits for the future's result. Raises Gone."""
        with self._lock:
            self._waiting.add(future)
            gone = self._gone
        try:
            if gone:
                future.cancel()
            return future.result()
        except CancelledError:
            raise Gone("the client has hung up") from None
        finally:
            with self._lock:
                self._waiting.discard(future)


caller: ContextVar[Caller] = ContextVar("caller")
NOBODY = Caller()  # who never leaves


class Gatherer(Generic[Item, Result]):
    """`run` maps a list of items to their results. Where it fails on several, each is tried alone, so that a bad one
    fails no other. divided: threads that each operator of torch is divided in."""

    def __init__(
        self,
        run: Callable[[list[Item]], Sequence[Result]],
        largest: int,
        wait: float,
        waiting: int,
        divided: int = 1,
    ) -> None:
        self._run, self._largest, self._wait, self._divided = run, largest, wait, divided
        self._queue: queue.Queue[tuple[Item, Future[Result]] | None] = queue.Queue(waiting)
        threading.Thread(target=self._work, daemon=True).start()

    @property
    def waiting(self) -> int:
        return self._queue.qsize()

    def submit(self, item: Item) -> Future[Result]:
        """The result to be. Raises Busy."""
        future: Future[Result] = Future()
        try:
            self._queue.put_nowait((item, future))
        except queue.Full:
            raise Busy("too many requests are waiting") from None
        return future

    def close(self) -> None:
        """Ends the worker once all that waits is answered."""
        self._queue.put(None)

    def _work(self) -> None:
        threads.divide(self._divided)
        crowded = False
        while (first := self._queue.get()) is not None:
            batch = [first]
            until = time.monotonic() + (self._wait if crowded else 0)
            while len(batch) < self._largest:
                try:
                    left = until - time.monotonic()
                    more = self._queue.get(timeout=left) if left > 0 else self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    self._queue.put(None)
                    break
                batch.append(more)
            crowded = len(batch) > 1
            self._answer([one for one in batch if one[1].set_running_or_notify_cancel()])

    def _answer(self, batch: list[tuple[Item, Future[Result]]]) -> None:
        if not batch:
            return
        try:
            results = self._run([item for item, _ in batch])
        except BaseException as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
            else:
                for one in batch:
                    self._answer([one])
            return
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)


class BatchedSegmenter(Segmenter):
    """A segmenter whose calls from different threads are encoded and decoded together."""

    def __init__(self, plain: Segmenter, batching: Batching) -> None:
        super().__init__(
            plain.family,
            plain.name,
            images_per_batch=plain.images_per_batch,
            prompts_per_batch=plain.prompts_per_batch,
        )
        # No more than are encoded at once: where they are encoded one by one, none has to wait for the others.
        images = min(batching.images, plain.images_per_batch)
        self.encoder = Gatherer(plain.embed, images, batching.wait, batching.waiting, threads.COUNT)
        self.decoder = Gatherer(plain.segment_many, batching.prompts, batching.wait, batching.waiting)
        # The workers hold the plain segmenter, never this one: once nobody holds this, they end, and its weights go.
        for gatherer in (self.encoder, self.decoder):
            weakref.finalize(self, gatherer.close).atexit = False

    def embed(self, images: Sequence[np.ndarray]) -> list[Embedding]:
        asking = caller.get(NOBODY)
        return [asking.result(future) for future in [self.encoder.submit(image) for image in images]]

    def segment(
        self,
        embedding: Embedding,
        prompts: Sequence[Prompt],
        multimask_output: bool = True,
        least: float = -math.inf,
    ) -> list[Segmentation]:
        return caller.get(NOBODY).result(self.decoder.submit(Ask(embedding, prompts, multimask_output, least)))
