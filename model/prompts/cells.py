"""Cells of a table: which are empty, what their JSON text, lists or arrays hold, and what to say about bad ones."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import numpy as np

from ..errors import BadInput, kind

MISSING_TEXT = ("", "none", "null", "nan")
MAX_VALUES = 1_000_000  # lists and numbers in the JSON text of a cell: 15 masks of 256 x 256, or a second of parsing
MAX_MISSING_TEXT = 64  # characters; longer text, such as an image, is not copied to be compared


class Mismatch(Exception):
    """A value differs from the form that is expected; `reading` adds the column and makes it a BadInput.

    Attributes:
        expected: the form.
        value: the value that came, or None if `got` describes it.
        got: what came, in words.
    """

    def __init__(self, expected: str, value: object = None, got: str = "") -> None:
        self.expected, self.value, self.got = expected, value, got
        super().__init__(expected)


@contextmanager
def reading(column: str) -> Iterator[None]:
    """Turn a Mismatch inside the block into a BadInput of this column."""
    try:
        yield
    except Mismatch as error:
        got = error.got.format(kind(error.value)) if error.got else kind(error.value)
        raise BadInput(column, error.expected, got) from None


def is_missing(value: object) -> bool:
    """Return whether a cell is empty: null, NaN, an empty list, or the text that CSV and JSON use for those."""
    if value is None:
        return True
    if isinstance(value, str):
        return value.strip().lower() in MISSING_TEXT if len(value) < MAX_MISSING_TEXT else value.isspace()
    if isinstance(value, (list, tuple)):
        return not value
    if isinstance(value, np.ndarray):
        return value.size == 0 if value.ndim else is_missing(value.item())
    if isinstance(value, (float, np.floating)):
        return math.isnan(value)
    return type(value).__name__ in ("NAType", "NaTType")


def is_empty(value: object) -> bool:
    """Return whether a cell holds an empty list or array, or the JSON text of one."""
    if isinstance(value, str):
        return len(value) < MAX_MISSING_TEXT and "".join(value.split()) == "[]"
    if isinstance(value, (list, tuple)):
        return not value
    shape = getattr(value, "shape", ())
    return len(shape) > 0 and 0 in shape


def parse_cell(column: str, value: object, form: str, max_count: int | None = None) -> Any:
    """Return a cell as plain nested lists (or whatever its JSON holds), or None when it is missing.

    `max_count` limits the length of the outermost list; it is checked first, so that a far too long list costs no time.
    Raises BadInput for text that is not JSON, for a list that is too long, and for lists nested too deep.
    """
    with reading(column):
        return parse(value, form, max_count)


def count_values(text: str) -> int:
    """Return about how many lists and numbers JSON text has, without parsing it."""
    return text.count("[") + text.count("{") + text.count(",")


def check_count(column: str, count: int, max_count: int | None, what: str = "prompts") -> None:
    """Raise BadInput if `count` exceeds `max_count`; None means no limit."""
    with reading(column):
        check_length(count, max_count, what)


def parse(value: object, form: str, max_count: int | None = None) -> Any:
    """Do as `parse_cell`, but raise Mismatch."""
    if is_missing(value):
        return None
    if isinstance(value, str):
        values = count_values(value)
        if values > MAX_VALUES:
            raise Mismatch(f"JSON of at most {MAX_VALUES:,} lists and numbers", got=f"{values:,}")
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise Mismatch(f"{form}, as JSON", value, "{} that is not JSON") from None
    if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim):
        check_length(len(value), max_count, "prompts")
    try:
        value = _plain(value)
    except RecursionError:
        raise Mismatch(form, got="lists nested too deep") from None
    return None if is_missing(value) else value


def check_length(count: int, max_count: int | None, what: str) -> None:
    """Raise Mismatch if `count` exceeds `max_count`; None means no limit."""
    if max_count is not None and count > max_count:
        raise Mismatch(f"at most {max_count} {what}", got=str(count))


def _plain(value: Any) -> Any:
    """Return nested lists of Python's own numbers: arrays, tensors and numbers of other libraries are converted."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)) or type(value).__module__.partition(".")[0] == "torch":
        converted = value.tolist()
        return _plain(converted) if isinstance(converted, list) else converted
    return float(value) if isinstance(value, Decimal) else value
