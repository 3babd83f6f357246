"""Cache embeddings for later requests: in memory (`cache`) and in a folder or object store (`store`)."""

from .cache import EmbeddingCache
from .store import Store

__all__ = ["EmbeddingCache", "Store"]
