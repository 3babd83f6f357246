"""The cache of embeddings in memory: limited by bytes, shared fairly between tenants."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from copy import copy

from ..errors import ClientDisconnected, DeadlineExceeded
from ..segmenter import Embedding
from .shared_lru import SharedLRU
from .store import Store

MAX_NAMES = 100_000
_KEY = re.compile(r"[0-9a-f]{64}(\.upright)?", re.IGNORECASE)


def is_key(name: str) -> bool:
    """Return whether a name has the form of an image's key, so that no other image may have it."""
    return _KEY.fullmatch(name) is not None


class EmbeddingCache:
    """Embeddings by key, and names for keys. Safe to share between threads.

    A view (`for_tenant`, `for_model`) shares the memory and has keys and names of its own. A full cache evicts what the
    tenant with the most bytes used longest ago.

    Args:
        max_bytes: largest sum of the embeddings' bytes.
        store: second tier: read on a miss, and given every new embedding.

    Attributes:
        lookups: how often `get` was a hit (True) and a miss (False).
    """

    def __init__(self, max_bytes: int, store: Store | None = None) -> None:
        self._embeddings: SharedLRU[Embedding] = SharedLRU(max_bytes, _nbytes)
        self._names: SharedLRU[str] = SharedLRU(MAX_NAMES, lambda key: 1)
        self._pending: dict[str, Future[Embedding]] = {}
        self._lock = threading.Lock()
        self._store = store
        self.lookups: Counter[bool] = Counter()
        self.tenant = ""
        self.model = ""
        self._is_valid: Callable[[Embedding], bool] = lambda embedding: True

    def for_tenant(self, tenant: str) -> EmbeddingCache:
        """Return a view with the keys and names of one tenant; the empty text is the tenant of open endpoints."""
        view = copy(self)
        view.tenant = tenant
        return view

    def for_model(
        self, fingerprint: str, is_valid: Callable[[Embedding], bool] = lambda embedding: True
    ) -> EmbeddingCache:
        """Return a view with the keys and names of one model.

        Args:
            fingerprint: hash of the weights that embeddings depend on.
            is_valid: returns whether an embedding of the store can be the model's; others count as absent.
        """
        view = copy(self)
        view.model = fingerprint
        view._is_valid = is_valid
        return view

    @property
    def nbytes(self) -> int:
        """Bytes of the cached embeddings."""
        return self._embeddings.size

    def find(self, name: str) -> Embedding | None:
        """Return the cached or stored embedding of a key or name, or None."""
        key = self._scoped(self.key(name))
        embedding = self._embeddings.get(self.tenant, key)
        if embedding is None and (embedding := self._load(key)):
            self._embeddings.put(self.tenant, key, embedding)
        return embedding

    def key(self, name: str) -> str:
        """Return the key that a name stands for; a key, or a name that no image has, stands for itself."""
        if is_key(name):
            return name
        scoped = self._scoped(name)
        key = self._names.get(self.tenant, scoped)
        if key is None and self._store and (key := self._store.load_name(scoped)):
            self._names.put(self.tenant, scoped, key)
        return name if key is None else key

    def name(self, name: str, key: str) -> None:
        """Give a name to a key; a name that was in use moves to the new key."""
        scoped = self._scoped(name)
        known = self._names.get(self.tenant, scoped) == key
        self._names.put(self.tenant, scoped, key)
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
                embedding = self._embeddings.get(self.tenant, key)
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
            except (ClientDisconnected, DeadlineExceeded):
                continue

    def _fill(self, key: str, pending: Future[Embedding], embed: Callable[[], Embedding]) -> Embedding:
        try:
            embedding = self._load(key)
            if embedding is None:
                embedding = embed()
                if self._store:
                    self._store.save(key, embedding)
        except BaseException as error:
            with self._lock:
                del self._pending[key]
            pending.set_exception(error)
            raise
        self._embeddings.put(self.tenant, key, embedding)
        with self._lock:
            del self._pending[key]
        pending.set_result(embedding)
        return embedding

    def _load(self, key: str) -> Embedding | None:
        """Return the embedding that the store has of a key, or None if it has none that can be the model's."""
        embedding = self._store.load(key) if self._store else None
        if self._store and embedding is not None and not self._is_valid(embedding):
            self._store.report_invalid()
            return None
        return embedding

    def _scoped(self, name: str) -> str:
        return f"{self.tenant}\0{self.model}\0{name}"


def _nbytes(embedding: Embedding) -> int:
    return embedding.nbytes
