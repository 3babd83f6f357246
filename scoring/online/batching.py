"""Batches of calls from many threads, run by one worker."""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Condition
from typing import Generic, TypeVar

import numpy as np

from sam_endpoint.model import threads
from sam_endpoint.model.call import NOBODY, UNTRACKED, Call, Owner
from sam_endpoint.model.prompts import Prompt
from sam_endpoint.model.segmenter import Embedding, Segmentation, Segmenter, SegmentRequest
from sam_endpoint.scoring.online.fair_queue import FairQueue

Item = TypeVar("Item")
Result = TypeVar("Result")
FIRST_WEIGHT = 16  # of the first batch, before any time is known
DECODERS = 2  # worker threads of the mask decoder, so that no tenant keeps the others waiting


@dataclass(frozen=True)
class Batching:
    """Limits of batches and queues.

    Attributes:
        images: largest number of images encoded in one batch.
        requests: largest number of requests whose prompts are decoded in one batch.
        wait: seconds that a batch waits for more items if the batch before it had more than one; an idle worker never
            waits.
        queue: largest number of waiting items; a further item is rejected.
        seconds: a batch of prompts of several requests takes about this time at most.
    """

    images: int = 8
    requests: int = 64
    wait: float = 0.002
    queue: int = 256
    seconds: float = 0.02


class Batcher(Generic[Item, Result]):
    """Collects items of many threads into batches for worker threads, in the order of a FairQueue.

    While a batch with items of a tenant runs, the other workers leave the tenant's further items in the queue: a
    tenant with many items keeps one worker busy, and a click of another tenant need not wait for that worker.

    Args:
        run: maps a list of items to their results. If it fails on several items, each is run alone, so that a bad item
            fails no other.
        max_size: largest number of items in a batch.
        wait: seconds that a batch waits for more items, as in Batching.
        max_queue: largest number of waiting items.
        torch_threads: threads that share each torch operator in a worker.
        workers: number of worker threads.
        weigh: returns how much work an item is.
        max_seconds: a batch of several items is limited to the weight that took about this time before.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Sequence[Result]],
        max_size: int,
        wait: float,
        max_queue: int,
        torch_threads: int = 1,
        workers: int = 1,
        weigh: Callable[[Item], int] = lambda item: 1,
        max_seconds: float = math.inf,
    ) -> None:
        self._run, self._max_size, self._wait, self._torch_threads = run, max_size, wait, torch_threads
        self._weigh, self._max_seconds = weigh, max_seconds
        self._seconds_a_weight = 0.0 if math.isinf(max_seconds) else max_seconds / FIRST_WEIGHT
        self._queue: FairQueue[_Entry[Item, Result]] = FairQueue(max_queue)
        self._changed = Condition()
        self._running: Counter[str] = Counter()  # batches of each tenant
        self._closed = False
        for _ in range(workers):
            threading.Thread(target=self._work, daemon=True).start()

    @property
    def waiting(self) -> int:
        """Number of waiting items."""
        return len(self._queue)

    def submit(self, item: Item, owner: Owner = NOBODY) -> Future[Result]:
        """Queue an item. Raises Overloaded if the queue is full."""
        future: Future[Result] = Future()
        with self._changed:
            self._queue.put(_Entry(item, future, owner.tenant), owner)
            self._changed.notify_all()
        return future

    def close(self) -> None:
        """End the workers once all waiting items are done."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _work(self) -> None:
        threads.divide(self._torch_threads)
        crowded = False
        while batch := self._next_batch(self._wait if crowded else 0):
            crowded = len(batch) > 1
            started = time.monotonic()
            self._finish(batch)
            weight = sum(self._weigh(entry.item) for entry in batch)
            seconds = (time.monotonic() - started) / max(1, weight)
            with self._changed:
                self._seconds_a_weight = (self._seconds_a_weight + seconds) / 2
                self._running -= Counter({entry.tenant for entry in batch})
                self._changed.notify_all()

    def _next_batch(self, wait: float) -> list[_Entry[Item, Result]]:
        """Wait for items and return those of the next batch that are not cancelled; none once the queue is closed."""
        with self._changed:
            while True:
                entry = self._take()
                while entry is None:
                    if self._closed and not len(self._queue):
                        return []
                    self._changed.wait()
                    entry = self._take()
                batch: list[_Entry[Item, Result]] = []
                weight, deadline = 0, time.monotonic() + wait
                while True:
                    if entry is not None and entry.future.set_running_or_notify_cancel():
                        batch.append(entry)
                        weight += self._weigh(entry.item)
                    if len(batch) >= self._max_size or self._is_enough(weight):
                        break
                    entry = self._take()
                    if entry is None:
                        remaining = deadline - time.monotonic()
                        if remaining <= 0 or self._closed or not self._changed.wait(remaining):
                            break
                if batch:
                    self._running += Counter({entry.tenant for entry in batch})
                    return batch

    def _take(self) -> _Entry[Item, Result] | None:
        """Return the next item of a tenant without a running batch, or None. The caller holds the lock."""
        try:
            return self._queue.get(skipped=self._running)
        except IndexError:
            return None

    def _is_enough(self, weight: int) -> bool:
        return weight > 0 and weight * self._seconds_a_weight >= self._max_seconds

    def _finish(self, batch: list[_Entry[Item, Result]]) -> None:
        try:
            results = self._run([entry.item for entry in batch])
        except BaseException as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
            else:
                for entry in batch:
                    self._finish([entry])
            return
        for entry, result in zip(batch, results, strict=True):
            entry.future.set_result(result)


@dataclass(frozen=True)
class _Entry(Generic[Item, Result]):
    """A waiting item, the future of its result, and the tenant that it belongs to."""

    item: Item
    future: Future[Result]
    tenant: str


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
            plain.segment_many,
            batching.requests,
            batching.wait,
            batching.queue,
            workers=DECODERS,
            weigh=lambda request: len(request.prompts),
            max_seconds=batching.seconds,
        )
        # The workers hold the plain segmenter, never this one: once nothing refers to this one, they end, and the
        # weights are freed.
        for batcher in (self.encoder, self.decoder):
            weakref.finalize(self, batcher.close).atexit = False

    def embed(self, images: Sequence[np.ndarray], call: Call = UNTRACKED) -> list[Embedding]:
        """Encode RGB images through the queue. Raises Overloaded if it is full, ClientDisconnected if cancelled."""
        return [call.wait(future) for future in [self.encoder.submit(image, call.owner) for image in images]]

    def segment(
        self,
        embedding: Embedding,
        prompts: Sequence[Prompt],
        multimask_output: bool = True,
        min_score: float = -math.inf,
        call: Call = UNTRACKED,
    ) -> list[Segmentation]:
        """Decode prompts through the queue. Raises Overloaded if it is full, ClientDisconnected if cancelled."""
        request = SegmentRequest(embedding, prompts, multimask_output, min_score)
        return call.wait(self.decoder.submit(request, call.owner))
