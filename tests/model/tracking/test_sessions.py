"""Sessions of tracking: what is tracked again after new prompts, and after a run that ended early."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from sam_endpoint.model.call import UNTRACKED, Call
from sam_endpoint.model.embeddings import EmbeddingCache
from sam_endpoint.model.errors import ClientDisconnected
from sam_endpoint.model.segmenter import Segmenter
from sam_endpoint.model.tracking import TrackPrompt
from sam_endpoint.model.tracking.session import BACKWARD, BOTH, FORWARD, TrackingSession, cached_frames
from sam_endpoint.model.tracking.ways import BOX, MEMORY, tracker_for
from sam_endpoint.model.video import open_video
from tests import pictures
from tests.videos import disc_frames

COUNT = 10
Answers = dict[tuple[int, int], torch.Tensor]  # the latest logits by number of the frame and of the object


@pytest.fixture(scope="module", params=[MEMORY, BOX])
def new_session(request: pytest.FixtureRequest) -> Callable[[], TrackingSession]:
    """Return a function that opens a session on a video of a moving disc. The frames are encoded once."""
    video = open_video([pictures.to_bytes(Image.fromarray(frame)) for frame in disc_frames(COUNT)[0]])
    tracker = tracker_for(Segmenter.load("checkpoints/sam2-tiny", "cpu"), request.param)
    embed = cached_frames(EmbeddingCache(2**30), video.identity)
    return lambda: TrackingSession(tracker, video, rewinds=True, embed=embed)


def click(frame: int, number: int, *points: tuple[int, int], label: int = 1) -> TrackPrompt:
    return TrackPrompt(frame, number, np.array(points, np.float32), np.full(len(points), label, np.int32))


def run(session: TrackingSession, direction: str, answers: Answers) -> list[int]:
    """Track, put the objects of each frame in place of earlier ones, and return the numbers of the frames."""
    frames = []
    for timed in session.run(direction, UNTRACKED):
        frames.append(timed.tracked.frame)
        for place in [place for place in answers if place[0] == frames[-1]]:
            del answers[place]
        answers.update({(frames[-1], thing.object): thing.logits for thing in timed.tracked.objects})
    return frames


def fresh(session: TrackingSession, direction: str, *prompts: TrackPrompt) -> Answers:
    """Return the answers of a session that gets all prompts before it tracks."""
    session.add(prompts)
    answers: Answers = {}
    run(session, direction, answers)
    return answers


def assert_same(actual: Answers, expected: Answers) -> None:
    assert sorted(actual) == sorted(expected)
    assert [place for place in actual if not torch.equal(actual[place], expected[place])] == []


def test_a_correction_is_not_lost_if_its_run_ends_early(new_session: Callable[[], TrackingSession]) -> None:
    cancelled = Call()
    cancelled.cancel()
    answers: list[Answers] = [{}, {}]
    for session, found, is_cancelled in zip((new_session(), new_session()), answers, (False, True), strict=True):
        session.add([click(0, 1, (30, 48))])
        run(session, FORWARD, found)
        session.add([click(6, 1, (70, 20))])
        if is_cancelled:
            with pytest.raises(ClientDisconnected):
                list(session.run(FORWARD, cancelled))
        assert run(session, FORWARD, found) == [6, 7, 8, 9]
    assert_same(answers[1], answers[0])


@pytest.mark.parametrize("direction", [BACKWARD, BOTH])
def test_a_correction_of_the_first_frame_keeps_the_objects_of_lower_frames(
    new_session: Callable[[], TrackingSession], direction: str
) -> None:
    session, answers = new_session(), dict[tuple[int, int], torch.Tensor]()
    other = click(3, 2, (60, 60))
    session.add([click(7, 1, (30, 48)), other])
    run(session, direction, answers)
    session.add([click(7, 1, (30, 48), (70, 20))])
    run(session, direction, answers)
    assert_same(answers, fresh(new_session(), direction, click(7, 1, (30, 48), (70, 20)), other))


def test_an_earlier_first_prompt_replaces_the_first_prompt_in_the_second_pass(
    new_session: Callable[[], TrackingSession],
) -> None:
    session, answers = new_session(), dict[tuple[int, int], torch.Tensor]()
    first, earlier = click(7, 1, (60, 20)), click(4, 1, (30, 48))
    session.add([first])
    run(session, BOTH, answers)
    session.add([earlier])
    run(session, BOTH, answers)
    expected = fresh(new_session(), BOTH, first, earlier)
    before = [place for place in expected if place[0] < 4]
    assert len(before) == 4
    assert_same({place: answers[place] for place in before}, {place: expected[place] for place in before})


def test_another_object_on_an_earlier_frame_leaves_a_correction_as_it_was(
    new_session: Callable[[], TrackingSession],
) -> None:
    session, answers = new_session(), dict[tuple[int, int], torch.Tensor]()
    session.add([click(0, 1, (30, 48))])
    run(session, FORWARD, answers)
    session.add([click(6, 1, (5, 5), label=0)])
    run(session, FORWARD, answers)
    corrected = dict(answers)
    session.add([click(3, 2, (60, 60))])
    assert run(session, FORWARD, answers) == [3, 4, 5, 6, 7, 8, 9]
    for place, logits in corrected.items():  # two objects in one batch: equal up to rounding
        assert pictures.iou((answers[place] > 0).numpy(), (logits > 0).numpy()) > 0.999
