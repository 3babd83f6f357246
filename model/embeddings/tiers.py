"""A cache of embeddings in the memory of a GPU, with the memory of the host behind it."""

from __future__ import annotations

import torch

from ..segmenter import Embedding
from ..shared_lru import SharedLRU


class TwoTiers:
    """Keeps the embeddings that were used last on a device, and the others on the host. Safe to share between threads.

    An embedding in the first tier needs no copy before it is used. If the first tier is full, the least recently used
    embedding moves to the second tier. It moves back when it is used again.

    Args:
        device_bytes: maximum size of the embeddings on the device in bytes.
        on_host: the second tier.
        device: the device.
    """

    def __init__(self, device_bytes: int, on_host: SharedLRU[Embedding], device: str | torch.device) -> None:
        self._on_device: SharedLRU[Embedding] = SharedLRU(device_bytes, lambda embedding: embedding.nbytes)
        self._on_host = on_host
        self._device = device

    @property
    def size(self) -> int:
        """Size of the embeddings of both tiers in bytes."""
        return self._on_device.size + self._on_host.size

    def get(self, owner: str, key: str) -> Embedding | None:
        """Return an embedding, on the device, or None."""
        embedding = self._on_device.get(owner, key)
        if embedding is None and (stored := self._on_host.pop(owner, key)) is not None:
            embedding = stored.to(self._device)
            self.put(owner, key, embedding)
        return embedding

    def put(self, owner: str, key: str, embedding: Embedding) -> None:
        """Cache an embedding. It replaces an earlier embedding of the same owner and key."""
        self._on_host.pop(owner, key)
        for other, name, evicted in self._on_device.put(owner, key, embedding):
            self._on_host.put(other, name, evicted.to("cpu"))
