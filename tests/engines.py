"""Functions that create engines and scorers for a segmenter."""

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
    """Create an engine that has its own cache of embeddings.

    Args:
        segmenter: model of the engine.
        cache_bytes: size of the cache.
        **limits: fields of ImageLimits.
    """
    return Engine(segmenter, ImageReader(ImageLimits(**limits)), EmbeddingCache(cache_bytes))


def scorer_of(segmenter: Segmenter, cache_bytes: int = 2**28, **limits: Any) -> Scorer:
    """Create a scorer and its engine. The arguments are those of `engine_of`."""
    return Scorer(engine_of(segmenter, cache_bytes, **limits))


def score_rows(scorer: Scorer, *rows: dict[str, Any], **params: Any) -> list[dict[str, Any]]:
    """Score rows of a table.

    Args:
        scorer: scorer to use.
        *rows: one dict per row, from column names to cells.
        **params: fields of Params.

    Returns:
        One answer per row.
    """
    frame = pd.DataFrame(list(rows), dtype=object)
    parsed = Params(**params)
    return scorer.score(scorer.read(frame, parsed), parsed)
