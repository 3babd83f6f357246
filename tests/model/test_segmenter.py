"""Where memory is short, a batch is split; where it is too short for one, that one is told to come again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sam_endpoint.model import threads
from sam_endpoint.model.errors import OUT_OF_MEMORY, Overloaded
from sam_endpoint.model.mlflow import package
from sam_endpoint.model.prompts import Prompt
from sam_endpoint.model.segmenter import Segmenter, SegmentRequest
from tests import pictures
from tests.engines import score_rows, scorer_of

HOST = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1610612736 bytes."
SHORTAGES = [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError(HOST), MemoryError()]
IMAGES = [pictures.clutter(60, 40 + 10 * i, seed=i) for i in range(5)]
PROMPTS = [Prompt(np.array([[5.0 + i, 9.0]], np.float32), np.array([1])) for i in range(7)]


def short(true: Callable[..., Any], room: int, error: BaseException, tried: list[int]) -> Callable[..., Any]:
    """The function, failing for more than `room` at a time."""

    def run(first: Any, *others: Any) -> Any:
        tried.append(len(first[0]) if isinstance(first, tuple) else len(first))
        if tried[-1] > room:
            raise error
        return true(first, *others)

    return run


@pytest.mark.parametrize("error", SHORTAGES, ids=lambda error: type(error).__name__)
def test_a_batch_of_images_is_split(tiny: Segmenter, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    tried: list[int] = []
    segmenter = Segmenter(tiny.family, "tiny", images_per_batch=5)
    expected = tiny.embed(IMAGES)
    monkeypatch.setattr(tiny.family, "embed", short(tiny.family.embed, 1, error, tried))
    found = segmenter.embed(IMAGES)
    assert tried == [5, 2, 1, 1, 3, 1, 2, 1, 1]
    for one, other in zip(found, expected, strict=True):
        assert one.size == other.size and torch.allclose(one.features[0], other.features[0], atol=1e-4)


@pytest.mark.parametrize("error", SHORTAGES, ids=lambda error: type(error).__name__)
def test_a_batch_of_prompts_is_split(tiny: Segmenter, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    tried: list[int] = []
    segmenter = Segmenter(tiny.family, "tiny", prompts_per_batch=7)
    embedding = tiny.embed(IMAGES[:1])[0]
    expected = tiny.segment(embedding, PROMPTS)
    monkeypatch.setattr(tiny.family, "decode", short(tiny.family.decode, 2, error, tried))
    monkeypatch.setattr(threads, "thread_count", lambda: 1)  # one batch, in place of one a thread
    found = segmenter.segment(embedding, PROMPTS)
    assert tried == [7, 3, 1, 2, 4, 2, 2]
    for one, other in zip(found, expected, strict=True):
        assert np.allclose(one.scores, other.scores, atol=1e-4)


def test_where_memory_is_too_short_for_one(tiny: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    embed = tiny.family.embed
    monkeypatch.setattr(tiny.family, "embed", short(embed, 0, SHORTAGES[1], []))
    with pytest.raises(Overloaded, match="not enough memory"):
        tiny.embed(IMAGES[:3])
    monkeypatch.setattr(tiny.family, "embed", embed)
    assert len(tiny.embed(IMAGES[:1])) == 1


def test_another_error_is_not_taken_for_it(tiny: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    monkeypatch.setattr(tiny.family, "embed", short(tiny.family.embed, 0, error, tried))
    with pytest.raises(RuntimeError, match="shapes"):
        Segmenter(tiny.family, "tiny", images_per_batch=4).embed(IMAGES[:4])
    assert tried == [4]


def test_a_job_records_the_row_and_goes_on(tiny: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, embed = scorer_of(tiny), tiny.family.embed
    texts = [pictures.to_bytes(Image.fromarray(image)) for image in IMAGES[:3]]
    calls: list[int] = []

    def second_fails(pixels: torch.Tensor) -> Any:
        calls.append(len(pixels))
        if len(calls) == 2:
            raise SHORTAGES[0]
        return embed(pixels)

    monkeypatch.setattr(tiny.family, "embed", second_fails)
    rows = [{"image": text, "input_boxes": [[2, 2, 30, 30]]} for text in texts]
    answers = score_rows(scorer, *rows, on_error="record")
    assert [answer["error"] for answer in answers] == [None, OUT_OF_MEMORY, None]
    assert [len(answer["predictions"]) for answer in answers] == [1, 0, 1]


@pytest.fixture(scope="module")
def trained() -> Segmenter:
    return Segmenter.load(str(package.EMBEDDED), "cpu")


def test_prompts_side_by_side_are_answered_as_alone(trained: Segmenter) -> None:
    """So many that every thread has some, of two layouts and both kinds of answer."""
    first, second = trained.embed(IMAGES[:2])
    points = [Prompt(np.array([[x, y]], np.float32), np.array([1])) for x in range(4, 44, 8) for y in range(4, 60, 8)]
    boxes = [Prompt(box=np.array([x, x, x + 20, x + 30], np.float32)) for x in range(20)]
    asks = [
        SegmentRequest(first, points),
        SegmentRequest(second, boxes),
        SegmentRequest(second, points + boxes, multimask_output=False),
    ]
    for ask, found in zip(asks, trained.segment_many(asks), strict=True):
        for prompt, one in zip(ask.prompts, found, strict=True):
            (alone,) = trained.segment(ask.embedding, [prompt], ask.multimask_output)
            assert one.size == alone.size and torch.allclose(one.logits, alone.logits, atol=1e-3)
            assert one.scores == pytest.approx(alone.scores, abs=1e-5)


@pytest.mark.parametrize("checkpoint", [package.EMBEDDED, package.EMBEDDED_SAM2], ids=lambda folder: folder.name)
def test_masks_predicted_to_be_bad_are_not_made(checkpoint: Path) -> None:
    segmenter = Segmenter.load(str(checkpoint), "cpu")
    (embedding,) = segmenter.embed([pictures.clutter(90, 120)])
    points = [
        Prompt(np.array([[x, y]], np.float32), np.array([1])) for x in range(5, 120, 16) for y in range(5, 90, 16)
    ]
    all_made = segmenter.segment(embedding, points)
    least = float(np.median([one.scores.max() for one in all_made]))
    for expected, found in zip(all_made, segmenter.segment(embedding, points, min_score=least), strict=True):
        assert found.scores == pytest.approx(expected.scores, abs=1e-6)
        if expected.scores.max() > least:
            assert torch.allclose(found.logits, expected.logits, atol=1e-4)
        else:
            assert not found.logits.any()
