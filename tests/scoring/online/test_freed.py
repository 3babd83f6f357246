"""What a failed request holds is freed with its error, and not only by a later garbage collection."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam_endpoint.model.call import Call
from sam_endpoint.model.errors import BadFrame, BadInput
from sam_endpoint.model.images import ImageRef
from sam_endpoint.model.segmenter import Segmenter
from sam_endpoint.model.video import open_video, prefetched
from sam_endpoint.scoring.online.batching import BatchedSegmenter, Batching
from tests import pictures
from tests.engines import engine_of, score_rows, scorer_of
from tests.videos import disc_frames, write_video


@pytest.fixture
def no_collections() -> Iterator[None]:
    """Turn the garbage collector off during a test."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Failure(Exception):
    """An exception that can have weak references."""


def outlives(fail: Callable[[], object]) -> bool:
    """Return whether the exception of a function outlives the blocks that handle it, here and in other threads."""
    try:
        fail()
    except (BadInput, Failure) as error:
        caught = weakref.ref(error)
    deadline = time.monotonic() + 2
    while caught() and time.monotonic() < deadline:
        time.sleep(0.001)
    return caught() is not None


@pytest.mark.usefixtures("no_collections")
def test_a_broken_image_is_freed(tiny: Segmenter) -> None:
    engine = engine_of(tiny)
    with pytest.raises(BadInput):
        engine.embed(ImageRef.content(bytes(1000)))
    assert not outlives(lambda: engine.embed(ImageRef.content(bytes(1000))))


@pytest.mark.usefixtures("no_collections")
def test_a_broken_image_is_freed_after_all_who_wait_for_it(tiny: Segmenter) -> None:
    engine = engine_of(tiny)

    def embed(number: int) -> bool:
        return outlives(lambda: engine.embed(ImageRef.content(bytes(1000 + number // 2))))

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(embed, range(20))) == [False] * 20


@pytest.mark.usefixtures("no_collections")
def test_an_item_of_a_failed_batch_is_freed(tiny: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    batched = BatchedSegmenter(tiny, Batching())

    def fail(*_: object) -> None:
        raise Failure

    assert not outlives(lambda: batched.run(fail, Call()))
    monkeypatch.setattr(tiny, "embed", fail)
    assert not outlives(lambda: BatchedSegmenter(tiny, Batching()).embed([np.zeros((8, 8, 3), np.uint8)]))


@pytest.mark.parametrize(
    "cells",
    [
        {"image": bytes(1000), "input_points": [[[1, 1]]]},
        {"image": pictures.disc()[0], "input_points": [[[1, "here"]]]},
        {"image": pictures.disc()[0], "input_text": ["a cat"]},
    ],
    ids=["image", "points", "text"],
)
@pytest.mark.usefixtures("no_collections")
def test_a_bad_row_is_freed(tiny: Segmenter, cells: dict[str, Any]) -> None:
    scorer = scorer_of(tiny)
    assert not outlives(lambda: score_rows(scorer, cells))


@pytest.mark.usefixtures("no_collections")
def test_the_frames_of_a_broken_video_are_freed(tmp_path: Path) -> None:
    folder = write_video(tmp_path / "frames", disc_frames(8)[0])
    (folder / "frame2.png").write_bytes(b"broken")
    video = open_video(folder)

    def read_ahead() -> Iterator[object]:
        return prefetched(video.frames(), video.size)

    ways: tuple[Callable[[], Iterator[object]], ...] = (video.frames, read_ahead, partial(video.backward, 7))
    for start in ways:
        with pytest.raises(BadFrame, match="frame 2"):
            list(start())
        assert not outlives(partial(list, start()))
