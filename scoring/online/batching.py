"""Batches of calls from many threads, run by one worker."""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Condition
from typing import Generic, TypeAlias, TypeVar

import numpy as np

from sam_endpoint.model import threads
from sam_endpoint.model.call import NOBODY, UNTRACKED, Call, Owner
from sam_endpoint.model.prompts import Prompt
from sam_endpoint.model.segmenter import Embedding, Segmentation, Segmenter, SegmentRequest
from sam_endpoint.scoring.online.fair_queue import FairQueue

Item = TypeVar("Item")
Result = TypeVar("Result")
FIRST_WEIGHT = 16  # of the first batch, before any time is known
Entry: TypeAlias = tuple[Item, Future[Result]]


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
    """Collects items of many threads into batches for one worker thread, in the order of a FairQueue.

    Args:
        run: maps a list of items to their results. If it fails on several items, each is run alone, so that a bad item
            fails no other.
        max_size: largest number of items in a batch.
        wait: seconds that a batch waits for more items, as in Batching.
        max_queue: largest number of waiting items.
        torch_threads: threads that share each torch operator in the worker.
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
        weigh: Callable[[Item], int] = lambda item: 1,
        max_seconds: float = math.inf,
    ) -> None:
        self._run, self._max_size, self._wait, self._torch_threads = run, max_size, wait, torch_threads
        self._weigh, self._max_seconds = weigh, max_seconds
        self._seconds_a_weight = 0.0 if math.isinf(max_seconds) else max_seconds / FIRST_WEIGHT
        self._queue: FairQueue[Entry[Item, Result]] = FairQueue(max_queue)
        self._changed = Condition()
        self._closed = False
        threading.Thread(target=self._work, daemon=True).start()

    @property
    def waiting(self) -> int:
        """Number of waiting items."""
        return len(self._queue)

    def submit(self, item: Item, owner: Owner = NOBODY) -> Future[Result]:
        """Queue an item. Raises Overloaded if the queue is full."""
        future: Future[Result] = Future()
        with self._changed:
            self._queue.put((item, future), owner)
            self._changed.notify()
        return future

    def close(self) -> None:
        """End the worker once all waiting items are done."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _work(self) -> None:
        threads.configure_current_thread(self._torch_threads)
        crowded = False
        while batch := self._next_batch(self._wait if crowded else 0):
            crowded = len(batch) > 1
            started = time.monotonic()
            self._finish(batch)
            weight = sum(self._weigh(item) for item, _ in batch)
            seconds = (time.monotonic() - started) / max(1, weight)
            self._seconds_a_weight = (self._seconds_a_weight + seconds) / 2

    def _next_batch(self, wait: float) -> list[Entry[Item, Result]]:
        """Wait for items and return those of the next batch that are not cancelled; none once the queue is closed."""
        with self._changed:
            while True:
                while not len(self._queue):
                    if self._closed:
                        return []
                    self._changed.wait()
                batch: list[Entry[Item, Result]] = []
                weight, deadline = 0, time.monotonic() + wait
                while len(batch) < self._max_size and not self._is_enough(weight):
                    if not len(self._queue):
                        remaining = deadline - time.monotonic()
                        if remaining <= 0 or self._closed or not self._changed.wait(remaining):
                            break
                        continue
                    entry = self._queue.get()
                    if entry[1].set_running_or_notify_cancel():
                        batch.append(entry)
                        weight += self._weigh(entry[0])
                if batch:
                    return batch

    def _is_enough(self, weight: int) -> bool:
        return weight > 0 and weight * self._seconds_a_weight >= self._max_seconds

    def _finish(self, batch: list[Entry[Item, Result]]) -> None:
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
            plain.segment_many,
            batching.requests,
            batching.wait,
            batching.queue,
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
