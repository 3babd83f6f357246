"""The cache of earlier answers is limited in bytes, fair between tenants, and quick whatever a request asks."""

from __future__ import annotations

import time

import numpy as np

from sam_endpoint.model.prompts import Prompt
from sam_endpoint.scoring.online.dialects.roboflow.logits_cache import (
    MAX_CLICKS,
    CacheKey,
    EarlierAnswer,
    LogitsCache,
    with_earlier_logits,
)

KEY = CacheKey("tenant", "sam2", "image")


def clicks(*places: tuple[float, float]) -> Prompt:
    return Prompt(np.array(places, np.float32), np.ones(len(places), np.int64))


def logits(value: float, count: int = 1) -> list[np.ndarray]:
    return [np.full((16, 16), value, np.float32) for _ in range(count)]  # 1024 bytes each


def answer(value: float, *prompts: Prompt) -> EarlierAnswer:
    return EarlierAnswer(prompts, logits(value, len(prompts)))


def test_the_largest_that_the_prompt_grew_from() -> None:
    kept = [answer(1, clicks((1, 1))), answer(2, clicks((1, 1), (2, 2))), answer(3, clicks((9, 9)))]
    (prompt,) = with_earlier_logits([clicks((2, 2), (1, 1), (3, 3))], kept)
    assert prompt.mask is not None and prompt.mask[0, 0] == 2
    assert with_earlier_logits([clicks((1, 1))], kept)[0].mask is None  # the same is not grown
    assert with_earlier_logits([clicks((5, 5))], kept)[0].mask is None


def test_each_prompt_gets_the_logits_of_its_own_earlier_form() -> None:
    kept = [EarlierAnswer([clicks((1, 1)), clicks((2, 2))], [*logits(1), *logits(2)])]
    grown = with_earlier_logits([clicks((2, 2), (1, 1)), clicks((3, 3)), clicks((1, 1))], kept)
    assert [None if prompt.mask is None else prompt.mask[0, 0] for prompt in grown] == [2, None, 1]


def test_boxes_must_be_the_same() -> None:
    box = np.array([1, 2, 3, 4], np.float32)
    kept = [EarlierAnswer([Prompt(box=box)], logits(1))]
    point = clicks((2, 3))
    grown = [Prompt(point.points, point.labels, box), Prompt(point.points, point.labels, box + 1), point]
    masks = [with_earlier_logits([prompt], kept)[0].mask for prompt in grown]
    assert masks[0] is not None and masks[1] is None and masks[2] is None


def test_the_search_is_quick_for_prompts_in_another_order() -> None:
    """Each earlier prompt is part of a later one that comes late: comparing all pairs takes a minute."""
    common = [(float(i), 0.0) for i in range(8)]
    earlier = [clicks(*common, (i, 1)) for i in range(1000)]
    later = [clicks(*common, (999 - i, 1), (-1, 1)) for i in range(1000)]
    kept = [answer(i, *earlier[:-1], clicks((7, 7))) for i in range(2)] * 10
    started = time.perf_counter()
    assert all(prompt.mask is None for prompt in with_earlier_logits(later, kept))
    assert time.perf_counter() - started < 1


def test_a_thousand_prompts_of_which_one_has_grown() -> None:
    earlier = [clicks((i, 1)) for i in range(1000)]
    later = [*earlier[:-1], clicks((999, 1), (5, 5))]
    masks = [prompt.mask for prompt in with_earlier_logits(later, [answer(1, *earlier)])]
    assert all(mask is not None for mask in masks)


def test_an_images_latest_are_kept() -> None:
    cache = LogitsCache(max_answers=3)
    for value in range(5):
        cache.add(KEY, [clicks((value, 0))], logits(value))
    assert [one.logits[0][0, 0] for one in cache.get(KEY)] == [2, 3, 4]
    cache.add(KEY, [clicks((9, 9))], logits(9), replace_all=True)
    assert len(cache.get(KEY)) == 1
    assert cache.get(CacheKey("another", "sam2", "image")) == ()


def test_bytes_are_bounded_whatever_is_sent() -> None:
    cache = LogitsCache(max_bytes=10_000, max_answers=100)
    for image in range(6):
        for value in range(4):
            cache.add(CacheKey("tenant", "sam2", str(image)), [clicks((value, 0))], logits(value))
    held = [len(cache.get(CacheKey("tenant", "sam2", str(image)))) for image in range(6)]
    assert held[-1] == 4 and held[0] == 0 and cache.nbytes <= 10_000
    large = CacheKey("tenant", "sam2", "large")
    cache.add(large, [clicks((1, 1))] * 11, logits(1, 11))
    cache.add(large, [clicks(*[(i, 0) for i in range(MAX_CLICKS + 1)])], logits(1))
    assert cache.get(large) == ()
    for value in range(12):  # the answers of one image are limited too
        cache.add(KEY, [clicks((value, 0))], logits(value))
    assert [one.logits[0][0, 0] for one in cache.get(KEY)] == list(range(6, 12)) and cache.nbytes <= 10_000


def test_one_tenant_cannot_evict_what_others_keep_within_their_shares() -> None:
    cache = LogitsCache(max_bytes=10_000)
    cache.add(KEY, [clicks((1, 1))], logits(1))
    for image in range(50):
        cache.add(CacheKey("another", "sam2", str(image)), [clicks((1, 1))], logits(1))
    assert len(cache.get(KEY)) == 1


def test_logits_do_not_hold_the_batch_that_they_were_decoded_in() -> None:
    cache, batch = LogitsCache(), np.zeros((16, 3, 16, 16), np.float32)
    cache.add(KEY, [clicks((1, 1))], [batch[0, 0]])
    assert cache.get(KEY)[0].logits[0].base is None
