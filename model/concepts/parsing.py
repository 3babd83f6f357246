"""Parse and check the concept columns of a row: texts, and boxes around examples."""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np

from ..prompts.cells import Mismatch, check_count, is_empty, is_missing, parse, parse_cell, reading
from ..prompts.parsing import read_boxes
from .values import Concept

MAX_TEXTS = 16  # texts in one row
MAX_TEXT = 200  # characters of one text; a description of objects, not an essay
TEXT_FORM = 'one text such as "coffee cup", or a list of texts'
LABELS_FORM = "(n,) labels, each 1 for an example or 0 for a counter-example"
BOXES_FORM = "(n, 4) numbers x1,y1,x2,y2 in pixels around examples"


def parse_concepts(texts: object, boxes: object, labels: object, max_count: int | None = None) -> list[Concept] | None:
    """Parse the concepts of one row from its columns.

    Args:
        texts: one text, or a list of texts; a list may be JSON text.
        boxes: (n, 4) or (4,) x1,y1,x2,y2 around examples in pixels, as JSON text, nested lists or an array.
        labels: (n,) labels of the boxes: 1 for an example, 0 for a counter-example. By default, all labels are 1.
        max_count: maximum number of boxes; None for no limit.

    Returns:
        One concept per text. Boxes belong to the only text; without a text, they are the only concept. An empty list if
        the texts or the boxes are an empty list, and None if the row has no concepts.

    Raises:
        BadInput: a value has the wrong form, or the columns do not fit together. The error names the column.

    Example:
        >>> [concept.text for concept in parse_concepts('["cup", "spoon"]', None, None)]
        ['cup', 'spoon']
        >>> parse_concepts(None, [[10, 20, 30, 40]], None)[0].labels.tolist()
        [1]
    """
    with reading("input_text"):
        names = _read_texts(texts)
    box_lists = parse_cell("input_exemplars", boxes, BOXES_FORM, max_count)
    with reading("input_exemplars"):
        box_set = read_boxes(box_lists, BOXES_FORM)
    with reading("input_exemplar_labels"):
        label_set = _read_labels(labels, None if box_set is None else len(box_set))
    if box_set is None:
        empty = is_empty(texts) or is_empty(boxes)
        return [Concept(name) for name in names] if names else [] if empty else None
    check_count("input_text", len(names), 1, "text beside input_exemplars, because examples belong to one concept")
    if not names and not (label_set == 1).any():
        with reading("input_exemplar_labels"):
            raise Mismatch("at least one example (label 1), or an input_text", got="only counter-examples")
    return [Concept(names[0] if names else None, box_set, label_set)]


def _read_texts(value: object) -> list[str]:
    if isinstance(value, str) and not is_missing(value) and not value.lstrip().startswith(("[", '"')):
        return [_read_text(value)]
    parsed = parse(value, TEXT_FORM)
    items = [] if parsed is None else parsed if isinstance(parsed, list) else [parsed]
    if len(items) > MAX_TEXTS:
        raise Mismatch(f"at most {MAX_TEXTS} texts in a row (send several rows)", got=str(len(items)))
    return [_read_text(item) for item in items]


def _read_text(value: Any) -> str:
    """Check a text, and return it in Unicode's composed form (NFC) with single spaces."""
    if not isinstance(value, str):
        raise Mismatch(TEXT_FORM, value, "{} where a text is expected")
    if len(value) > MAX_TEXT:
        raise Mismatch(f"a text of at most {MAX_TEXT} characters", value)
    text = " ".join(unicodedata.normalize("NFC", value).split())
    categories = {unicodedata.category(character) for character in text}
    if categories & {"Cc", "Cs"}:
        raise Mismatch("a text without control characters and unpaired surrogates", value, "{} with some")
    if not any(category[0] in "LNS" for category in categories):
        raise Mismatch(
            "a text with at least one letter, digit or symbol", value, "{} without" if text else "an empty text"
        )
    return text


def _read_labels(value: object, count: int | None) -> np.ndarray:
    """Parse the labels of `count` boxes; None: there are no boxes."""
    labels = parse(value, LABELS_FORM)
    if labels is None:
        return np.ones(count or 0, np.int32)
    if count is None:
        raise Mismatch("input_exemplars for the labels", got="labels without boxes")
    if not isinstance(labels, list) or any(type(label) not in (int, float) or label not in (0, 1) for label in labels):
        raise Mismatch(LABELS_FORM, labels, "" if not isinstance(labels, list) else "{} with another value")
    if len(labels) != count:
        raise Mismatch(f"{count} labels, one per box of input_exemplars", got=f"{len(labels)} labels")
    return np.asarray(labels, np.int32)
