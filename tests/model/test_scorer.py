"""Caching of embeddings in the scorer: tests count the calls of the image encoder."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sam_endpoint.model import threads
from sam_endpoint.model.call import Call
from sam_endpoint.model.embeddings import EmbeddingCache
from sam_endpoint.model.errors import BadInput, UnknownImage
from sam_endpoint.model.params import Params
from sam_endpoint.model.segmenter import Embedding, Segmenter
from tests import pictures
from tests.engines import score_rows, scorer_of

AZURE_SAMPLE = [
    {"input_points": "[[[280,320]], [[300,350]]]"},
    {"input_points": "[[[280,320], [300,350]]]"},
    {"input_boxes": "[[125,240,375,425]]"},
    {"input_boxes": "[[125,240,375,425]]", "input_points": "[[[280,320]]]"},
    {"input_boxes": "[[125,240,375,425]]", "input_points": "[[[280,320]]]", "input_labels": "[[0]]"},
]


class CountingScorer:
    """A scorer whose calls of the image encoder are counted.

    Args:
        segmenter: model of the scorer.
        monkeypatch: pytest's fixture, which removes the counter after the test.
        cache_bytes: size of the cache of embeddings.

    Attributes:
        encoded: number of images of each call of the encoder.
    """

    def __init__(self, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch, cache_bytes: int = 2**28) -> None:
        self.encoded: list[int] = []
        encode = segmenter.family.embed

        def counting(pixels: Any) -> Any:
            self.encoded.append(len(pixels))
            return encode(pixels)

        monkeypatch.setattr(segmenter.family, "embed", counting)
        self.scorer = scorer_of(segmenter, cache_bytes)

    def score(self, *rows: dict[str, Any], **params: Any) -> list[dict[str, Any]]:
        """Score rows, each a dict from column names to cells."""
        return score_rows(self.scorer, *rows, **params)


@pytest.fixture
def counted(tiny: Segmenter, monkeypatch: pytest.MonkeyPatch) -> CountingScorer:
    """Return a counting scorer of the starter model."""
    return CountingScorer(tiny, monkeypatch)


def test_five_rows_of_an_image_encode_it_once(counted: CountingScorer, photograph: bytes) -> None:
    import base64

    image = base64.encodebytes(photograph).decode()
    answers = counted.score(*({"image": image, **row} for row in AZURE_SAMPLE))
    assert counted.encoded == [1]
    assert [len(answer["predictions"]) for answer in answers] == [2, 1, 1, 1, 1]


def test_segmenting_everything_uses_the_cached_embedding_and_caches_those_of_crops(
    counted: CountingScorer, disc: tuple[bytes, np.ndarray]
) -> None:
    rows: list[dict[str, object]] = [
        {"image": disc[0]},
        {"image": disc[0], "input_boxes": [[10, 10, 60, 60]]},
        {"image": disc[0]},
    ]
    counted.score(*rows, points_per_side=3)
    assert counted.encoded == [1]
    for _ in range(2):
        counted.score(*rows, points_per_side=3, crop_n_layers=1)
        assert counted.encoded == [1] * 5


def test_an_image_in_several_rows_and_forms_is_encoded_once(
    counted: CountingScorer, disc: tuple[bytes, np.ndarray]
) -> None:
    data, second_image = disc[0], pictures.disc(99, 99)[0]
    box = [[10, 10, 60, 60]]
    rows = [
        {"image": image, "input_boxes": box}
        for image in (data, second_image, pictures.to_text(data), data, second_image)
    ]
    answers = pictures.tolerant(counted.score(*rows))
    assert counted.encoded == [1, 1]
    assert answers[0] == answers[2] == answers[3] and answers[1] == answers[4] != answers[0]
    counted.score(*rows)
    assert counted.encoded == [1, 1]


def test_a_cached_image_is_not_decoded_again(
    counted: CountingScorer, disc: tuple[bytes, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"image": disc[0], "input_boxes": [[10, 10, 60, 60]]}
    first = counted.score(row)
    monkeypatch.setattr("sam_endpoint.model.images.reader.decode", lambda *_: pytest.fail("decoded again"))
    assert counted.score(row) == first


def test_threads_that_score_the_same_new_image_encode_it_once(
    counted: CountingScorer, disc: tuple[bytes, np.ndarray]
) -> None:
    together = threading.Barrier(6)

    def score(_: int) -> list[dict[str, Any]]:
        together.wait()
        return counted.score({"image": disc[0], "input_boxes": [[68, 38, 153, 123]]})

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(score, range(6)))
    assert counted.encoded == [1]
    assert all(answer == answers[0] for answer in answers)


def test_threads_with_different_images_get_the_masks_of_their_images(tiny: Segmenter) -> None:
    scorer, empty = scorer_of(tiny), scorer_of(tiny)
    images = [pictures.disc(160 + 10 * i, 150)[0] for i in range(6)]

    def score(data: bytes) -> Any:
        row = {"image": data, "input_boxes": "[[68, 38, 153, 123]]"}
        return score_rows(scorer, row, mask_encoding="rle")[0]["predictions"]

    alone = [score(data) for data in images]
    scorer = empty  # a scorer whose cache does not contain the images yet
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(score, images * 3)) == alone * 3


def test_decodes_no_more_images_than_can_be_encoded_soon(tiny: Segmenter) -> None:
    """More clients send different images than can be encoded at the same time."""
    held, max_held, lock = 0, 0, threading.Lock()

    @contextmanager
    def watch(stage: str) -> Iterator[None]:
        nonlocal held, max_held
        with lock:
            held += stage == "decode"
            max_held = max(max_held, held)
        try:
            yield
            time.sleep(0.01 * (stage == "encode"))
        finally:
            with lock:
                held -= stage == "encode"

    scorer, count = scorer_of(tiny), 4 * (1 + threads.thread_count())
    images = [pictures.disc(160 + 10 * i, 150)[0] for i in range(count)]

    def score(data: bytes) -> Any:
        rows = scorer.read(pd.DataFrame([{"image": data, "input_boxes": "[[68, 38, 153, 123]]"}]), Params())
        return scorer.score(rows, Params(), Call(watch))

    with ThreadPoolExecutor(count) as pool:
        assert all(answer[0]["error"] is None for answer in pool.map(score, images))
    assert held == 0 and 0 < max_held <= 1 + threads.thread_count()


def test_the_cache_evicts_the_oldest_embedding_first(tiny: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    embedding_bytes = tiny.embed([pictures.clutter(50, 50)])[0].nbytes
    counted = CountingScorer(tiny, monkeypatch, cache_bytes=2 * embedding_bytes)
    images = [pictures.disc(100 + i, 90)[0] for i in range(3)]
    rows = [{"image": image, "image_id": f"{i}", "input_boxes": [[1, 1, 50, 50]]} for i, image in enumerate(images)]
    for row in rows:
        counted.score(row)
    assert counted.scorer.engine.cache.nbytes == 2 * embedding_bytes
    counted.score({"image_id": "2", "input_boxes": [[1, 1, 50, 50]]})
    with pytest.raises(UnknownImage):
        counted.score({"image_id": "0", "input_boxes": [[1, 1, 50, 50]]})


def test_a_failed_encoding_is_not_cached(disc: tuple[bytes, np.ndarray]) -> None:
    cache = EmbeddingCache(2**20)
    with pytest.raises(MemoryError):
        cache.get("key", lambda: (_ for _ in ()).throw(MemoryError()))
    import torch

    embedding = Embedding((torch.zeros(1, 2, 3, 3),), (9, 9), "test")
    assert cache.get("key", lambda: embedding) is embedding and cache.find("key") is embedding


def test_a_broken_image_fails_only_its_own_rows(counted: CountingScorer, disc: tuple[bytes, np.ndarray]) -> None:
    box = [[10, 10, 60, 60]]
    rows: list[dict[str, object]] = [
        {"image": disc[0], "input_boxes": box},
        {"image": b"broken", "image_id": "b", "input_boxes": box},
        {"image_id": "b", "input_boxes": box},
        {"image": disc[0], "input_boxes": box},
    ]
    answers = counted.score(*rows, on_error="record")
    assert [answer["error"] is None for answer in answers] == [True, False, False, True]
    with pytest.raises(BadInput, match="row 1, column 'image'"):
        counted.score(*rows)


def test_the_last_image_of_an_id_counts_in_later_requests(counted: CountingScorer) -> None:
    box = [[1, 1, 50, 50]]
    first, second = (pictures.disc(width, 90)[0] for width in (100, 110))
    counted.score(
        {"image": second, "input_boxes": box},
        {"image": first, "image_id": "x", "input_boxes": box},
        {"image": second, "image_id": "x", "input_boxes": box},
    )
    (answer,) = counted.score({"image_id": "x", "input_boxes": box}, mask_encoding="rle")
    assert answer["predictions"][0]["mask_per_prediction"][0]["size"] == [90, 110]


def test_an_embedding_does_not_change_when_another_image_is_encoded(tiny: Segmenter) -> None:
    from sam_endpoint.model.prompts import parse_prompts

    embedding = tiny.embed([pictures.clutter(60, 90)])[0]
    prompts = parse_prompts([[30, 30]], None, None, None)
    first = tiny.segment(embedding, prompts)[0]
    tiny.embed([pictures.clutter(70, 70, seed=4)])
    second = tiny.segment(embedding.to("cpu"), prompts)[0]
    assert np.array_equal(tiny.masks(first), tiny.masks(second)) and embedding.size == (60, 90)
