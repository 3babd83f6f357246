"""Engines and scorers over a segmenter, as the tests need them."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sam_endpoint.model.embeddings import EmbeddingCache
from sam_endpoint.model.engine import Engine
from sam_endpoint.model.images import ImageLimits, ImageReader
from sam_endpoint.model.params import Params
from sam_endpoint.model.scorer import Scorer
from sam_endpoint.model.segmenter import Segmenter


def engine_of(segmenter: Segmenter, cache_bytes: int = 2**28, **limits: Any) -> Engine:
    """Return an engine with a cache of its own; `limits` are those of ImageLimits."""
    return Engine(segmenter, ImageReader(ImageLimits(**limits)), EmbeddingCache(cache_bytes))


def scorer_of(segmenter: Segmenter, cache_bytes: int = 2**28, **limits: Any) -> Scorer:
    """Return a scorer over such an engine."""
    return Scorer(engine_of(segmenter, cache_bytes, **limits))


def score_rows(scorer: Scorer, *rows: dict[str, Any], **params: Any) -> list[dict[str, Any]]:
    """Score rows of the table contract, each a dict by column name."""
    frame = pd.DataFrame(list(rows), dtype=object)
    read = Params(**params)
    return scorer.score(scorer.read(frame, read), read)
