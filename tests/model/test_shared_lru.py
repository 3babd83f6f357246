"""The least-recently-used cache that all tenants share."""

from __future__ import annotations

import random

from sam_endpoint.model.shared_lru import SharedLRU


def cached_keys(cache: SharedLRU[str], owner: str, keys: str) -> str:
    """Return the keys whose values the cache contains for an owner."""
    return "".join(key for key in keys if cache.get(owner, key) is not None)


def test_a_single_owner_can_fill_the_cache_and_loses_its_oldest_value() -> None:
    cache: SharedLRU[str] = SharedLRU(4, len)
    for key in "abcd":
        cache.put("first", key, "1")
    assert cache.get("first", "a") == "1"
    cache.put("first", "e", "2")
    assert cached_keys(cache, "first", "abcde") == "acde" and cache.size == 4


def test_an_owner_cannot_evict_values_within_the_share_of_another() -> None:
    cache: SharedLRU[str] = SharedLRU(4, len)
    cache.put("quiet", "a", "1")
    cache.put("quiet", "b", "1")
    for number in range(1000):
        cache.put("loud", str(number), "1")
    assert cached_keys(cache, "quiet", "ab") == "ab" and cache.get("loud", "999") == "1" and cache.size == 4


def test_replaces_a_value_and_does_not_cache_one_that_is_too_large() -> None:
    cache: SharedLRU[str] = SharedLRU(4, len)
    cache.put("owner", "a", "111")
    cache.put("owner", "a", "2")
    assert cache.get("owner", "a") == "2" and cache.size == 1
    cache.put("owner", "a", "33333")
    assert cache.get("owner", "a") is None and cache.size == 0


def test_the_size_is_the_sum_of_the_cached_values() -> None:
    cache, draw = SharedLRU[str](50, len), random.Random(0)
    for _ in range(3000):
        cache.put(draw.choice("ABC"), draw.choice("abcdefgh"), "x" * draw.randint(0, 60))
        values = [cache.get(owner, key) for owner in "ABC" for key in "abcdefgh"]
        assert cache.size == sum(len(value) for value in values if value is not None) <= 50
