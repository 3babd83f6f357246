"""Collect items from many threads into batches, and run each batch in one worker thread."""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from threading import Condition, Lock
from typing import Any, Generic, TypeVar

import numpy as np

from sam_endpoint.model import threads
from sam_endpoint.model.call import NOBODY, UNTRACKED, Call, Owner
from sam_endpoint.model.fair_queue import FairQueue
from sam_endpoint.model.prompts import Prompt
from sam_endpoint.model.segmenter import Embedding, Segmentation, Segmenter, SegmentRequest

Item = TypeVar("Item")
Result = TypeVar("Result")
Work = TypeVar("Work")
FREE_WEIGHT = 16  # a batch may always reach this number of prompts, which share the overhead of PyTorch's calls
DECODERS = 2  # worker threads of the mask decoder; a tenant uses one at a time, so the second is free for other tenants


@dataclass(frozen=True)
class Batching:
    """The limits of a model's batches and queues.

    Attributes:
        images: largest number of images encoded in one batch.
        requests: largest number of requests whose prompts are decoded in one batch.
        wait: seconds that a worker waits for more items before it starts a batch. A worker waits only if its previous
            batch had two or more items.
        queue: `max_size` of each queue (see `FairQueue`).
        seconds: approximate maximum duration of a batch of more than FREE_WEIGHT prompts of several requests.
    """

    images: int = 8
    requests: int = 64
    wait: float = 0.002
    queue: int = 256
    seconds: float = 0.1


class Batcher(Generic[Item, Result]):
    """Collects items from many threads into batches, which worker threads run.

    A tenant is the holder of one API key. The queue serves tenants in turn (see `FairQueue`). While a batch with items
    of a tenant runs, further items of this tenant stay in the queue. A tenant with many items therefore uses only one
    worker, and other workers are free for other tenants.

    Args:
        run: computes the results of a list of items, in the same order. If it raises an exception for several items, it
            is called again for each item alone, so that a bad item does not fail the other items of its batch.
        max_size: largest number of items in a batch.
        wait: seconds that a worker waits for more items before it starts a batch. A worker waits only if its previous
            batch had two or more items.
        max_queue: `max_size` of the queue (see `FairQueue`).
        torch_threads: number of threads that each torch operator uses in a worker.
        workers: number of worker threads.
        weigh: returns the weight of an item: its amount of work, such as its number of prompts.
        max_seconds: approximate maximum duration of a batch of several items. The batcher measures the seconds per unit
            of weight. It adds no item with which a batch would weigh more than FREE_WEIGHT and probably take longer
            than `max_seconds`. A single item may take longer.

    Example:
        >>> batcher = Batcher(lambda items: [2 * item for item in items], max_size=8, wait=0.002, max_queue=256)
        >>> batcher.submit(21).result()
        42
        >>> batcher.close()
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
        self._seconds_per_weight = 0.0 if math.isinf(max_seconds) else max_seconds / FREE_WEIGHT
        self._queue: FairQueue[_Entry[Item, Result]] = FairQueue(max_queue)
        self._changed, self._forming = Condition(), Lock()  # only one worker at a time forms a batch
        self._running: Counter[str] = Counter()  # number of running batches of each tenant
        self._closed = False
        for _ in range(workers):
            threading.Thread(target=self._work, daemon=True).start()

    @property
    def waiting(self) -> int:
        """Number of waiting items."""
        return len(self._queue)

    @property
    def is_running(self) -> bool:
        """Whether a batch runs now."""
        return bool(self._running)

    def submit(self, item: Item, owner: Owner = NOBODY) -> Future[Result]:
        """Add an item to the queue.

        Args:
            item: the item.
            owner: tenant and request to which the item belongs; the queue serves tenants and requests in turn.

        Returns:
            The future of the item's result. If the caller cancels the future before the batch of the item starts, the
            item is removed from the queue.

        Raises:
            Overloaded: the queue accepts no further item of the tenant (see `FairQueue.put`).
        """
        future: Future[Result] = Future()
        with self._changed:
            self._queue.put(_Entry(item, future, owner.tenant), owner)
            self._changed.notify_all()
        return future

    def close(self) -> None:
        """Stop the workers after they have finished all waiting items."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _work(self) -> None:
        threads.configure_current_thread(self._torch_threads)
        crowded = False
        while batch := self._next_batch(self._wait if crowded else 0):
            crowded = len(batch) > 1
            started = time.monotonic()
            self._finish(batch)
            weight = sum(self._weigh(entry.item) for entry in batch)
            seconds = (time.monotonic() - started) / max(1, weight)
            with self._changed:
                self._seconds_per_weight = (self._seconds_per_weight + seconds) / 2
                self._running -= Counter({entry.tenant for entry in batch})
                self._changed.notify_all()
            del batch  # otherwise, the items stay in memory until the next batch

    def _next_batch(self, wait: float) -> list[_Entry[Item, Result]]:
        """Wait for items and return the next batch, without cancelled items. Return [] once the batcher is closed."""
        with self._forming, self._changed:
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
                    if len(batch) >= self._max_size or not self._fits(weight, 1):
                        break
                    entry = self._take(weight)
                    if entry is None:
                        remaining = deadline - time.monotonic()
                        # Items that do not fit are for other workers, and no reason to wait.
                        if remaining <= 0 or self._closed or len(self._queue) or not self._changed.wait(remaining):
                            break
                if batch:
                    self._running += Counter({entry.tenant for entry in batch})
                    return batch

    def _take(self, weight: int = 0) -> _Entry[Item, Result] | None:
        """Return the next item, if it fits, of a tenant without a running batch; or None. The caller holds the lock."""
        with suppress(IndexError):
            return self._queue.get(self._running, lambda entry: self._fits(weight, self._weigh(entry.item)))
        return None

    def _fits(self, weight: int, added: int) -> bool:
        total = weight + added
        return not weight or total <= FREE_WEIGHT or total * self._seconds_per_weight <= self._max_seconds

    def _finish(self, batch: list[_Entry[Item, Result]]) -> None:
        try:
            results = self._run([entry.item for entry in batch])
        except BaseException as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                del batch  # this frame must not refer to the future of its error: see `Call.wait`
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
    """A segmenter that processes concurrent requests together: their images in one batch, their prompts in another.

    Args:
        plain: the segmenter that runs the batches.
        batching: limits of batches and queues.

    Attributes:
        encoder: batcher of images.
        decoder: batcher of requests, each with its prompts.
        runner: queue of the work of further networks, such as a detector.
    """

    def __init__(self, plain: Segmenter, batching: Batching) -> None:
        super().__init__(
            plain.family,
            plain.name,
            images_per_batch=plain.images_per_batch,
            prompts_per_batch=plain.prompts_per_batch,
            finder=plain.finder,
        )
        # The encoder processes at most `images_per_batch` images at once. A larger batch would be processed in several
        # steps, and its first images would wait for its last images.
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
        self.runner: Batcher[Callable[[], Any], Any] = Batcher(
            lambda works: [plain.run(work) for work in works], 1, 0, batching.queue, threads.thread_count()
        )
        # The workers refer to the plain segmenter, not to this object. When this object is garbage collected, it closes
        # the batchers, and the weights are freed.
        for batcher in (self.encoder, self.decoder, self.runner):
            weakref.finalize(self, batcher.close).atexit = False

    def embed(self, images: Sequence[np.ndarray], call: Call = UNTRACKED) -> list[Embedding]:
        """Encode RGB images. Images of several requests share batches.

        Args:
            images: arrays (height, width, 3), uint8.
            call: the request's `Call`; its owner determines the order in the queue.

        Raises:
            Overloaded: the queue accepts no further item of the tenant (see `FairQueue.put`).
            ClientDisconnected, DeadlineExceeded: the call is cancelled or exceeds its deadline.
        """
        # Not a list comprehension, whose frame would refer to the futures: see `Call.wait`.
        return list(map(call.wait, [self.encoder.submit(image, call.owner) for image in images]))

    def segment(
        self,
        embedding: Embedding,
        prompts: Sequence[Prompt],
        multimask_output: bool = True,
        min_score: float = -math.inf,
        call: Call = UNTRACKED,
    ) -> list[Segmentation]:
        """Decode prompts. Prompts of several requests share batches.

        Args:
            embedding: embedding of the image.
            prompts: prompts on the image.
            multimask_output: True for 3 masks per prompt, False for 1 mask per prompt.
            min_score: the caller needs only masks with a score above `min_score`. If all scores of a prompt are at most
                `min_score`, the logits of the prompt may be zeros.
            call: the request's `Call`; its owner determines the order in the queue.

        Raises:
            Overloaded: the queue accepts no further item of the tenant (see `FairQueue.put`).
            ClientDisconnected, DeadlineExceeded: the call is cancelled or exceeds its deadline.
        """
        request = SegmentRequest(embedding, prompts, multimask_output, min_score)
        return call.wait(self.decoder.submit(request, call.owner))

    def run(self, work: Callable[[], Work], call: Call = UNTRACKED) -> Work:
        """Run work of a further network in a queue, one piece at a time. Raises the exceptions of `segment`."""
        result: Work = call.wait(self.runner.submit(work, call.owner))
        return result
