"""Batching of calls from several threads: sizes of batches, failures, and full queues."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sam_endpoint.model.errors import Overloaded
from sam_endpoint.model.prompts import parse_prompts
from sam_endpoint.model.segmenter import Segmentation, Segmenter, SegmentRequest
from sam_endpoint.scoring.online.batching import BatchedSegmenter, Batcher, Batching
from tests import pictures


class Recorder:
    """A function of a batch that doubles numbers and records the batches. It fails for a batch that contains 13.

    Attributes:
        batches: batches of all calls, in order.
        gate: event for which each call waits.
    """

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, items: list[int]) -> list[int]:
        """Return the items of a batch, doubled."""
        self.gate.wait(10)
        self.batches.append(items)
        if 13 in items:
            raise ValueError("thirteen")
        return [2 * item for item in items]


def hold(batcher: Batcher[int, int], recorder: Recorder) -> None:
    """Make the worker wait on item 0, so that later items stay in the queue."""
    recorder.gate.clear()
    batcher.submit(0)
    while batcher.waiting:
        time.sleep(0.001)


def test_waiting_items_form_batches_up_to_the_largest_size() -> None:
    recorder = Recorder()
    batcher = Batcher(recorder, max_size=3, wait=0, max_queue=100)
    hold(batcher, recorder)
    futures = [batcher.submit(i) for i in range(1, 8)]
    recorder.gate.set()
    assert [future.result(10) for future in futures] == [2, 4, 6, 8, 10, 12, 14]
    assert recorder.batches == [[0], [1, 2, 3], [4, 5, 6], [7]]


def test_an_idle_worker_runs_an_item_at_once() -> None:
    batcher = Batcher(Recorder(), max_size=8, wait=5, max_queue=100)
    start = time.monotonic()
    assert batcher.submit(4).result(10) == 8
    assert time.monotonic() - start < 4  # a worker with a queue would wait five seconds for more items


def test_only_the_bad_item_of_a_batch_fails() -> None:
    recorder = Recorder()
    batcher = Batcher(recorder, max_size=8, wait=0, max_queue=100)
    hold(batcher, recorder)
    futures = [batcher.submit(i) for i in (1, 13, 2)]
    recorder.gate.set()
    assert futures[0].result(10) == 2 and futures[2].result(10) == 4
    with pytest.raises(ValueError, match="thirteen"):
        futures[1].result(10)
    assert batcher.submit(3).result(10) == 6


def test_a_full_queue_rejects_an_item_at_once() -> None:
    recorder = Recorder()
    batcher = Batcher(recorder, max_size=1, wait=0, max_queue=2)
    hold(batcher, recorder)
    futures = [batcher.submit(i) for i in (1, 2)]
    with pytest.raises(Overloaded):
        batcher.submit(3)
    recorder.gate.set()
    assert [future.result(10) for future in futures] == [2, 4]


def test_threads_get_the_same_results_as_without_batching(tiny: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [pictures.clutter(60 + 10 * i, 90, seed=i) for i in range(4)]
    prompts = parse_prompts([[[20, 30]], [[50, 40]]], None, None, None)
    alone = [tiny.segment(tiny.embed([image])[0], prompts) for image in images]
    batch_sizes: list[int] = []
    decode = tiny.segment_many

    def counting(requests: Sequence[SegmentRequest]) -> list[list[Segmentation]]:
        batch_sizes.append(len(requests))
        return decode(requests)

    monkeypatch.setattr(tiny, "segment_many", counting)
    batched = BatchedSegmenter(tiny, Batching())
    start = threading.Barrier(16)

    def compare(i: int) -> bool:
        start.wait()
        actual = batched.segment(batched.embed([images[i % 4]])[0], prompts)
        return all(
            np.array_equal(batched.masks(ours), tiny.masks(reference))
            and np.allclose(ours.scores, reference.scores, atol=1e-5)
            for ours, reference in zip(actual, alone[i % 4], strict=True)
        )

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(compare, range(16)))
    assert sum(batch_sizes) == 16
