"""Parsing of prompts: the forms in which they arrive, and the errors for bad prompts."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from sam_endpoint.model import masks
from sam_endpoint.model.errors import BadInput
from sam_endpoint.model.prompts import parsing

FORMS: dict[str, Callable[[Any], Any]] = {
    "lists": lambda value: value,
    "JSON text": json.dumps,
    "tuples": lambda value: tuple(tuple(item) if isinstance(item, list) else item for item in value),
    "arrays in arrays, as parquet gives them": lambda value: _nested_arrays(value),
}


def _nested_arrays(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    array = np.empty(len(value), dtype=object)
    array[:] = [_nested_arrays(item) for item in value]
    return array


def present(part: np.ndarray | None) -> np.ndarray:
    """Return a part of a prompt after checking that the prompt has it."""
    assert part is not None
    return part


@pytest.mark.parametrize("form", list(FORMS))
def test_parses_points_of_two_prompts_in_every_form(form: str) -> None:
    as_form = FORMS[form]
    prompts = parsing.parse_prompts(as_form([[[280, 320]], [[300, 350]]]), as_form([[1], [0]]), None, None)
    assert [present(prompt.points).tolist() for prompt in prompts] == [[[280, 320]], [[300, 350]]]
    assert [present(prompt.labels).tolist() for prompt in prompts] == [[1], [0]]


NUMBERS: dict[str, Callable[[int], Any]] = {
    "np.int64": np.int64,
    "np.float32": np.float32,
    "np.array": np.array,
    "Decimal": Decimal,
    "torch": torch.tensor,
}


@pytest.mark.parametrize("number", list(NUMBERS))
def test_parses_numbers_of_other_libraries(number: str) -> None:
    to_number = NUMBERS[number]
    (prompt,) = parsing.parse_prompts(
        [[[to_number(48), to_number(32)]]],
        [[to_number(1)]],
        [[to_number(30), to_number(14), to_number(66), to_number(50)]],
        None,
    )
    assert present(prompt.box).tolist() == [30, 14, 66, 50]
    assert present(prompt.points).tolist() == [[48, 32]] and present(prompt.labels).tolist() == [1]


@pytest.mark.parametrize("boxes", [torch.tensor([[30, 14, 66, 50]]), [torch.tensor([30.0, 14, 66, 50])]])
def test_parses_tensors(boxes: Any) -> None:
    (prompt,) = parsing.parse_prompts(None, None, boxes, None)
    assert present(prompt.box).tolist() == [30, 14, 66, 50]


@pytest.mark.parametrize("form", list(FORMS))
def test_parses_prompts_with_different_numbers_of_points(form: str) -> None:
    prompts = parsing.parse_prompts(FORMS[form]([[[1, 2]], [[3, 4], [5, 6]]]), None, None, None)
    assert [present(prompt.points).shape for prompt in prompts] == [(1, 2), (2, 2)]
    assert [present(prompt.labels).tolist() for prompt in prompts] == [[1], [1, 1]]


def test_points_without_a_prompt_level_are_one_prompt() -> None:
    (prompt,) = parsing.parse_prompts("[[1, 2], [3, 4]]", "[1, 0]", None, None)
    assert present(prompt.points).tolist() == [[1, 2], [3, 4]]
    assert present(prompt.labels).tolist() == [1, 0]


def test_parses_one_box_and_several_boxes() -> None:
    (prompt,) = parsing.parse_prompts(None, None, "[650, 900, 1000, 1250]", None)
    assert present(prompt.box).tolist() == [650, 900, 1000, 1250]
    assert len(parsing.parse_prompts(None, None, [[1, 2, 3, 4], [5, 6, 7, 8]], None)) == 2


def test_pairs_boxes_and_points_in_order() -> None:
    prompts = parsing.parse_prompts([[[1, 1]], [[2, 2]]], None, [[0, 0, 9, 9], [1, 1, 8, 8]], None)
    assert [(present(prompt.points).tolist(), present(prompt.box).tolist()) for prompt in prompts] == [
        ([[1, 1]], [0, 0, 9, 9]),
        ([[2, 2]], [1, 1, 8, 8]),
    ]


@pytest.mark.parametrize(
    "nothing", [None, "", "  ", "None", "null", "NaN", float("nan"), np.nan, pd.NA, pd.NaT, [], "[]"]
)
def test_empty_cells_are_no_prompts(nothing: object) -> None:
    assert parsing.parse_prompts(nothing, nothing, nothing, nothing) == []


def test_parses_mask_inputs_from_text_arrays_and_lists() -> None:
    logits = np.arange(16, dtype=np.float32).reshape(4, 4)
    text = masks.logits_to_text(logits)
    for value in (text, [text], json.dumps([text]), logits, logits.tolist(), logits[None], json.dumps(logits.tolist())):
        (prompt,) = parsing.parse_prompts(None, None, None, value)
        assert np.array_equal(present(prompt.mask), logits)


BAD_CELLS = [
    ("input_points", "[[1, 2", "not JSON"),
    ("input_points", "{}", "an object"),
    ("input_points", [1, 2], "nested 1 deep"),
    ("input_points", [[[[1, 2]]]], "nested 4 deep"),
    ("input_points", [[1, 2, 3]], "a list of 3 where 2 numbers are expected"),
    ("input_points", [[[1, 2]], [3, 4]], "where 2 numbers are expected"),
    ("input_points", [[["1", 2]]], "text of 1 characters where a number"),
    ("input_points", [[[True, 2]]], "true where a number"),
    ("input_points", [[[float("nan"), 2]]], "NaN"),
    ("input_points", "[[[Infinity, 2]]]", "inf"),
    ("input_points", [[[1e300, 2]]], "1e+300"),
    ("input_points", [[[10**400, 2]]], "a number too large"),
    ("input_points", [[[1, 2]], []], "an empty list"),
    ("input_points", "[" * 100_000, "not JSON"),
    ("input_boxes", [[1, 2, 3]], "a list of 3 where 4 numbers are expected"),
    ("input_boxes", [[[1, 2, 3, 4]]], "nested 3 deep"),
    ("input_boxes", [[5, 5, 5, 9]], "a box 5,5,5,9"),
    ("input_boxes", [[5, 9, 8, 9]], "x2 > x1 and y2 > y1"),
    ("input_boxes", [[0, 0, float("inf"), 9]], "finite"),
    ("input_labels", [[1, 1]], "one per point"),
    ("input_labels", [[1], [1]], "labels for 1 prompts"),
    ("input_labels", [[2]], "each one of 1, 0, -1, -10"),
    ("input_labels", [[10**400]], "a number too large"),
    ("input_points", "[" * 600 + "]" * 600, "nested"),
    ("input_labels", [["1"]], "text of 1 characters"),
    ("input_labels", [[[1]]], "nested 3 deep"),
    ("mask_input", "not base64!", "base64 text of a .npy"),
    ("mask_input", base64.b64encode(b"garbage").decode(), "base64 text of a .npy"),
    ("mask_input", [[[1.0, float("nan")]]], "NaN"),
    ("mask_input", [1.0, 2.0], "numbers of shape (2,)"),
    ("mask_input", [[["a"]]], "that is not a rectangular array of numbers"),
]


@pytest.mark.parametrize(("column", "value", "message"), BAD_CELLS, ids=str)
def test_rejects_bad_cells_with_a_short_message(column: str, value: Any, message: str) -> None:
    cells: dict[str, Any] = {"input_points": None, "input_labels": None, "input_boxes": None, "mask_input": None}
    if column == "input_labels":
        cells["input_points"] = [[[1, 2]]]
    cells[column] = value
    with pytest.raises(BadInput) as raised:
        parsing.parse_prompts(*cells.values())
    assert raised.value.column == column
    assert message in str(raised.value)
    assert len(str(raised.value)) < 300


def test_rejects_labels_without_points() -> None:
    with pytest.raises(BadInput, match="labels without points"):
        parsing.parse_prompts(None, [[1]], None, None)


def test_rejects_different_numbers_of_points_and_boxes() -> None:
    with pytest.raises(BadInput, match=r"as many boxes as prompts of points \(2\), got 1 boxes"):
        parsing.parse_prompts([[[1, 2]], [[3, 4]]], None, [[0, 0, 9, 9]], None)


def test_rejects_different_numbers_of_masks_and_boxes() -> None:
    with pytest.raises(BadInput, match=r"one mask per prompt \(1\), got 2 masks"):
        parsing.parse_prompts(None, None, [0, 0, 9, 9], np.zeros((2, 4, 4)))


def test_rejects_a_pickled_mask_input() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(BadInput, match="mask_input"):
        parsing.parse_prompts(None, None, None, base64.b64encode(buffer.getvalue()).decode())
