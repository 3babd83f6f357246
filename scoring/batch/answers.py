"""The rows of a batch job as the model reads them, and their answers as columns of a table."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pandas as pd
import pyarrow as pa
from PIL import Image

from sam_endpoint.model.errors import BadInput
from sam_endpoint.model.images import ImageRef
from sam_endpoint.model.images.decoding import FORMATS
from sam_endpoint.model.params import Params
from sam_endpoint.model.rows import COLUMNS, OUTPUT_COLUMNS, Row
from sam_endpoint.model.scorer import Scorer
from sam_endpoint.scoring.batch.sources.kinds import FAULT
from sam_endpoint.scoring.batch.sources.readers import BadLine

MAX_NAME = 1024
BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]{16,}={0,2}\s*")
MASK = pa.struct(
    [
        ("encoded_binary_mask", pa.string()),
        ("iou_score", pa.float64()),
        ("size", pa.list_(pa.int64())),
        ("bbox", pa.list_(pa.float64())),
        ("area", pa.int64()),
        ("low_res_logits", pa.string()),
    ]
)
ANSWER = {
    "predictions": pa.list_(pa.struct([("mask_per_prediction", pa.list_(MASK))])),
    "image_id": pa.string(),
    "error": pa.string(),
}


def frame(table: pa.Table, first: int) -> pd.DataFrame:
    """Return the contract's columns, under the row numbers of the whole input."""
    index = pd.RangeIndex(first, first + len(table))
    names = [name for name in COLUMNS if name in table.column_names]
    return pd.DataFrame({name: pd.Series(table[name].to_pylist(), index, dtype=object) for name in names}, index)


def read_rows(scorer: Scorer, table: pa.Table, index: Sequence[int], params: Params) -> list[Row | BadInput]:
    """Parse the rows of a table; a row that cannot be parsed, or that was a broken line, is represented by its error.

    Args:
        scorer: parses the rows.
        table: the rows.
        index: numbers of the rows, for their errors.
        params: params of the job.
    """
    rows = scorer.read(frame(table, 0).set_axis(list(index)), params)
    if FAULT in table.column_names:
        for position, fault in enumerate(table[FAULT].to_pylist()):
            if fault is not None:
                rows[position] = BadLine.from_text(fault).at(index[position])
    return rows


class NamedImages:
    """Which image each image_id stands for, whatever the model's cache still holds.

    Images by path or URL are remembered; of images by their content, the number of the row that named them is.
    """

    def __init__(self) -> None:
        self._images: dict[str, ImageRef | int] = {}

    def resolve(self, rows: Sequence[Row | BadInput], first: int = 0) -> Iterator[Row | BadInput]:
        """Yield rows, in order; a row that names an image of an earlier row gets that image.

        Args:
            rows: the rows that follow those of the last call.
            first: number of the first row.
        """
        here: dict[str, ImageRef] = {}
        for number, row in enumerate(rows, first):
            image_id = row.image_id if isinstance(row, Row) else None
            if isinstance(row, Row) and image_id is not None:
                if row.image is None:
                    image = here.get(image_id) or self._images.get(image_id)
                    row = replace(row, image=image) if isinstance(image, ImageRef) else row
                else:
                    here[image_id] = row.image
                    self._images[image_id] = row.image if row.image.kind in ("path", "url") else number
            yield row

    def row_of(self, image_id: str | None) -> int | None:
        """Return the number of the row that named an image by its content, or None."""
        number = self._images.get(image_id or "")
        return number if isinstance(number, int) else None


def with_answers(table: pa.Table, answers: pd.DataFrame) -> pa.Table:
    """Return the rows' own columns with their answers beside them; image contents become nulls, paths and URLs stay."""
    own_columns = [name for name in table.column_names if name not in (*OUTPUT_COLUMNS, FAULT)]
    joined = table.select(own_columns)
    if "image" in own_columns:
        names = pa.array([name_of(image) for image in table["image"].to_pylist()], pa.string())
        joined = joined.set_column(own_columns.index("image"), "image", names)
    for name, kind in ANSWER.items():
        joined = joined.append_column(pa.field(name, kind), pa.array(list(answers[name]), kind))
    return joined


def name_of(image: object) -> str | None:
    """Return an image's path or URL, or None for an image given by its content."""
    if isinstance(image, dict):
        image = image.get("path")
    if not isinstance(image, str) or len(image) > MAX_NAME or image.lstrip()[:5].lower() == "data:":
        return None
    return None if _is_content(image) else image


def _is_content(text: str) -> bool:
    """Return whether a text is the base64 text of an image."""
    if not BASE64.fullmatch(text):
        return False
    letters = "".join(text.split()).rstrip("=")
    try:
        data = base64.b64decode(letters + "=" * (-len(letters) % 4), b"-_" if set(letters) & {"-", "_"} else None)
        with Image.open(io.BytesIO(data), formats=FORMATS):
            return True
    except Exception:  # Pillow's readers raise many types of exceptions for what is no image
        return False
