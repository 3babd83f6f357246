"""Batches of calls from many threads, run by one worker."""

from __future__ import annotations

import math
import queue
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from sam_endpoint.model import threads
from sam_endpoint.model.call import UNTRACKED, Call
from sam_endpoint.model.errors import Overloaded
from sam_endpoint.model.prompts import Prompt
from sam_endpoint.model.segmenter import Embedding, Segmentation, Segmenter, SegmentRequest

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Batching:
    """Limits of batches and queues.

    Attributes:
        images: largest number of images encoded in one batch.
        requests: largest number of requests whose prompts are decoded in one batch.
        wait: seconds that a batch waits for more items if the batch before it had more than one; an idle worker never
            waits.
        queue: largest number of waiting items; a further item is rejected.
    """

    images: int = 8
    requests: int = 64
    wait: float = 0.002
    queue: int = 256


class Batcher(Generic[Item, Result]):
    """Collects items of many threads into batches for one worker thread.

    Args:
        run: maps a list of items to their results. If it fails on several items, each is run alone, so that a bad item
            fails no other.
        max_size: largest number of items in a batch.
        wait: seconds that a batch waits for more items, as in Batching.
        max_queue: largest number of waiting items.
        torch_threads: threads that share each torch operator in the worker.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Sequence[Result]],
        max_size: int,
        wait: float,
        max_queue: int,
        torch_threads: int = 1,
    ) -> None:
        self._run, self._max_size, self._wait, self._torch_threads = run, max_size, wait, torch_threads
        self._queue: queue.Queue[tuple[Item, Future[Result]] | None] = queue.Queue(max_queue)
        threading.Thread(target=self._work, daemon=True).start()

    @property
    def waiting(self) -> int:
        """Number of waiting items."""
        return self._queue.qsize()

    def submit(self, item: Item) -> Future[Result]:
        """Queue an item. Raises Overloaded if the queue is full."""
        future: Future[Result] = Future()
        try:
            self._queue.put_nowait((item, future))
        except queue.Full:
            raise Overloaded("too many requests are waiting") from None
        return future

    def close(self) -> None:
        """End the worker once all waiting items are done."""
        self._queue.put(None)

    def _work(self) -> None:
        threads.divide(self._torch_threads)
        crowded = False
        while (first := self._queue.get()) is not None:
            batch = [first]
            deadline = time.monotonic() + (self._wait if crowded else 0)
            while len(batch) < self._max_size:
                try:
                    remaining = deadline - time.monotonic()
                    item = self._queue.get(timeout=remaining) if remaining > 0 else self._queue.get_nowait()
                except queue.Empty:
                    break
                if item is None:
                    self._queue.put(None)
                    break
                batch.append(item)
            crowded = len(batch) > 1
            self._finish([entry for entry in batch if entry[1].set_running_or_notify_cancel()])

    def _finish(self, batch: list[tuple[Item, Future[Result]]]) -> None:
        if not batch:
            return
        try:
            results = self._run([item for item, _ in batch])
        except BaseException as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
            else:
                for entry in batch:
                    self._finish([entry])
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
        # Not more than are encoded at once: where images are encoded one by one, none has to wait for the others.
        images = min(batching.images, plain.images_per_batch)
        self.encoder: Batcher[np.ndarray, Embedding] = Batcher(
            plain.embed, images, batching.wait, batching.queue, threads.thread_count()
        )
        self.decoder: Batcher[SegmentRequest, list[Segmentation]] = Batcher(
            plain.segment_many, batching.requests, batching.wait, batching.queue
        )
        # The workers hold the plain segmenter, never this one: once nothing refers to this one, they end, and the
        # weights are freed.
        for batcher in (self.encoder, self.decoder):
            weakref.finalize(self, batcher.close).atexit = False

    def embed(self, images: Sequence[np.ndarray], call: Call = UNTRACKED) -> list[Embedding]:
        """Encode RGB images through the queue. Raises Overloaded if it is full, ClientDisconnected if cancelled."""
        return [call.wait(future) for future in [self.encoder.submit(image) for image in images]]

    def segment(
        self,
        embedding: Embedding,
        prompts: Sequence[Prompt],
        multimask_output: bool = True,
        min_score: float = -math.inf,
        call: Call = UNTRACKED,
    ) -> list[Segmentation]:
        """Decode prompts through the queue. Raises Overloaded if it is full, ClientDisconnected if cancelled."""
        return call.wait(self.decoder.submit(SegmentRequest(embedding, prompts, multimask_output, min_score)))
