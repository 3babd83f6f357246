"""Batches of images and prompts, and shortage of memory: the segmenter splits a batch that does not fit."""

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


def limit_batches(
    function: Callable[..., Any], max_items: int, error: BaseException, sizes: list[int]
) -> Callable[..., Any]:
    """Return a function that raises an error for more than `max_items` items.

    Args:
        function: function of a batch.
        max_items: size of the largest batch that does not fail.
        error: error to raise.
        sizes: list that receives the size of each batch.
    """

    def run(first: Any, *arguments: Any) -> Any:
        sizes.append(len(first[0]) if isinstance(first, tuple) else len(first))
        if sizes[-1] > max_items:
            raise error
        return function(first, *arguments)

    return run


@pytest.mark.parametrize("error", SHORTAGES, ids=lambda error: type(error).__name__)
def test_splits_a_batch_of_images_if_memory_is_short(
    tiny: Segmenter, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    sizes: list[int] = []
    segmenter = Segmenter(tiny.family, "tiny", images_per_batch=5)
    expected = tiny.embed(IMAGES)
    monkeypatch.setattr(tiny.family, "embed", limit_batches(tiny.family.embed, 1, error, sizes))
    actual = segmenter.embed(IMAGES)
    assert sizes == [5, 2, 1, 1, 3, 1, 2, 1, 1]
    for embedding, reference in zip(actual, expected, strict=True):
        assert embedding.size == reference.size and torch.allclose(
            embedding.features[0], reference.features[0], atol=1e-4
        )


@pytest.mark.parametrize("error", SHORTAGES, ids=lambda error: type(error).__name__)
def test_splits_a_batch_of_prompts_if_memory_is_short(
    tiny: Segmenter, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    sizes: list[int] = []
    segmenter = Segmenter(tiny.family, "tiny", prompts_per_batch=7)
    embedding = tiny.embed(IMAGES[:1])[0]
    expected = tiny.segment(embedding, PROMPTS)
    monkeypatch.setattr(tiny.family, "decode", limit_batches(tiny.family.decode, 2, error, sizes))
    monkeypatch.setattr(threads, "thread_count", lambda: 1)  # one batch, instead of one batch per thread
    actual = segmenter.segment(embedding, PROMPTS)
    assert sizes == [7, 3, 1, 2, 4, 2, 2]
    for segmentation, reference in zip(actual, expected, strict=True):
        assert np.allclose(segmentation.scores, reference.scores, atol=1e-4)


def test_fails_as_overloaded_if_memory_is_short_for_a_single_image(
    tiny: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = tiny.family.embed
    monkeypatch.setattr(tiny.family, "embed", limit_batches(embed, 0, SHORTAGES[1], []))
    with pytest.raises(Overloaded, match="not enough memory"):
        tiny.embed(IMAGES[:3])
    monkeypatch.setattr(tiny.family, "embed", embed)
    assert len(tiny.embed(IMAGES[:1])) == 1


def test_does_not_split_a_batch_after_another_error(tiny: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    monkeypatch.setattr(tiny.family, "embed", limit_batches(tiny.family.embed, 0, error, sizes))
    with pytest.raises(RuntimeError, match="shapes"):
        Segmenter(tiny.family, "tiny", images_per_batch=4).embed(IMAGES[:4])
    assert sizes == [4]


def test_records_a_shortage_of_memory_and_scores_the_next_rows(
    tiny: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    """Load the default starter checkpoint."""
    return Segmenter.load(str(package.EMBEDDED), "cpu")


def test_prompts_of_a_large_batch_have_the_same_results_alone(trained: Segmenter) -> None:
    """The batch has prompts for every thread, with two numbers of points and both kinds of output."""
    first, second = trained.embed(IMAGES[:2])
    points = [Prompt(np.array([[x, y]], np.float32), np.array([1])) for x in range(4, 44, 8) for y in range(4, 60, 8)]
    boxes = [Prompt(box=np.array([x, x, x + 20, x + 30], np.float32)) for x in range(20)]
    requests = [
        SegmentRequest(first, points),
        SegmentRequest(second, boxes),
        SegmentRequest(second, points + boxes, multimask_output=False),
    ]
    for request, results in zip(requests, trained.segment_many(requests), strict=True):
        for prompt, actual in zip(request.prompts, results, strict=True):
            (alone,) = trained.segment(request.embedding, [prompt], request.multimask_output)
            assert actual.size == alone.size and torch.allclose(actual.logits, alone.logits, atol=1e-3)
            assert actual.scores == pytest.approx(alone.scores, abs=1e-5)


@pytest.mark.parametrize("checkpoint", [package.EMBEDDED, package.EMBEDDED_SAM2], ids=lambda folder: folder.name)
def test_does_not_compute_masks_of_prompts_below_the_minimum_score(checkpoint: Path) -> None:
    segmenter = Segmenter.load(str(checkpoint), "cpu")
    (embedding,) = segmenter.embed([pictures.clutter(90, 120)])
    points = [
        Prompt(np.array([[x, y]], np.float32), np.array([1])) for x in range(5, 120, 16) for y in range(5, 90, 16)
    ]
    all_results = segmenter.segment(embedding, points)
    min_score = float(np.median([result.scores.max() for result in all_results]))
    for expected, actual in zip(all_results, segmenter.segment(embedding, points, min_score=min_score), strict=True):
        assert actual.scores == pytest.approx(expected.scores, abs=1e-6)
        if expected.scores.max() > min_score:
            assert torch.allclose(actual.logits, expected.logits, atol=1e-4)
        else:
            assert not actual.logits.any()
