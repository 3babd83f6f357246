"""Masks and object scores of tracking, compared with transformers' models and sessions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch

from sam_endpoint.model.segmenter import Segmenter
from sam_endpoint.model.tracking import TrackedFrame, TrackPrompt, TrackState
from tests import checkpoints
from tests.model.tracking.reference import CLASSES, ReferenceFrame, ReferenceTracker

SIZE = (180, 240)
COUNT = 18  # frames; more than the model has object pointers


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """Return frames of a moving pattern, (COUNT, *SIZE, 3) uint8."""
    rng = np.random.default_rng(0)
    pattern = np.kron(rng.integers(0, 256, (12, 20, 3)), np.ones((20, 20, 1))).astype(np.uint8)
    return np.stack([np.roll(pattern, (2 * i, 4 * i), (0, 1))[: SIZE[0], : SIZE[1]] for i in range(COUNT)])


class Subject:
    """A checkpoint, loaded by this project and by transformers."""

    def __init__(self, name: str, folder: Any) -> None:
        self.name = name
        self.segmenter = Segmenter.load(str(folder), "cpu")
        model_class, self.session_class = CLASSES[name]
        self.model = model_class.from_pretrained(folder).eval()

    def reference(self, frames: np.ndarray | None = None) -> ReferenceTracker:
        """Return transformers' tracker with a new session."""
        return ReferenceTracker(self.model, self.session_class, self.segmenter.family, SIZE, frames)


@pytest.fixture(scope="module", params=CLASSES)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """Return each family's small checkpoint."""
    return Subject(request.param, checkpoints.SAVERS[request.param](tmp_path_factory.mktemp(request.param)))


def click(frame: int, number: int, x: float, y: float, label: int = 1) -> TrackPrompt:
    """Return a prompt of one point."""
    return TrackPrompt(frame, number, np.array([[x, y]], np.float32), np.array([label], np.int32))


def box(frame: int, number: int, *corners: float) -> TrackPrompt:
    """Return a prompt of a box."""
    return TrackPrompt(frame, number, box=np.array(corners, np.float32))


def disc(frame: int, number: int) -> TrackPrompt:
    """Return a prompt of a mask."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return TrackPrompt(frame, number, mask=(x - 120) ** 2 + (y - 80) ** 2 < 1600)


def assert_same(segmenter: Segmenter, actual: TrackedFrame, expected: ReferenceFrame) -> None:
    """Compare the masks and scores of a frame."""
    assert actual.frame == expected.frame
    assert [tracked.object for tracked in actual.objects] == sorted(expected.logits)
    for tracked in actual.objects:
        logits = torch.stack([tracked.logits, expected.logits[tracked.object].reshape(tracked.logits.shape)])
        ours, theirs = (segmenter.family.upscale(logits, SIZE) > 0).numpy()
        union = (ours | theirs).sum()
        assert union == 0 or (ours & theirs).sum() / union >= 0.999, (actual.frame, tracked.object)
        assert tracked.score == pytest.approx(expected.scores[tracked.object], abs=1e-3)


def numbered(frames: np.ndarray, numbers: Iterable[int]) -> Iterable[tuple[int, np.ndarray]]:
    """Return frames with their numbers."""
    return ((number, frames[number]) for number in numbers)


def stream(subject: Subject, frames: np.ndarray, prompts: list[TrackPrompt], numbers: Iterable[int]) -> list[Any]:
    """Track frames as a stream with transformers."""
    reference = subject.reference()
    expected = []
    for number in numbers:
        if present := [prompt for prompt in prompts if prompt.frame == number]:
            reference.add(present)
        expected.append(reference.stream(number, frames[number]))
    return expected


PROMPTS = {
    "a point": [click(0, 1, 120, 80)],
    "points": [TrackPrompt(0, 1, np.array([[120, 80], [40, 40]], np.float32), np.array([1, 0], np.int32))],
    "a box": [box(0, 1, 60, 40, 180, 140)],
    "a mask": [disc(0, 1)],
    "a later point on the same object": [click(0, 1, 120, 80), click(6, 1, 140, 100)],
    "three objects": [click(0, 1, 120, 80), box(0, 2, 20, 20, 100, 100), disc(0, 5)],
    "later objects": [click(0, 3, 120, 80), box(4, 2, 20, 20, 100, 100), disc(6, 7), click(9, 3, 60, 60)],
}


@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=PROMPTS)
def test_streamed_frames(subject: Subject, frames: np.ndarray, prompts: list[TrackPrompt]) -> None:
    if subject.name == "edgetam_video" and len({prompt.object for prompt in prompts}) > 1:
        # transformers' session of EdgeTAM fails if one object has a mask and another object has points.
        prompts = [box(it.frame, it.object, 80, 40, 160, 120) if it.mask is not None else it for it in prompts]
    expected = stream(subject, frames, prompts, range(COUNT))
    actual = list(subject.segmenter.track(enumerate(frames), prompts))
    assert len(actual) == COUNT
    for one, other in zip(actual, expected, strict=True):
        assert_same(subject.segmenter, one, other)


def test_masks_are_not_trivial_and_depend_on_memory(subject: Subject, frames: np.ndarray) -> None:
    """The other tests of this file would prove little if all masks were empty or alike."""
    (*_, last) = subject.segmenter.track(enumerate(frames), [click(0, 1, 120, 80), click(0, 2, 40, 80)])
    first, second = (tracked.logits for tracked in last.objects)
    assert 0.03 < (first > 0).float().mean() < 0.9
    assert (first - second).abs().max() > 0.05


@pytest.mark.parametrize("length", [8, COUNT])
def test_a_whole_video_whose_prompted_frames_come_first(subject: Subject, frames: np.ndarray, length: int) -> None:
    """Transformers' users prompt frames of a whole video before they track it. Earlier frames then see later ones."""
    prompts = [click(2, 1, 120, 80), click(7, 1, 100, 100)]
    reference = subject.reference(frames[:length])
    for prompt in prompts:
        reference.add([prompt])
        reference.step(prompt.frame)
    state = TrackState(length)
    for prompt in prompts:
        list(subject.segmenter.track(numbered(frames, [prompt.frame]), [prompt], state))
    actual = subject.segmenter.track(numbered(frames, range(2, length)), [], state, backward=False)
    for one, other in zip(actual, reference.propagate(2), strict=True):
        assert_same(subject.segmenter, one, other)


def test_backward_after_forward(subject: Subject, frames: np.ndarray) -> None:
    """A session that has tracked forward from a frame in the middle then tracks backward from the same frame."""
    prompts = [click(8, 1, 120, 80), click(8, 2, 60, 100)]
    reference, state = subject.reference(frames), TrackState(COUNT)
    reference.add(prompts)
    expected = [reference.step(8), *list(reference.propagate(8))[1:], *reference.propagate(8, reverse=True)]
    forward = subject.segmenter.track(numbered(frames, range(8, COUNT)), prompts, state)
    actual = list(forward)
    actual += subject.segmenter.track(numbered(frames, range(8, -1, -1)), [], state)
    for one, other in zip(actual, expected, strict=True):
        assert_same(subject.segmenter, one, other)


def test_backward_from_the_last_frame(subject: Subject, frames: np.ndarray) -> None:
    reference, prompts = subject.reference(frames), [click(COUNT - 1, 1, 120, 80)]
    reference.add(prompts)
    expected = reference.propagate(COUNT - 1, reverse=True)
    actual = subject.segmenter.track(numbered(frames, range(COUNT - 1, -1, -1)), prompts)
    for one, other in zip(actual, expected, strict=True):
        assert_same(subject.segmenter, one, other)


def test_a_correction_of_the_frame_tracked_last(subject: Subject, frames: np.ndarray) -> None:
    """The object keeps its memories, so the corrected mask depends on them and on the new points."""
    prompts, correction = [click(0, 1, 120, 80), click(0, 2, 40, 80)], click(9, 1, 140, 120)
    reference, state = subject.reference(), TrackState()
    reference.add(prompts)
    expected = [reference.stream(number, frames[number]) for number in range(10)]
    reference.add([correction])
    expected += [reference.stream(number, frames[number]) for number in range(9, 14)]
    actual = list(subject.segmenter.track(numbered(frames, range(10)), prompts, state))
    actual += subject.segmenter.track(numbered(frames, range(9, 14)), [correction], state, backward=False)
    for one, other in zip(actual, expected, strict=True):
        assert_same(subject.segmenter, one, other)


def test_a_model_that_limits_the_number_of_prompted_frames(
    frames: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = checkpoints.save_sam2_video(tmp_path_factory.mktemp("limited"), max_cond_frame_num=2)
    limited = Subject("sam2_video", folder)
    prompts = [click(frame, 1, 80 + 8 * frame, 60) for frame in (0, 3, 5, 9)]
    expected = stream(limited, frames, prompts, range(COUNT))
    for one, other in zip(limited.segmenter.track(enumerate(frames), prompts), expected, strict=True):
        assert_same(limited.segmenter, one, other)
