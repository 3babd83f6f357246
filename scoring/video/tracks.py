"""Read the output of a tracking job frame by frame."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sam_endpoint.model.errors import BadData
from sam_endpoint.model.masks import from_rle
from sam_endpoint.model.tracking.records import TrackRecord
from sam_endpoint.scoring.batch import parquet
from sam_endpoint.scoring.batch.parts import NOTES

ROWS = 4096  # per table that is read at once


def read_records(file: Path) -> Iterator[TrackRecord]:
    """Yield the records of a finished job in the order of frames and objects.

    Raises:
        BadData: the file cannot be read, or is not the output of `track`.
    """
    try:
        with file.open("rb") as stream:
            for table in parquet.tables(stream, ROWS):
                if not {"frame", "object", "encoded_binary_mask", "size", "score"} <= set(table.column_names):
                    raise BadData(f"'{file}' is not the output of `sam-endpoint track`")
                yield from table.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise BadData(f"'{file}' cannot be read: {str(error).splitlines()[0]}") from None


def read_frames(file: Path) -> Iterator[tuple[int, list[TrackRecord]]]:
    """Yield the number of each frame with records, and its records."""
    for number, records in groupby(read_records(file), key=lambda record: record["frame"]):
        yield number, list(records)


def read_notes(file: Path) -> dict[str, Any]:
    """Return the summary of a finished job: `frames`, `objects`, `visible`, `error` and `job`.

    Raises:
        BadData: the file cannot be read, or is not the output of a job.
    """
    try:
        with file.open("rb") as stream:
            notes: dict[str, Any] = json.loads((pq.read_schema(stream).metadata or {})[NOTES])
        return notes
    except (OSError, pa.ArrowException, KeyError, ValueError):
        raise BadData(f"'{file}' is not the output of `sam-endpoint track`") from None


def mask_of(record: TrackRecord) -> np.ndarray:
    """Decode the (height, width) bool mask of a record."""
    return from_rle({"size": record["size"], "counts": record["encoded_binary_mask"].encode("ascii")})


def without_overlap(records: list[TrackRecord]) -> dict[int, np.ndarray]:
    """Return the (height, width) bool mask of each object; a pixel of several masks goes to the best score."""
    masks: dict[int, np.ndarray] = {}
    taken: np.ndarray | None = None
    for record in sorted(records, key=lambda record: -record["score"]):
        mask = mask_of(record)
        taken = np.zeros_like(mask) if taken is None else taken
        masks[record["object"]] = mask & ~taken
        taken |= mask
    return dict(sorted(masks.items()))
