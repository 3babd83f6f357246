"""The cache of logits of Roboflow's dialect: the logits from which a prompt starts, limits, tenants and speed."""

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
    """Return a prompt of positive clicks."""
    return Prompt(np.array(places, np.float32), np.ones(len(places), np.int64))


def logits(value: float, count: int = 1) -> list[np.ndarray]:
    """Return logits of this value, which take 1,024 bytes per prompt."""
    return [np.full((16, 16), value, np.float32) for _ in range(count)]


def answer(value: float, *prompts: Prompt) -> EarlierAnswer:
    """Return an earlier answer whose logits have this value."""
    return EarlierAnswer(prompts, logits(value, len(prompts)))


def test_a_prompt_starts_from_the_largest_earlier_subset_of_its_clicks() -> None:
    answers = [answer(1, clicks((1, 1))), answer(2, clicks((1, 1), (2, 2))), answer(3, clicks((9, 9)))]
    (prompt,) = with_earlier_logits([clicks((2, 2), (1, 1), (3, 3))], answers)
    assert prompt.mask is not None and prompt.mask[0, 0] == 2
    assert with_earlier_logits([clicks((1, 1))], answers)[0].mask is None  # the same clicks are not a proper subset
    assert with_earlier_logits([clicks((5, 5))], answers)[0].mask is None


def test_each_prompt_starts_from_its_own_earlier_subset() -> None:
    answers = [EarlierAnswer([clicks((1, 1)), clicks((2, 2))], [*logits(1), *logits(2)])]
    grown = with_earlier_logits([clicks((2, 2), (1, 1)), clicks((3, 3)), clicks((1, 1))], answers)
    assert [None if prompt.mask is None else prompt.mask[0, 0] for prompt in grown] == [2, None, 1]


def test_a_prompt_with_another_box_does_not_start_from_earlier_logits() -> None:
    box = np.array([1, 2, 3, 4], np.float32)
    answers = [EarlierAnswer([Prompt(box=box)], logits(1))]
    point = clicks((2, 3))
    grown = [Prompt(point.points, point.labels, box), Prompt(point.points, point.labels, box + 1), point]
    masks = [with_earlier_logits([prompt], answers)[0].mask for prompt in grown]
    assert masks[0] is not None and masks[1] is None and masks[2] is None


def test_the_search_is_quick_for_prompts_in_another_order() -> None:
    """The subset of each prompt comes late in the earlier answer. A comparison of all pairs would take a minute."""
    common = [(float(i), 0.0) for i in range(8)]
    earlier = [clicks(*common, (i, 1)) for i in range(1000)]
    later = [clicks(*common, (999 - i, 1), (-1, 1)) for i in range(1000)]
    answers = [answer(i, *earlier[:-1], clicks((7, 7))) for i in range(2)] * 10
    start = time.thread_time()  # the time of the processor, which other processes do not change
    assert all(prompt.mask is None for prompt in with_earlier_logits(later, answers))
    assert time.thread_time() - start < 10


def test_all_of_a_thousand_prompts_start_from_earlier_logits_if_one_has_grown() -> None:
    earlier = [clicks((i, 1)) for i in range(1000)]
    later = [*earlier[:-1], clicks((999, 1), (5, 5))]
    masks = [prompt.mask for prompt in with_earlier_logits(later, [answer(1, *earlier)])]
    assert all(mask is not None for mask in masks)


def test_keeps_the_latest_answers_for_an_image() -> None:
    cache = LogitsCache(max_answers=3)
    for value in range(5):
        cache.add(KEY, [clicks((value, 0))], logits(value))
    assert [earlier.logits[0][0, 0] for earlier in cache.get(KEY)] == [2, 3, 4]
    cache.add(KEY, [clicks((9, 9))], logits(9), replace_all=True)
    assert len(cache.get(KEY)) == 1
    assert cache.get(CacheKey("another", "sam2", "image")) == ()


def test_the_cache_never_exceeds_its_limit_of_bytes() -> None:
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


def test_a_tenant_cannot_evict_answers_within_the_share_of_another() -> None:
    cache = LogitsCache(max_bytes=10_000)
    cache.add(KEY, [clicks((1, 1))], logits(1))
    for image in range(50):
        cache.add(CacheKey("another", "sam2", str(image)), [clicks((1, 1))], logits(1))
    assert len(cache.get(KEY)) == 1


def test_cached_logits_do_not_keep_the_memory_of_their_batch() -> None:
    cache, batch = LogitsCache(), np.zeros((16, 3, 16, 16), np.float32)
    cache.add(KEY, [clicks((1, 1))], [batch[0, 0]])
    assert cache.get(KEY)[0].logits[0].base is None
