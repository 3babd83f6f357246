"""An in-memory cache of embeddings, limited by bytes and shared fairly between tenants."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from copy import copy

import torch

from ..errors import ClientDisconnected, DeadlineExceeded
from ..segmenter import Embedding
from ..shared_lru import SharedLRU
from .store import Store
from .tiers import TwoTiers

MAX_NAMES = 100_000
NAME_SECONDS = 5.0  # for which a replica relies on a name; another replica may have moved it in the store
_KEY = re.compile(r"[0-9a-f]{64}(\.upright)?", re.IGNORECASE)


def is_key(name: str) -> bool:
    """Return whether a name has the form of a key: 64 hexadecimal digits, with or without `.upright`."""
    return _KEY.fullmatch(name) is not None


class EmbeddingCache:
    """A cache of embeddings by key, with names for keys. Safe to share between threads.

    A key identifies an image (see `images.OpenedImage`); a name is an `image_id` that a client chose. `for_tenant` and
    `for_model` return views, which share the memory but have their own keys and names. A full cache evicts the least
    recently used embedding of the tenant that holds the most bytes.

    Args:
        max_bytes: maximum size of all embeddings together in bytes, in the memory of the host.
        store: persistent store behind the cache. It is read on a miss, and receives every new embedding.
        device: the device of the models, on which embeddings are used.
        device_bytes: if the device is a GPU, maximum size of the embeddings in its memory in bytes. Those that are
            evicted there move to the memory of the host, and move back when they are used again.
        clock: returns the time in seconds.

    Attributes:
        lookups: number of hits (key True) and misses (key False) of `get`.
    """

    def __init__(
        self,
        max_bytes: int,
        store: Store | None = None,
        device: str | torch.device = "cpu",
        device_bytes: int = 2**30,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        on_host: SharedLRU[Embedding] = SharedLRU(max_bytes, _nbytes)
        on_gpu = not str(device).startswith("cpu")  # a wrong name is reported when the model is loaded
        self._embeddings = TwoTiers(device_bytes, on_host, device) if on_gpu else on_host
        # The key of each name, and the time when it was last written to the store or read from it.
        self._names: SharedLRU[tuple[str, float]] = SharedLRU(MAX_NAMES, lambda key: 1)
        self._clock = clock
        self._pending: dict[str, Future[Embedding]] = {}
        self._lock = threading.Lock()
        self._store = store
        self.lookups: Counter[bool] = Counter()
        self.tenant = ""
        self.model = ""
        self._is_valid: Callable[[Embedding], bool] = lambda embedding: True

    def for_tenant(self, tenant: str) -> EmbeddingCache:
        """Return a view with the keys and names of one tenant. Endpoints without API keys use the empty tenant."""
        view = copy(self)
        view.tenant = tenant
        return view

    def for_model(
        self, fingerprint: str, is_valid: Callable[[Embedding], bool] = lambda embedding: True
    ) -> EmbeddingCache:
        """Return a view with the keys and names of one model.

        Args:
            fingerprint: a hash of the weights that embeddings depend on.
            is_valid: returns whether this model could have computed an embedding of the store. Other embeddings are
                ignored.
        """
        view = copy(self)
        view.model = fingerprint
        view._is_valid = is_valid
        return view

    def in_memory(self) -> EmbeddingCache:
        """Return a view without the store, for embeddings that are of no use later, such as those of frames."""
        view = copy(self)
        view._store = None
        return view

    @property
    def nbytes(self) -> int:
        """Size of the cached embeddings in bytes, for all tenants and models, in all memories together."""
        return self._embeddings.size

    def find(self, name: str) -> Embedding | None:
        """Return the embedding of a key or name from the cache or the store, or None."""
        key = self._scoped(self.key(name))
        embedding = self._embeddings.get(self.tenant, key)
        if embedding is None and (embedding := self._load(key)):
            self._embeddings.put(self.tenant, key, embedding)
        return embedding

    def key(self, name: str) -> str:
        """Return the key of a name. Keys and unknown names are returned unchanged.

        If there is a store, a name that was not checked for NAME_SECONDS is read from it.
        """
        if is_key(name):
            return name
        scoped = self._scoped(name)
        entry = self._names.get(self.tenant, scoped)
        if self._store and not self._is_fresh(entry):
            key = self._store.load_name(scoped) or (entry and entry[0])
            with self._lock:
                latest = self._names.get(self.tenant, scoped)
                if key and latest == entry:  # else another thread has assigned the name meanwhile
                    latest = key, self._clock()
                    self._names.put(self.tenant, scoped, latest)
            entry = latest
        return name if entry is None else entry[0]

    def name(self, name: str, key: str) -> None:
        """Assign a name to a key. A name that is in use moves to the new key."""
        scoped = self._scoped(name)
        entry = self._names.get(self.tenant, scoped)
        if entry is not None and entry[0] == key and (not self._store or self._is_fresh(entry)):
            return
        with self._lock:
            self._names.put(self.tenant, scoped, (key, self._clock()))
        if self._store:
            self._store.save_name(scoped, key)

    def _is_fresh(self, entry: tuple[str, float] | None) -> bool:
        return entry is not None and self._clock() - entry[1] < NAME_SECONDS

    def get(self, key: str, embed: Callable[[], Embedding]) -> Embedding:
        """Return the embedding of a key. On a miss, call `embed` and cache its result.

        Threads that miss the same key at the same time share one call of `embed` and its exception. If that call ends
        because its client disconnected or its time limit passed, the next waiting thread calls its own `embed`.

        Args:
            key: the key of the image.
            embed: computes the embedding.
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
            try:
                return self._fill(key, pending, embed) if first else pending.result()
            except (ClientDisconnected, DeadlineExceeded):
                if first:
                    raise
            finally:
                # A future refers to its error, and the error to this frame. If the frame still referred to the future,
                # the image would stay in memory until a garbage collection.
                del pending

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
            del pending  # see `get`
            raise
        self._embeddings.put(self.tenant, key, embedding)
        with self._lock:
            del self._pending[key]
        pending.set_result(embedding)
        return embedding

    def _load(self, key: str) -> Embedding | None:
        """Return the stored embedding of a key, or None if there is none or the model could not have computed it."""
        embedding = self._store.load(key) if self._store else None
        if self._store and embedding is not None and not self._is_valid(embedding):
            self._store.report_invalid()
            return None
        return embedding

    def _scoped(self, name: str) -> str:
        return f"{self.tenant}\0{self.model}\0{name}"


def _nbytes(embedding: Embedding) -> int:
    return embedding.nbytes
