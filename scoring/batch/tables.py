"""Tables of images and prompts, CSV or parquet: read in, and their answers written out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from model.contract import COLUMNS, OUTPUT_COLUMNS

LONGEST_NAME = 1024

_MASK = pa.struct(
    [
        ("encoded_binary_mask", pa.string()),
        ("iou_score", pa.float64()),
        ("size", pa.list_(pa.int64())),
        ("bbox", pa.list_(pa.float64())),
        ("area", pa.int64()),
        ("low_res_logits", pa.string()),
    ]
)
_ANSWER = {
    "predictions": pa.list_(pa.struct([("mask_per_prediction", pa.list_(_MASK))])),
    "image_id": pa.string(),
    "error": pa.string(),
}


class BadTable(ValueError):
    """A table that cannot be scored at all."""


def read(path: Path) -> pd.DataFrame:
    """A .csv or .parquet file. Raises BadTable when it is neither, unreadable, empty or without an image column."""
    try:
        if path.suffix.lower() == ".csv":
            # As text: pandas would make numbers of image ids and of labels.
            table = pd.read_csv(path, dtype={name: str for name in COLUMNS})
        elif path.suffix.lower() == ".parquet":
            table = pd.read_parquet(path)
        else:
            raise BadTable(f"'{path}': expected a .csv or .parquet file")
    except FileNotFoundError:
        raise BadTable(f"'{path}': there is no such file") from None
    except (ValueError, OSError) as error:
        if isinstance(error, BadTable):
            raise
        raise BadTable(f"'{path}' cannot be read: {str(error).splitlines()[0]}") from None
    table = table.reset_index(drop=table.index.name is None)
    if not len(table):
        raise BadTable(f"'{path}' has no rows")
    if "image" not in table.columns and "image_id" not in table.columns:
        raise BadTable(f"'{path}': expected a column 'image', got {', '.join(map(str, table.columns))}")
    taken = [name for name in OUTPUT_COLUMNS if name in table.columns and name not in COLUMNS]
    if taken:
        raise BadTable(f"'{path}' has a column '{taken[0]}' already, which the answers need; rename it")
    return table


def with_answers(rows: pd.DataFrame, answers: pd.DataFrame) -> pa.Table:
    """The rows' own columns with their answers beside them. Image contents are left out, names of images kept."""
    carried = rows.drop(columns=[name for name in OUTPUT_COLUMNS if name in rows.columns]).reset_index(drop=True)
    if "image" in carried.columns:
        carried["image"] = pd.Series([_name(image) for image in carried["image"]], dtype=object)
    table = pa.Table.from_pandas(carried, preserve_index=False)
    if "image" in carried.columns:
        table = table.set_column(table.column_names.index("image"), "image", table["image"].cast(pa.string()))
    for name, kind in _ANSWER.items():
        table = table.append_column(pa.field(name, kind), pa.array(list(answers[name]), kind))
    return table


def write(parts: Iterable[pa.Table], path: Path) -> None:
    """Parts, as they come, into one parquet file, which appears only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    writer: pq.ParquetWriter | None = None
    try:
        for part in parts:
            writer = writer or pq.ParquetWriter(unfinished, part.schema)
            writer.write_table(part.cast(writer.schema))
    finally:
        if writer is not None:
            writer.close()
    unfinished.replace(path)


def _name(image: object) -> str | None:
    """An image's path or URL; None for an image given by its content."""
    return image if isinstance(image, str) and len(image) <= LONGEST_NAME else None
