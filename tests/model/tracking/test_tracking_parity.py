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

SIZE = (90, 120)
COUNT = 20  # frames; more than the model has object pointers


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """Return frames of a moving pattern, (COUNT, *SIZE, 3) uint8."""
    rng = np.random.default_rng(0)
    pattern = np.kron(rng.integers(0, 256, (12, 20, 3)), np.ones((10, 10, 1))).astype(np.uint8)
    return np.stack([np.roll(pattern, (i, 2 * i), (0, 1))[: SIZE[0], : SIZE[1]] for i in range(COUNT)])


class Subject:
    """A checkpoint, loaded by this project and by transformers."""

    def __init__(self, name: str, folder: Any) -> None:
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
    return TrackPrompt(frame, number, mask=(x - 60) ** 2 + (y - 40) ** 2 < 400)


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
    "a point": [click(0, 1, 60, 40)],
    "points": [TrackPrompt(0, 1, np.array([[60, 40], [20, 20]], np.float32), np.array([1, 0], np.int32))],
    "a box": [box(0, 1, 30, 20, 90, 70)],
    "a mask": [disc(0, 1)],
    "a later point on the same object": [click(0, 1, 60, 40), click(6, 1, 70, 50)],
    "three objects": [click(0, 1, 60, 40), box(0, 2, 10, 10, 50, 50), disc(0, 5)],
    "later objects": [click(0, 3, 60, 40), box(4, 2, 10, 10, 50, 50), disc(6, 7), click(9, 3, 30, 30)],
}


@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=PROMPTS)
def test_streamed_frames(subject: Subject, frames: np.ndarray, prompts: list[TrackPrompt]) -> None:
    expected = stream(subject, frames, prompts, range(COUNT))
    actual = subject.segmenter.track(enumerate(frames), prompts)
    visible = set()
    for one, other in zip(actual, expected, strict=True):
        assert_same(subject.segmenter, one, other)
        visible.update(tracked.score > 0.5 for tracked in one.objects)
