"""The cache of embeddings: least recently used first out, by bytes held."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import ContextVar
from copy import copy

from cachetools import LRUCache

from model.errors import Gone
from model.segmenter import Embedding
from model.store import Store

# Whose requests are being answered: what is kept for one cannot be found by another.
tenant: ContextVar[str] = ContextVar("tenant", default="")


class Embeddings:
    """Embeddings by key, at most `max_bytes` of them, with names for their keys, both the `tenant`'s own. Safe to share
    between threads.

    store: a second tier, asked for what is not in memory, and given all that is made.
    """

    scope = ""

    def __init__(self, max_bytes: int, store: Store | None = None) -> None:
        self._kept: LRUCache[str, Embedding] = LRUCache(max(1, max_bytes), getsizeof=lambda one: one.nbytes)
        self._names: LRUCache[str, str] = LRUCache(100_000)
        self._pending: dict[str, Future[Embedding]] = {}
        self._lock = threading.Lock()
        self._store = store
        self.found: Counter[bool] = Counter()  # how often `get` found an embedding, and how often not

    def scoped(self, scope: str) -> Embeddings:
        """The same memory with keys and names of its own, for one of several models."""
        view = copy(self)
        view.scope = scope
        return view

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        return int(self._kept.currsize)

    def find(self, name: str) -> Embedding | None:
        """The kept embedding under a key, or under a name given to one."""
        key = self._own(self.key(name))
        with self._lock:
            kept = self._kept.get(key)
        if kept is None and self._store and (kept := self._store.load(key)):
            self._keep(key, kept)
        return kept

    def key(self, name: str) -> str:
        """The key that a name was given to, else the name itself."""
        own = self._own(name)
        with self._lock:
            key = self._names.get(own, name if own in self._kept else None)
        if key is None and self._store and (key := self._store.load_name(own)):
            with self._lock:
                self._names[own] = key
        return name if key is None else key

    def name(self, name: str, key: str) -> None:
        """Lets `find(name)` answer what is kept under `key`; a name used before is given to the new key."""
        with self._lock:
            known = self._names.get(self._own(name)) == key
            self._names[self._own(name)] = key
        if self._store and not known:
            self._store.save_name(self._own(name), key)

    def _keep(self, key: str, embedding: Embedding) -> None:
        with self._lock:
            if embedding.nbytes <= self._kept.maxsize:
                self._kept[key] = embedding

    def get(self, key: str, embed: Callable[[], Embedding]) -> Embedding:
        """The kept embedding under `key`, else what `embed` makes, which is then kept.

        Threads that ask for one missing key at the same time share one call of `embed`, its error included, unless
        that is Gone: then the next of them takes its turn.
        """
        key = self._own(key)
        while True:
            with self._lock:
                kept = self._kept.get(key)
                pending = self._pending.get(key)
                mine = pending is None
                self.found[kept is not None or not mine] += 1
                if kept is not None:
                    return kept
                if pending is None:
                    pending = self._pending[key] = Future()
            if mine:
                return self._make(key, pending, embed)
            try:
                return pending.result()
            except Gone:
                continue

    def _make(self, key: str, pending: Future[Embedding], embed: Callable[[], Embedding]) -> Embedding:
        try:
            made = self._store.load(key) if self._store else None
            if made is None:
                made = embed()
                if self._store:
                    self._store.save(key, made)
        except BaseException as error:
            with self._lock:
                del self._pending[key]
            pending.set_exception(error)
            raise
        self._keep(key, made)
        with self._lock:
            del self._pending[key]
        pending.set_result(made)
        return made

    def _own(self, name: str) -> str:
        return f"{tenant.get()}\0{self.scope}\0{name}"
