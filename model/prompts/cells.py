"""Parse the cells of prompt columns: detect missing values, read JSON text, lists or arrays, and report bad values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import numpy as np

from .. import json_text
from ..errors import BadInput, kind

MISSING_TEXT = ("", "none", "null", "nan")
MAX_VALUES = 1_000_000  # lists and numbers in the JSON text of a cell; enough for 15 masks of 256 x 256, parsed in 1 s
MAX_MISSING_TEXT = 64  # characters; longer text, such as an image, is not copied for the comparison


class Mismatch(Exception):
    """A value does not have the expected form. `reading` converts this error to a BadInput with the column's name.

    Args:
        expected: description of the expected form.
        value: the value, which the message describes by its type and size.
        got: description of the value. `{}` in it stands for the type and size of `value`.
    """

    def __init__(self, expected: str, value: object = None, got: str = "") -> None:
        self.expected, self.value, self.got = expected, value, got
        super().__init__(expected)


@contextmanager
def reading(column: str) -> Iterator[None]:
    """Convert a Mismatch inside the block to a BadInput for a column."""
    try:
        yield
    except Mismatch as error:
        got = error.got.format(kind(error.value)) if error.got else kind(error.value)
        raise BadInput(column, error.expected, got) from None


def is_missing(value: object) -> bool:
    """Return whether a cell is missing: null, NaN, an empty list, or one of the texts in MISSING_TEXT.

    Example:
        >>> is_missing(" NaN"), is_missing([]), is_missing("[]")
        (True, True, False)
    """
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
    """Parse a cell that holds JSON text, nested lists or an array.

    Args:
        column: name of the column, for error messages.
        value: the cell.
        form: description of the expected form, for error messages.
        max_count: maximum length of the outermost list; None for no limit. The length is checked before the items are
            converted, so a list that is far too long costs little time.

    Returns:
        Nested lists of Python's own numbers, another JSON value, or None if the cell is missing.

    Raises:
        BadInput: text is not JSON, a list is too long, or lists are nested too deep.

    Example:
        >>> parse_cell("input_boxes", "[[1, 2, 3, 4]]", "boxes")
        [[1, 2, 3, 4]]
    """
    with reading(column):
        return parse(value, form, max_count)


def count_values(text: str) -> int:
    """Estimate the number of lists and numbers in JSON text without parsing it."""
    return text.count("[") + text.count("{") + text.count(",")


def check_count(column: str, count: int, max_count: int | None, what: str = "prompts") -> None:
    """Raise BadInput if `count` exceeds `max_count`; None means no limit.

    Args:
        column: name of the column, for the error message.
        count: number of items.
        max_count: maximum number of items.
        what: plural noun for the items, for the error message.
    """
    with reading(column):
        check_length(count, max_count, what)


def parse(value: object, form: str, max_count: int | None = None) -> Any:
    """Parse a cell like `parse_cell`, but raise Mismatch instead of BadInput."""
    if is_missing(value):
        return None
    if isinstance(value, str):
        values = count_values(value)
        if values > MAX_VALUES:
            raise Mismatch(f"JSON of at most {MAX_VALUES:,} lists and numbers", got=f"{values:,}")
        try:
            value = json_text.loads(value)
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
    """Convert nested lists, arrays and tensors to nested lists of Python's own numbers."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)) or type(value).__module__.partition(".")[0] == "torch":
        converted = value.tolist()
        return _plain(converted) if isinstance(converted, list) else converted
    return float(value) if isinstance(value, Decimal) else value
