"""Fair scheduling: the order in which requests of several tenants get a turn to compute."""

from __future__ import annotations

import math
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from sam_endpoint.model.call import Call, Owner
from sam_endpoint.model.errors import BadRequest, ClientDisconnected, Overloaded
from sam_endpoint.model.fair_queue import FairQueue
from sam_endpoint.model.turns import Turns
from sam_endpoint.scoring.online.batching import Batcher
from sam_endpoint.scoring.online.calls import Calls
from sam_endpoint.scoring.online.metrics import Metrics
from sam_endpoint.scoring.online.settings import EndpointSettings


def test_the_queue_alternates_between_tenants_and_between_their_requests() -> None:
    waiting: FairQueue[str] = FairQueue(100)
    for i in range(3):
        waiting.put(f"a-batch-{i}", Owner("a", "batch"))
        waiting.put(f"a-other-{i}", Owner("a", "other"))
    for i in range(2):
        waiting.put(f"b-{i}", Owner("b", "click"))
    order = [waiting.get() for _ in range(len(waiting))]
    assert order[:4] == ["a-batch-0", "b-0", "a-other-0", "b-1"]
    assert order[4:] == ["a-batch-1", "a-other-1", "a-batch-2", "a-other-2"]
    with pytest.raises(IndexError):
        waiting.get()


def test_a_full_queue_accepts_items_of_tenants_below_their_share() -> None:
    waiting: FairQueue[int] = FairQueue(4)
    for i in range(4):
        waiting.put(i, Owner("a"))
    with pytest.raises(Overloaded, match="too many requests are waiting"):
        waiting.put(4, Owner("a"))
    waiting.put(5, Owner("b"))
    waiting.put(6, Owner("b"))
    with pytest.raises(Overloaded):
        waiting.put(7, Owner("b"))
    waiting.put(8, Owner("c"))


def test_the_number_of_computing_threads_is_limited_and_tenants_alternate() -> None:
    turns, order, lock = Turns(2), [], threading.Lock()
    computing, max_computing = 0, 0
    begun = threading.Barrier(3)

    def block() -> None:
        with turns.turn(Owner("a", "first")):
            begun.wait(10)
            time.sleep(0.1)

    def work(owner: Owner) -> None:
        nonlocal computing, max_computing
        with turns.turn(owner):
            with lock:
                computing += 1
                max_computing = max(max_computing, computing)
                order.append(owner.tenant)
            time.sleep(0.005)
            with lock:
                computing -= 1

    with ThreadPoolExecutor(16) as pool:
        blocking = [pool.submit(block) for _ in range(2)]
        begun.wait(10)
        waiting = []
        for owner in [Owner("a", str(i)) for i in range(8)] + [Owner("b", "click")]:
            waiting.append(pool.submit(work, owner))
            while len(turns._waiting) < len(waiting):
                time.sleep(0.001)
        for future in blocking + waiting:
            future.result(10)
    assert max_computing == 2 and order.index("b") <= 2 and len(order) == 9
    assert turns._free == 2


def test_a_call_that_waits_for_a_turn_can_be_cancelled() -> None:
    turns, call = Turns(1), Call()
    with turns.turn(Owner("a")):
        threading.Timer(0.05, call.cancel).start()
        with pytest.raises(ClientDisconnected), turns.turn(Owner("b"), call.check):
            pass
    with turns.turn(Owner("c")):
        pass
    assert turns._free == 1


def test_a_tenant_at_its_limit_leaves_turns_to_others() -> None:
    turns, order = Turns(2, per_tenant=1), []
    leave = threading.Event()

    def hold(tenant: str) -> None:
        with turns.turn(Owner(tenant)):
            order.append(tenant)
            leave.wait(10)

    with ThreadPoolExecutor(8) as pool:
        holding = [pool.submit(hold, "a") for _ in range(4)]
        while not order:
            time.sleep(0.001)
        holding.append(pool.submit(hold, "b"))
        while len(order) < 2:
            time.sleep(0.001)
        assert order == ["a", "b"]
        leave.set()
        for future in holding:
            future.result(10)
    assert order == ["a", "b", "a", "a", "a"]


def test_skipped_tenants_keep_their_items() -> None:
    waiting: FairQueue[str] = FairQueue(10)
    for item in ("a1", "a2", "b1"):
        waiting.put(item, Owner(item[0]))
    assert waiting.get(skipped={"a"}) == "b1"
    with pytest.raises(IndexError):
        waiting.get(skipped={"a"})
    assert [waiting.get(), waiting.get()] == ["a1", "a2"]


def test_the_next_batch_contains_an_item_of_another_tenant() -> None:
    batches: list[list[str]] = []
    gate = threading.Event()

    def run(items: list[str]) -> list[str]:
        gate.wait(10)
        batches.append(items)
        return items

    batcher = Batcher(run, max_size=2, wait=0, max_queue=100)
    first = batcher.submit("first")
    while batcher.waiting:
        time.sleep(0.001)
    futures = [batcher.submit(f"a{i}", Owner("a", "batch")) for i in range(6)] + [batcher.submit("b", Owner("b"))]
    gate.set()
    assert [future.result(10) for future in [first, *futures]] == ["first", "a0", "a1", "a2", "a3", "a4", "a5", "b"]
    assert batches[:2] == [["first"], ["a0", "b"]]


@pytest.mark.parametrize(("seconds", "smallest", "largest"), [(0.004, 16, 16), (0.0002, 17, 100)])
def test_the_size_of_batches_adapts_to_the_time_limit(seconds: float, smallest: int, largest: int) -> None:
    batches: list[list[int]] = []

    def run(items: list[int]) -> list[int]:
        batches.append(items)
        time.sleep(seconds * sum(items))
        return items

    batcher = Batcher(run, max_size=1000, wait=0, max_queue=1000, weigh=lambda item: item, max_seconds=0.02)
    for future in [batcher.submit(1) for _ in range(300)]:
        future.result(30)
    # A batch may always reach a weight of 16. A larger batch must not exceed the limit of 0.02 s.
    assert smallest <= max(map(len, batches)) <= largest and sum(map(len, batches)) == 300


def test_a_click_does_not_share_a_batch_with_many_prompts() -> None:
    batches: list[list[int]] = []
    gate = threading.Event()

    def run(items: list[int]) -> list[int]:
        gate.wait(10)
        batches.append(items)
        return items

    batcher = Batcher(run, max_size=64, wait=0, max_queue=100, weigh=lambda item: item, max_seconds=0.002)
    futures = [batcher.submit(4)]
    while batcher.waiting:
        time.sleep(0.001)
    futures += [batcher.submit(1, Owner("b")), batcher.submit(60, Owner("a")), batcher.submit(2, Owner("b", "other"))]
    gate.set()
    assert [future.result(10) for future in futures] == [4, 1, 60, 2]
    assert batches == [[4], [1], [60], [2]]


def test_a_cancelled_item_is_not_run() -> None:
    gate, ran = threading.Event(), []

    def run(items: list[int]) -> list[int]:
        gate.wait(10)
        ran.extend(items)
        return items

    batcher = Batcher(run, max_size=1, wait=0, max_queue=100)
    futures = [batcher.submit(i) for i in range(3)]
    while batcher.waiting > 2:
        time.sleep(0.001)
    futures[1].cancel()
    gate.set()
    assert futures[2].result(10) == 2 and ran == [0, 2]


def test_a_closed_batcher_ends_when_its_items_are_done() -> None:
    batcher: Batcher[int, int] = Batcher(lambda items: items, max_size=1, wait=0, max_queue=100)
    before = threading.active_count()
    future = batcher.submit(1)
    batcher.close()
    assert future.result(10) == 1
    deadline = time.monotonic() + 10
    while threading.active_count() >= before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() < before


def use_processor(seconds: float) -> None:
    """Compute for some time."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_after_parsing_a_large_body_the_next_waits_and_small_ones_do_not() -> None:
    order: list[str] = []

    def parse(nbytes: int, name: str) -> None:
        with calls.new("tenant", nbytes).stage("parse"):
            order.append(name)

    def rest(seconds: float) -> None:
        """Let two other requests try to parse in the meantime."""
        threads.append(threading.Thread(target=parse, args=(2**20, "second large")))
        threads[0].start()
        time.sleep(0.2)
        parse(100, "small")
        order.append(f"rest of at most {math.ceil(10 * seconds) / 10} s")

    threads: list[threading.Thread] = []
    calls = Calls(EndpointSettings(), Metrics(), rest)
    with calls.new("other").stage("prompt"):
        pass
    with calls.new("tenant", 2**20).stage("parse"):
        use_processor(0.01)
        order.append("first large")
    threads[0].join(10)
    assert order == ["first large", "small", "rest of at most 0.1 s", "second large"]


def test_parsing_does_not_rest_while_no_model_is_used() -> None:
    rests: list[float] = []
    with Calls(EndpointSettings(), Metrics(), rests.append).new("", 2**20).stage("parse"):
        use_processor(0.01)
    assert rests == []


def test_what_was_parsed_of_a_large_body_is_deleted_in_its_stage() -> None:
    parsed: list[weakref.ref[set[int]]] = []

    def parse() -> None:
        value = {1}
        parsed.append(weakref.ref(value))
        raise BadRequest("wrong")

    with pytest.raises(BadRequest) as caught, Calls(EndpointSettings(), Metrics()).new("", 2**20).stage("parse"):
        parse()
    assert parsed[0]() is None and caught.tb is not None  # although the error still refers to the frame
