"""The cache of logits of Roboflow's dialect: which logits a prompt starts from, and which ones the cache evicts."""

from __future__ import annotations

import numpy as np

from sam_endpoint.model.prompts import Prompt
from sam_endpoint.scoring.online.dialects.roboflow.logits_cache import EarlierAnswer, LogitsCache, with_earlier_logits


def clicks(*places: tuple[float, float]) -> Prompt:
    """Return a prompt of positive clicks."""
    return Prompt(np.array(places, np.float32), np.ones(len(places), np.int64))


def answer(value: float, *prompts: Prompt) -> EarlierAnswer:
    """Return an earlier answer whose logits have this value. The logits of each prompt take 1,024 bytes."""
    return EarlierAnswer(list(prompts), [np.full((16, 16), value, np.float32) for _ in prompts])


def test_a_prompt_starts_from_the_largest_earlier_subset_of_its_clicks() -> None:
    answers = [answer(1, clicks((1, 1))), answer(2, clicks((1, 1), (2, 2))), answer(3, clicks((9, 9)))]
    (prompt,) = with_earlier_logits([clicks((2, 2), (1, 1), (3, 3))], answers)
    assert prompt.mask is not None and prompt.mask[0, 0] == 2
    assert with_earlier_logits([clicks((1, 1))], answers)[0].mask is None  # the same clicks are not a proper subset
    assert with_earlier_logits([clicks((5, 5))], answers)[0].mask is None


def test_keeps_the_latest_answers_for_an_image() -> None:
    cache = LogitsCache(max_answers=3)
    for value in range(5):
        cache.add(("key", "sam2", "image"), answer(value, clicks((value, 0))))
    assert [earlier.logits[0][0, 0] for earlier in cache.get(("key", "sam2", "image"))] == [2, 3, 4]
    cache.add(("key", "sam2", "image"), answer(9, clicks((9, 9))), replace_all=True)
    assert len(cache.get(("key", "sam2", "image"))) == 1
    assert cache.get(("another", "sam2", "image")) == []


def test_the_cache_never_exceeds_its_limit_of_bytes() -> None:
    cache = LogitsCache(max_bytes=10_000, max_answers=100)
    for image in range(6):
        for value in range(4):
            cache.add(("key", "sam2", str(image)), answer(value, clicks((value, 0))))
    counts = [len(cache.get(("key", "sam2", str(image)))) for image in range(6)]
    assert counts[-1] == 4 and counts[0] == 0 and sum(counts) * 1024 <= 10_000
    cache.add(("key", "sam2", "large"), answer(1, *[clicks((1, 1))] * 11))
    assert cache.get(("key", "sam2", "large")) == []
    for value in range(12):  # the limit also applies to the answers for one image
        cache.add(("key", "sam2", "one"), answer(value, clicks((value, 0))))
    assert [earlier.logits[0][0, 0] for earlier in cache.get(("key", "sam2", "one"))] == list(range(3, 12))
