"""The share of the processors that one tenant gets for decoding prompts and drawing masks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from sam_endpoint.model.call import Owner
from sam_endpoint.model.errors import DeadlineExceeded
from sam_endpoint.model.threads import thread_count
from sam_endpoint.scoring.online.batching import Batcher
from sam_endpoint.scoring.online.calls import ACTIVE, Calls
from sam_endpoint.scoring.online.metrics import Metrics
from sam_endpoint.scoring.online.settings import EndpointSettings


@contextmanager
def drawing(calls: Calls) -> Iterator[None]:
    """Hold all turns of the tenant "heavy" to draw masks."""
    with ExitStack() as held:
        for _ in range(max(2, thread_count()) // 2):
            held.enter_context(calls.new("heavy").stage("mask"))
        yield


def decodes_at_once(calls: Calls, count: int, others: tuple[str, ...] = ()) -> bool:
    """Return whether `count` prompts of the tenant "heavy" are decoded while the tenant draws masks."""
    for other in others:
        with calls.new(other).stage("prompt"):
            pass
    with drawing(calls):
        try:
            with calls.new("heavy").stage("prompt", count):
                return True
        except DeadlineExceeded:
            return False


def test_while_others_are_active_a_tenant_draws_or_decodes_many_prompts() -> None:
    calls = Calls(EndpointSettings(request_seconds=0.3), Metrics())
    assert not decodes_at_once(calls, 8, others=("other",))
    assert decodes_at_once(calls, 1)  # a click


def test_a_tenant_alone_draws_and_decodes_at_the_same_time() -> None:
    calls = Calls(EndpointSettings(request_seconds=0.3), Metrics())
    assert decodes_at_once(calls, 8, others=("heavy",))


def test_a_tenant_is_not_limited_by_tenants_that_have_finished_long_ago() -> None:
    calls = Calls(EndpointSettings(request_seconds=0.3), Metrics())
    assert not decodes_at_once(calls, 8, others=("other",))
    time.sleep(ACTIVE)
    assert decodes_at_once(calls, 8)


def test_only_the_first_prompt_of_a_request_counts_as_a_click() -> None:
    calls = Calls(EndpointSettings(request_seconds=0.3), Metrics())
    call = calls.new("heavy")
    with calls.new("other").stage("prompt"), call.stage("prompt"):
        pass
    with drawing(calls), pytest.raises(DeadlineExceeded), call.stage("prompt"):
        pass


def test_two_workers_do_not_divide_the_items_of_one_tenant() -> None:
    batches: list[list[str]] = []
    gates = [threading.Event() for _ in range(4)]

    def run(items: list[str]) -> list[str]:
        batches.append(items)
        gates[min(len(batches), 4) - 1].wait(10)
        return items

    def wait_for(count: int) -> None:
        while len(batches) < count:
            time.sleep(0.01)

    batcher = Batcher(run, max_size=2, wait=2, max_queue=100, workers=2)
    # Each of the two workers runs a batch of two items. Afterwards, it waits for more items before each batch.
    for count, items in enumerate((["a1"], ["b1"], ["a2", "a3"], ["b2", "b3"])):
        for item in items:
            batcher.submit(item, Owner(item[0]))
        if len(items) == 2:
            gates[count - 2].set()
        wait_for(count + 1)
    assert batches == [["a1"], ["b1"], ["a2", "a3"], ["b2", "b3"]]
    for gate in gates:
        gate.set()
    for _ in range(10):
        first = batcher.submit("c1", Owner("c"))
        time.sleep(0.02)
        batcher.submit("c2", Owner("c")).result(10)
        first.result(10)
    batcher.close()
    assert batches[4:] == [["c1", "c2"]] * 10
