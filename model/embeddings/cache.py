"""The cache of embeddings in memory: limited by bytes, least recently used entries evicted first."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from copy import copy

from cachetools import LRUCache

from ..errors import ClientDisconnected
from ..segmenter import Embedding
from .store import Store

MAX_NAMES = 100_000


class EmbeddingCache:
    """Embeddings by key, and names for keys. Safe to share between threads.

    A view (`for_tenant`, `for_model`) shares the memory and has keys and names of its own.

    Args:
        max_bytes: largest sum of the embeddings' bytes.
        store: second tier: read on a miss, and given every new embedding.

    Attributes:
        lookups: how often `get` was a hit (True) and a miss (False).
    """

    def __init__(self, max_bytes: int, store: Store | None = None) -> None:
        self._embeddings: LRUCache[str, Embedding] = LRUCache(max(1, max_bytes), getsizeof=_nbytes)
        self._names: LRUCache[str, str] = LRUCache(MAX_NAMES)
        self._pending: dict[str, Future[Embedding]] = {}
        self._lock = threading.Lock()
        self._store = store
        self.lookups: Counter[bool] = Counter()
        self.tenant = ""
        self.model = ""

    def for_tenant(self, tenant: str) -> EmbeddingCache:
        """Return a view with the keys and names of one tenant; the empty text is the tenant of open endpoints."""
        view = copy(self)
        view.tenant = tenant
        return view

    def for_model(self, fingerprint: str) -> EmbeddingCache:
        """Return a view with the keys and names of one model."""
        view = copy(self)
        view.model = fingerprint
        return view

    @property
    def nbytes(self) -> int:
        """Bytes of the cached embeddings."""
        return int(self._embeddings.currsize)

    def find(self, name: str) -> Embedding | None:
        """Return the cached or stored embedding of a key or name, or None."""
        key = self._scoped(self.key(name))
        with self._lock:
            embedding = self._embeddings.get(key)
        if embedding is None and self._store and (embedding := self._store.load(key)):
            self._put(key, embedding)
        return embedding

    def key(self, name: str) -> str:
        """Return the key that a name stands for; a name that was never given to a key stands for itself."""
        scoped = self._scoped(name)
        with self._lock:
            key = self._names.get(scoped, name if scoped in self._embeddings else None)
        if key is None and self._store and (key := self._store.load_name(scoped)):
            with self._lock:
                self._names[scoped] = key
        return name if key is None else key

    def name(self, name: str, key: str) -> None:
        """Give a name to a key; a name that was in use moves to the new key."""
        scoped = self._scoped(name)
        with self._lock:
            known = self._names.get(scoped) == key
            self._names[scoped] = key
        if self._store and not known:
            self._store.save_name(scoped, key)

    def get(self, key: str, embed: Callable[[], Embedding]) -> Embedding:
        """Return the embedding of a key; on a miss, call `embed` and cache its result.

        Threads that miss the same key at the same time share one call of `embed`, and its exception. If that call is
        abandoned because its client disconnected, the next waiting thread makes its own.
        """
        key = self._scoped(key)
        while True:
            with self._lock:
                embedding = self._embeddings.get(key)
                pending = self._pending.get(key)
                first = pending is None
                self.lookups[embedding is not None or not first] += 1
                if embedding is not None:
                    return embedding
                if pending is None:
                    pending = self._pending[key] = Future()
            if first:
                return self._fill(key, pending, embed)
            try:
                return pending.result()
            except ClientDisconnected:
                continue

    def _fill(self, key: str, pending: Future[Embedding], embed: Callable[[], Embedding]) -> Embedding:
        try:
            embedding = self._store.load(key) if self._store else None
            if embedding is None:
                embedding = embed()
                if self._store:
                    self._store.save(key, embedding)
        except BaseException as error:
            with self._lock:
                del self._pending[key]
            pending.set_exception(error)
            raise
        self._put(key, embedding)
        with self._lock:
            del self._pending[key]
        pending.set_result(embedding)
        return embedding

    def _put(self, key: str, embedding: Embedding) -> None:
        with self._lock:
            if embedding.nbytes <= self._embeddings.maxsize:
                self._embeddings[key] = embedding

    def _scoped(self, name: str) -> str:
        return f"{self.tenant}\0{self.model}\0{name}"


def _nbytes(embedding: Embedding) -> int:
    return embedding.nbytes
