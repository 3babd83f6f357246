"""A least-recently-used cache that several owners share fairly."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class SharedLRU(Generic[Value]):
    """A cache of values by owner and key. The total size of the values is limited. Safe to share between threads.

    A full cache evicts the least recently used value of the owner with the largest total size. So an owner can fill the
    whole cache if no other owner uses the cache. An owner loses no value to other owners while its total size is at
    most the size of the cache divided by the number of owners.

    Args:
        max_size: maximum total size of all values. A single value that is larger is not cached.
        size_of: returns the size of a value.

    Attributes:
        size: total size of all cached values.

    Example:
        >>> cache = SharedLRU(3, len)
        >>> for key in ("a", "b", "c"):
        ...     _ = cache.put("first owner", key, "1")
        >>> evicted = cache.put("second owner", "a", "2")
        >>> cache.get("first owner", "a"), cache.get("first owner", "b"), cache.get("second owner", "a")
        (None, '1', '2')
    """

    def __init__(self, max_size: int, size_of: Callable[[Value], int]) -> None:
        self.max_size, self.size = max_size, 0
        self._size_of = size_of
        self._values: dict[str, OrderedDict[str, Value]] = {}
        self._sizes: dict[str, int] = {}
        self._lock = threading.Lock()

    def get(self, owner: str, key: str) -> Value | None:
        """Return a cached value, or None. The value becomes the most recently used value of its owner."""
        with self._lock:
            values = self._values.get(owner)
            if values is None or key not in values:
                return None
            values.move_to_end(key)
            return values[key]

    def put(self, owner: str, key: str, value: Value) -> list[tuple[str, str, Value]]:
        """Cache a value. It replaces an earlier value of the same owner and key.

        Returns:
            Owner, key and value of each evicted value. A value that is larger than the cache is evicted at once.
        """
        with self._lock:
            if key in self._values.get(owner, ()):
                self._remove(owner, key)
            if self._size_of(value) > self.max_size:
                return [(owner, key, value)]
            self._values.setdefault(owner, OrderedDict())[key] = value
            self._resize(owner, self._size_of(value))
            evicted = []
            while self.size > self.max_size:
                largest = max(self._sizes, key=self._sizes.__getitem__)
                oldest = next(iter(self._values[largest]))
                evicted.append((largest, oldest, self._remove(largest, oldest)))
            return evicted

    def pop(self, owner: str, key: str) -> Value | None:
        """Remove and return a cached value, or return None."""
        with self._lock:
            return self._remove(owner, key) if key in self._values.get(owner, ()) else None

    def _remove(self, owner: str, key: str) -> Value:
        value = self._values[owner].pop(key)
        self._resize(owner, -self._size_of(value))
        if not self._values[owner]:
            del self._values[owner], self._sizes[owner]
        return value

    def _resize(self, owner: str, change: int) -> None:
        self.size += change
        self._sizes[owner] = self._sizes.get(owner, 0) + change
