"""Limits of a request's size, time, answer and memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sam_endpoint.model import threads
from sam_endpoint.model.budget import MemoryBudget, RequestLimits
from sam_endpoint.model.call import Call
from sam_endpoint.model.engine import Engine
from sam_endpoint.model.errors import BadRequest, ClientDisconnected, DeadlineExceeded, Overloaded
from sam_endpoint.model.images import ImageRef
from sam_endpoint.model.params import Params
from sam_endpoint.model.prompts import Prompt
from sam_endpoint.model.scorer import Scorer
from sam_endpoint.model.segmenter import Segmenter
from sam_endpoint.scoring.online.calls import COMPUTING
from sam_endpoint.scoring.online.dialects import livepeer
from sam_endpoint.scoring.online.dialects.best_masks import best_masks, largest_polygon
from tests import pictures
from tests.engines import engine_of

BOX = [68, 38, 153, 123]
LOOSE: dict[str, Any] = {
    "points_per_side": 8,
    "pred_iou_thresh": 0.0,
    "stability_score_thresh": 0.0,
    "box_nms_thresh": 1.0,
}


def score(scorer: Scorer, rows: list[dict[str, Any]], call: Call | None = None, **params: Any) -> pd.DataFrame:
    """Score rows with a scorer, by default without limits of the call."""
    return scorer.score_frame(pd.DataFrame(rows), Params(**params), call or Call())


@pytest.mark.parametrize(
    ("limits", "rows", "params", "message"),
    [
        ({"rows": 2}, [{}] * 3, {}, "expected at most 2 rows a request, got 3: send several requests"),
        (
            {"prompts": 3},
            [{"input_boxes": [BOX] * 2}] * 2,
            {},
            "expected at most 3 prompts in all rows of a request",
        ),
        ({"points": 1000}, [{}], {}, "got 1 rows without prompts, each with 1,024 points: lower points_per_side"),
        ({"points": 1500}, [{}] * 2, {}, "got 2 rows without prompts, each with 1,024 points"),
        (
            {"points": 10**6},
            [{}],
            {"points_per_side": 128, "crop_n_layers": 3},
            "each with 1,392,640 points: lower points_per_side or crop_n_layers",
        ),
        (
            {"answer_bytes": 10**6},
            [{"input_boxes": [BOX] * 9}],
            {"return_logits": True},
            "got 27 masks with logits of 86,400 bytes each: leave return_logits out",
        ),
    ],
)
def test_rejects_a_request_over_a_limit_before_it_reads_images(
    tiny: Segmenter, limits: dict[str, Any], rows: list[dict[str, Any]], params: dict[str, Any], message: str
) -> None:
    """The images do not exist. Reading them would raise another error."""
    scorer = Scorer(engine_of(tiny, local_paths=True), RequestLimits(**limits))
    images: list[dict[str, Any]] = [{"image": "file:/nowhere.png", **row} for row in rows]
    for on_error in ("raise", "record"):
        with pytest.raises(BadRequest, match=message):
            score(scorer, images, **params, on_error=on_error)


def test_accepts_a_request_within_all_limits(tiny: Segmenter, disc: tuple[bytes, np.ndarray]) -> None:
    scorer = Scorer(engine_of(tiny), RequestLimits(rows=2, prompts=3, points=64, answer_bytes=10**6))
    rows: list[dict[str, Any]] = [{"image": disc[0], "input_boxes": [BOX] * 3}, {"image": disc[0]}]
    assert len(score(scorer, rows, **{**LOOSE, "mask_encoding": "rle"})) == 2


@pytest.mark.parametrize("row", [{}, {"input_boxes": [BOX] * 8}], ids=["everything", "boxes"])
@pytest.mark.parametrize("encoding", ["png", "rle", "polygon"])
def test_rejects_an_answer_that_grows_over_its_limit(
    tiny: Segmenter, disc: tuple[bytes, np.ndarray], row: dict[str, Any], encoding: str
) -> None:
    scorer: Scorer = Scorer(engine_of(tiny))
    params: dict[str, Any] = {**LOOSE, "mask_encoding": encoding}
    answer = score(scorer, [{"image": disc[0], **row}], **params)
    masks = [mask for item in answer["predictions"][0] for mask in item["mask_per_prediction"]]
    nbytes = sum(len(mask["encoded_binary_mask"]) for mask in masks)
    with pytest.raises(BadRequest, match="expected a response of at most 100 bytes, got a larger one"):
        score(scorer, [{"image": disc[0], **row}], Call(max_answer_bytes=100), **params)
    with pytest.raises(BadRequest, match="got a larger one"):
        score(scorer, [{"image": disc[0], **row}], Call(max_answer_bytes=nbytes - 1), **params)
    two_rows = score(scorer, [{"image": disc[0], **row}] * 2, Call(max_answer_bytes=4 * nbytes), **params)
    assert len(two_rows) == 2
    if not row:  # all rows have the same objects, but the answer contains the objects of each row
        with pytest.raises(BadRequest, match="got a larger one"):
            score(scorer, [{"image": disc[0]}] * 50, Call(max_answer_bytes=40 * nbytes), **params)


def test_segmenting_everything_holds_only_the_logits_that_it_returns(
    tiny: Segmenter, disc: tuple[bytes, np.ndarray]
) -> None:
    """No candidate is filtered: 64 points have 192 candidates, and the answer contains the logits of each."""
    scorer = Scorer(engine_of(tiny))
    plain, with_logits = (score(scorer, [{"image": disc[0]}], **LOOSE, return_logits=flag) for flag in (False, True))
    masks = [item["mask_per_prediction"][0] for item in with_logits["predictions"][0]]
    assert [mask["area"] for mask in masks] == [p["mask_per_prediction"][0]["area"] for p in plain["predictions"][0]]
    assert all("low_res_logits" in mask for mask in masks)
    with pytest.raises(BadRequest, match="got a larger one"):
        score(scorer, [{"image": disc[0]}], Call(max_answer_bytes=2_000_000), **LOOSE, return_logits=True)


def test_a_call_ends_at_its_deadline(tiny: Segmenter, disc: tuple[bytes, np.ndarray]) -> None:
    scorer = Scorer(engine_of(tiny))
    score(scorer, [{"image": disc[0], "input_boxes": [BOX]}])
    call = Call(seconds=0.3, piece_seconds=0.05)
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"takes longer than 0\.3 seconds; send fewer rows, prompts or points"):
        score(scorer, [{"image": disc[0]}], call, **{**LOOSE, "points_per_side": 128, "points_per_batch": 1024})
    assert time.monotonic() - started < 20  # the whole call would take minutes


def test_a_call_without_a_limit_has_pieces_of_the_largest_size() -> None:
    assert [piece.stop - piece.start for piece in Call().pieces(10, 4)] == [4, 4, 4]
    assert list(Call().pieces(0, 4)) == []


def test_the_size_of_pieces_adapts_to_the_time_that_they_take() -> None:
    sizes = []
    for piece in Call(piece_seconds=0.1).pieces(300, 64):
        sizes.append(piece.stop - piece.start)
        if len(sizes) > 4:
            time.sleep(0.12)
    assert sizes[:5] == [8, 16, 32, 64, 64] and sizes[5:7] == [32, 16]


def test_a_cancelled_call_stops_before_its_next_piece() -> None:
    call = Call()
    with pytest.raises(ClientDisconnected):
        for _ in call.pieces(10, 1):
            call.cancel()


def test_a_tenant_leaves_memory_to_the_others() -> None:
    budget = MemoryBudget(100, seconds=0, per_tenant=75)
    with budget.hold(50, tenant="a"):
        with pytest.raises(Overloaded), budget.hold(30, tenant="a"):
            pass
        with budget.hold(30, tenant="b"), budget.hold(20, tenant="a"):
            assert budget.held == 100
    with budget.hold(90, tenant="a"):  # a single large request
        assert not budget.try_take(1, "a") and budget.try_take(10, "b")


def test_a_call_waits_for_memory_and_then_fails() -> None:
    budget = MemoryBudget(100, seconds=0.2)
    with Call(memory=budget).hold(60):
        with (
            pytest.raises(Overloaded, match="not enough memory is available at the moment"),
            Call(memory=budget).hold(50),
        ):
            pass
        threading.Timer(0.05, budget.release, [0]).start()
        with (
            pytest.raises(BadRequest, match="needs at most 100 bytes of memory, got 101"),
            Call(memory=budget).hold(101),
        ):
            pass
        released = threading.Event()

        def wait() -> None:
            with Call(memory=MemoryBudget(None)).hold(10**12), Call(memory=budget).hold(40):
                released.set()

        threading.Thread(target=wait).start()
        assert released.wait(10)
    assert budget.held == 0


def test_a_call_releases_the_memory_that_it_keeps_when_it_is_closed() -> None:
    budget = MemoryBudget(100, seconds=0)
    call = Call(memory=budget)
    call.keep(60)
    call.keep(30)
    with pytest.raises(Overloaded):
        call.keep(20)
    assert budget.held == 90
    call.close()
    call.close()
    assert budget.held == 0


def test_a_call_that_waits_for_memory_can_be_cancelled() -> None:
    budget = MemoryBudget(100, seconds=60)
    call = Call(memory=budget)
    with budget.hold(100):
        threading.Timer(0.1, call.cancel).start()
        with pytest.raises(ClientDisconnected), call.hold(1):
            pass


def test_rejects_an_image_that_needs_more_memory_than_the_budget(
    tiny: Segmenter, disc: tuple[bytes, np.ndarray]
) -> None:
    scorer = Scorer(engine_of(tiny))
    with pytest.raises(BadRequest, match="needs at most 100,000 bytes of memory, got 460,800"):
        score(scorer, [{"image": disc[0], "input_boxes": [BOX]}], Call(memory=MemoryBudget(100_000)))


class WatchedCall(Call):
    """Notes when memory is asked for within a stage that has a turn at the processors."""

    def __init__(self) -> None:
        super().__init__(max_answer_bytes=10**9, memory=MemoryBudget(10**9))
        self.in_turn, self.counted = "", 0

    def stage(self, name: str, count: int = 1) -> AbstractContextManager[Any]:
        return self._in_turn(name) if name in COMPUTING else super().stage(name, count)

    @contextmanager
    def _in_turn(self, name: str) -> Iterator[None]:
        self.in_turn = name
        yield
        self.in_turn = ""

    def _ask(self) -> None:
        assert not self.in_turn, f"memory is waited for within the stage {self.in_turn}"
        self.counted += 1

    def keep(self, nbytes: int) -> None:
        self._ask()
        super().keep(nbytes)

    def hold(self, nbytes: int) -> AbstractContextManager[None]:
        self._ask()
        return super().hold(nbytes)


@pytest.mark.parametrize("row", [{}, {"input_boxes": [BOX] * 2}], ids=["everything", "boxes"])
@pytest.mark.parametrize("encoding", ["png", "rle", "polygon"])
def test_a_request_has_no_turn_while_it_waits_for_memory(
    tiny: Segmenter, disc: tuple[bytes, np.ndarray], row: dict[str, Any], encoding: str
) -> None:
    call, params = WatchedCall(), {**LOOSE, "mask_encoding": encoding, "return_logits": True, "points_per_side": 4}
    score(Scorer(engine_of(tiny)), [{"image": disc[0], **row}], call, **params)
    assert call.counted > 2


def test_other_dialects_have_no_turn_while_they_wait_for_memory(
    tiny: Segmenter, disc: tuple[bytes, np.ndarray]
) -> None:
    call, engine = WatchedCall(), engine_of(tiny)
    image = engine.embed(ImageRef.content(disc[0]), call)
    prompts = [Prompt(box=np.array(BOX, np.float32))]
    for as_logits in (False, True):
        for best in best_masks(engine, image, prompts, True, call, as_logits):
            largest_polygon(best.logits > 0, call)
        (segmentation,) = engine.segment(image, prompts, True, call)
        for _ in livepeer._stream_response(
            engine, segmentation, np.arange(3), segmentation.logits.numpy(), as_logits, call
        ):
            pass
    assert call.counted > 3


def slots(engine: Engine) -> int:
    """Return how many images an engine may decode at the same time."""
    return engine.segmenter.images_per_batch + threads.thread_count()


def decoding(tiny: Segmenter, budget: MemoryBudget) -> tuple[Engine, list[Call], list[threading.Thread]]:
    """Return an engine all of whose places for decoded images are wanted by calls that wait for memory."""
    engine = engine_of(tiny)
    calls = [Call(memory=budget) for _ in range(slots(engine))]

    def embed(number: int) -> None:
        with pytest.raises(ClientDisconnected):
            engine.embed(ImageRef.content(pictures.disc(250 + number, 250)[0]), calls[number])

    waiting = [threading.Thread(target=embed, args=(number,)) for number in range(len(calls))]
    for thread in waiting:
        thread.start()
    time.sleep(0.3)
    return engine, calls, waiting


def test_images_that_wait_for_memory_do_not_keep_others_from_being_decoded(tiny: Segmenter) -> None:
    budget = MemoryBudget(2**20, seconds=60)
    with budget.hold(2**19):
        engine, calls, waiting = decoding(tiny, budget)
        embedded = engine.embed(ImageRef.content(pictures.disc(64, 64)[0]), Call(memory=budget, seconds=20))
        assert embedded.size == (64, 64)
        for call in calls:
            call.cancel()
        for thread in waiting:
            thread.join(20)


def test_an_image_that_waits_to_be_decoded_has_a_deadline(tiny: Segmenter, disc: tuple[bytes, np.ndarray]) -> None:
    engine = engine_of(tiny)
    with ExitStack() as decoded:
        for number in range(slots(engine)):
            reference = ImageRef.content(pictures.disc(64 + number, 64)[0])
            decoded.enter_context(engine.embedded(reference, pixels=True))
        with pytest.raises(DeadlineExceeded):
            engine.embed(ImageRef.content(disc[0]), Call(seconds=0.2))
    assert engine.embed(ImageRef.content(disc[0]), Call(seconds=20)).size == (160, 240)
