"""Tracking takes turns with other work: it is divided into pieces, and other tenants run between two pieces."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sam_endpoint.model.budget import MemoryBudget
from sam_endpoint.model.call import UNTRACKED, Call, Owner
from sam_endpoint.model.errors import Overloaded
from sam_endpoint.model.segmenter import Segmenter
from sam_endpoint.model.tracking import TrackPrompt
from sam_endpoint.model.tracking.session import FORWARD, TrackingSession
from sam_endpoint.model.tracking.ways import tracker_for
from sam_endpoint.model.video import open_video
from sam_endpoint.scoring.online.batching import BatchedSegmenter, Batching
from tests import checkpoints
from tests.videos import disc_frames, write_video

OBJECTS = 20
PROMPTS = [TrackPrompt(0, number, box=np.array([9 + number, 9, 60, 60], np.float32)) for number in range(OBJECTS)]


class Recorder(Segmenter):
    """A segmenter that counts the pieces of work that it runs."""

    pieces = 0

    def run(self, work: Callable[[], Any], call: Call = UNTRACKED) -> Any:
        """Run a piece of work, as `Segmenter.run`."""
        self.pieces += 1
        return super().run(work, call)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.save_sam2_video(tmp_path_factory.mktemp("video"), side=64)


@pytest.fixture
def recorder(folder: Path) -> Recorder:
    return Recorder(Segmenter.load(str(folder), "cpu").family, "video")


def test_a_slow_frame_is_divided_into_pieces_of_one_object(recorder: Recorder) -> None:
    frames = list(enumerate(disc_frames(3)[0]))
    whole = list(recorder.track(frames, PROMPTS))
    by_frame = []
    # No piece is fast enough for a millionth of a second.
    slow = Call(piece_seconds=1e-6)
    recorder.pieces = 0
    for tracked, expected in zip(recorder.track(frames, PROMPTS, call=slow), whole, strict=True):
        by_frame.append(recorder.pieces)
        for thing, same in zip(tracked.objects, expected.objects, strict=True):
            assert torch.equal(thing.logits > 0, same.logits > 0) and thing.score == pytest.approx(same.score, abs=1e-4)
    # Each object is decoded and memorized in pieces of its own.
    assert np.diff(by_frame).tolist() == [2 * OBJECTS, 2 * OBJECTS]


def test_another_tenant_waits_for_one_piece_only(recorder: Recorder) -> None:
    batched = BatchedSegmenter(recorder, Batching())
    video = Call(owner=Owner("a", "video"), piece_seconds=1e-6)
    frames = list(enumerate(disc_frames(6)[0]))
    thread = threading.Thread(target=lambda: list(batched.track(frames, PROMPTS, call=video)))
    thread.start()
    waits = []
    while thread.is_alive():
        before = recorder.pieces
        at_start = batched.run(lambda: recorder.pieces, Call(owner=Owner("b", "click")))
        waits.append(at_start - before - 1)  # without the piece of the click
    assert recorder.pieces > 6 * OBJECTS and len(waits) > 10
    assert max(waits) <= 1


def test_the_state_counts_as_memory_and_too_much_of_it_ends_the_video(recorder: Recorder, tmp_path: Path) -> None:
    video = open_video(write_video(tmp_path / "clip.gif", disc_frames(6)[0]))
    tracker = tracker_for(recorder)
    frame = 40 * 96 * 128 + 2 * tracker.features_nbytes
    for limit in (10**9, frame + 200_000):
        memory = MemoryBudget(limit, seconds=0.1)
        call = Call(memory=memory)
        session = TrackingSession(tracker, video, call.keep)
        session.add(PROMPTS)
        held = []
        with suppress(Overloaded):
            for _ in session.run(FORWARD, call):
                held.append(memory.held)
        assert (len(held) == 6) is (limit == 10**9)
        assert all(nbytes > frame for nbytes in held) and held == sorted(held)
        call.close()
        assert memory.held == 0
