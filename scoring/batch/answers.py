"""Convert the tables of a batch job to rows for the model, and the model's answers to columns of a table."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Mapping, Sequence
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
from sam_endpoint.scoring.batch.sources.column_types import FAULT
from sam_endpoint.scoring.batch.sources.readers import BadLine

MAX_NAME = 1024  # characters; longer texts in the column `image` are never paths or URLs
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
PREDICTION = pa.struct(
    [("mask_per_prediction", pa.list_(MASK)), ("concept", pa.string()), ("concept_index", pa.int64())]
)
ANSWER = {  # types of the output columns
    "predictions": pa.list_(PREDICTION),
    "image_id": pa.string(),
    "error": pa.string(),
}


def frame(table: pa.Table, first: int) -> pd.DataFrame:
    """Convert a table to a data frame with the columns that the model reads.

    Args:
        table: rows of the input.
        first: number of the table's first row in the whole input.

    Returns:
        The columns in COLUMNS, indexed by the numbers of the rows. Other columns are dropped.

    Example:
        >>> frame(pa.table({"image": ["a.png", "b.png"], "shop": [7, 8]}), first=100)
             image
        100  a.png
        101  b.png
    """
    index = pd.RangeIndex(first, first + len(table))
    names = [name for name in COLUMNS if name in table.column_names]
    return pd.DataFrame({name: pd.Series(table[name].to_pylist(), index, dtype=object) for name in names}, index)


def read_rows(scorer: Scorer, table: pa.Table, index: Sequence[int], params: Params) -> list[Row | BadInput]:
    """Parse the rows of a table.

    Args:
        scorer: parses the rows.
        table: the rows.
        index: numbers of the rows, for error messages.
        params: params of the job.

    Returns:
        For each row the parsed row, or the error if the row or its line in the input file is malformed.
    """
    rows = scorer.read(frame(table, 0).set_axis(list(index)), params)
    if FAULT in table.column_names:
        for position, fault in enumerate(table[FAULT].to_pylist()):
            if fault is not None:
                rows[position] = BadLine.from_text(fault).at(index[position])
    return rows


class NamedImages:
    """Images that earlier rows named with an `image_id`, so that later rows can use them without sending them again.

    The model's embedding cache may have evicted these images. For an image given by path or URL, this class therefore
    keeps the path or URL. For an image given by its content, it keeps the number of the row, to save memory.
    """

    def __init__(self) -> None:
        self._images: dict[str, ImageRef | int] = {}
        self._repeated: set[str] = set()
        self._unresolved: dict[str, int] = {}

    def resolve(self, rows: Sequence[Row | BadInput], first: int = 0) -> Iterator[Row | BadInput]:
        """Fill in the images of rows that have only an `image_id`.

        Args:
            rows: rows of the input. Each call continues after the rows of the last call.
            first: number of the first row.

        Yields:
            The rows in order. A row stays without image if the content of its image was in a row of an earlier
            call; see `row_of`.
        """
        contents: dict[str, ImageRef] = {}
        self._unresolved = {}
        for number, row in enumerate(rows, first):
            image_id = row.image_id if isinstance(row, Row) else None
            if isinstance(row, Row) and image_id is not None:
                if row.image is None:
                    row = replace(row, image=self._find(image_id, contents))
                else:
                    if image_id in self._images:
                        self._repeated.add(image_id)
                    contents[image_id] = row.image
                    self._images[image_id] = row.image if row.image.kind in ("path", "url") else number
            if isinstance(row, Row) and row.examples_image is not None and row.examples_image.kind == "id":
                image = self._find(str(row.examples_image.value), contents)
                row = replace(row, examples_image=image or row.examples_image)
            yield row

    def _find(self, image_id: str, contents: Mapping[str, ImageRef]) -> ImageRef | None:
        """Return a named image. If only an earlier call had its content, note the row, and return None."""
        image = contents.get(image_id) or self._images.get(image_id)
        if isinstance(image, int):
            self._unresolved[image_id] = image
            return None
        return image

    def row_of(self, image_id: str) -> int | None:
        """Return the number of the earlier row with the content of an image that the last `resolve` left out.

        Rows of the last `resolve` may have given the name to another image since. Return None if no row has the image.
        """
        return self._unresolved.get(image_id)

    def is_repeated(self, image_id: str) -> bool:
        """Return whether several rows have an image of this name, so that a cache may have another one of them."""
        return image_id in self._repeated


def join_answers(table: pa.Table, answers: pd.DataFrame) -> pa.Table:
    """Add the answers to a table as columns.

    Args:
        table: rows of the input.
        answers: answers to the same rows, with the columns in ANSWER.

    Returns:
        The columns of the input and the answers. In the column `image`, paths and URLs stay; an image given by its
        content becomes null.
    """
    own_columns = [name for name in table.column_names if name not in (*OUTPUT_COLUMNS, FAULT)]
    joined = table.select(own_columns)
    if "image" in own_columns:
        names = pa.array([image_name(image) for image in table["image"].to_pylist()], pa.string())
        joined = joined.set_column(own_columns.index("image"), "image", names)
    for name, kind in ANSWER.items():
        joined = joined.append_column(pa.field(name, kind), pa.array(list(answers[name]), kind))
    return joined


def image_name(image: object) -> str | None:
    """Return the path or URL in a cell of the column `image`, or None for an image given by its content.

    Example:
        >>> image_name("photos/a.png"), image_name(b"...")
        ('photos/a.png', None)
    """
    if isinstance(image, dict):
        image = image.get("path")
    if not isinstance(image, str) or len(image) > MAX_NAME or image.lstrip()[:5].lower() == "data:":
        return None
    return None if _is_content(image) else image


def _is_content(text: str) -> bool:
    """Return whether a text is an image in base64."""
    if not BASE64.fullmatch(text):
        return False
    letters = "".join(text.split()).rstrip("=")
    try:
        data = base64.b64decode(letters + "=" * (-len(letters) % 4), b"-_" if set(letters) & {"-", "_"} else None)
        with Image.open(io.BytesIO(data), formats=FORMATS):
            return True
    except Exception:  # Pillow raises many types of exceptions for data that is not an image
        return False
