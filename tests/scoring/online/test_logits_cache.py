"""EarlierAnswer cache are kept by their bytes, each place's latest, and found by the largest set a prompt grew from."""

from __future__ import annotations

import numpy as np

from sam_endpoint.model.prompts import Prompt
from sam_endpoint.scoring.online.dialects.roboflow.logits_cache import EarlierAnswer, LogitsCache, with_earlier_logits


def clicks(*places: tuple[float, float]) -> Prompt:
    return Prompt(np.array(places, np.float32), np.ones(len(places), np.int64))


def answer(value: float, *prompts: Prompt) -> EarlierAnswer:
    return EarlierAnswer(list(prompts), [np.full((16, 16), value, np.float32) for _ in prompts])  # 1024 bytes each


def test_the_largest_that_the_prompt_grew_from() -> None:
    kept = [answer(1, clicks((1, 1))), answer(2, clicks((1, 1), (2, 2))), answer(3, clicks((9, 9)))]
    (found,) = with_earlier_logits([clicks((2, 2), (1, 1), (3, 3))], kept)
    assert found.mask is not None and found.mask[0, 0] == 2
    assert with_earlier_logits([clicks((1, 1))], kept)[0].mask is None  # the same is not grown
    assert with_earlier_logits([clicks((5, 5))], kept)[0].mask is None


def test_a_places_latest_are_kept() -> None:
    cache = LogitsCache(max_answers=3)
    for value in range(5):
        cache.add(("key", "sam2", "image"), answer(value, clicks((value, 0))))
    assert [one.logits[0][0, 0] for one in cache.get(("key", "sam2", "image"))] == [2, 3, 4]
    cache.add(("key", "sam2", "image"), answer(9, clicks((9, 9))), replace_all=True)
    assert len(cache.get(("key", "sam2", "image"))) == 1
    assert cache.get(("another", "sam2", "image")) == []


def test_bytes_are_bounded_whatever_is_sent() -> None:
    cache = LogitsCache(max_bytes=10_000, max_answers=100)
    for image in range(6):
        for value in range(4):
            cache.add(("key", "sam2", str(image)), answer(value, clicks((value, 0))))
    held = [len(cache.get(("key", "sam2", str(image)))) for image in range(6)]
    assert held[-1] == 4 and held[0] == 0 and sum(held) * 1024 <= 10_000
    cache.add(("key", "sam2", "large"), answer(1, *[clicks((1, 1))] * 11))
    assert cache.get(("key", "sam2", "large")) == []
    for value in range(12):  # one place alone is bounded too
        cache.add(("key", "sam2", "one"), answer(value, clicks((value, 0))))
    assert [one.logits[0][0, 0] for one in cache.get(("key", "sam2", "one"))] == list(range(3, 12))
