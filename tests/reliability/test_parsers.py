"""The parsers of cells and params accept arbitrary values or raise BadInput, and they do so quickly."""

from __future__ import annotations

import json
import math
import os
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sam_endpoint.model.errors import BadInput, BadParameter
from sam_endpoint.model.images import ImageReader
from sam_endpoint.model.params import Params
from sam_endpoint.model.prompts import parsing
from sam_endpoint.model.rows import Row, read_rows, unfold

NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.integers(-5, 5),
    st.sampled_from([10**400, -(10**400), 2**63, 1e308, math.nan, math.inf, -0.0, True, None]),
)
SCALARS = st.one_of(NUMBERS, st.text(max_size=8), st.binary(max_size=8))
# Mostly nested lists of numbers, which resemble prompts, and some other values.
NESTED = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(st.lists(NUMBERS, min_size=2, max_size=4), max_size=4),
        st.dictionaries(st.text(max_size=4), inner, max_size=3),
        st.tuples(inner, inner),
    ),
    max_leaves=24,
)
CELLS = st.one_of(
    NESTED,
    NESTED.map(lambda value: json.dumps(value, default=str)),
    NESTED.map(repr),
    st.lists(st.lists(st.floats(width=32), min_size=2, max_size=2)).map(np.array),
    st.text(),
)
EXAMPLES = 30 * int(os.environ.get("FUZZ_EXAMPLES", "10"))
MANY = settings(max_examples=EXAMPLES, deadline=2000, suppress_health_check=list(HealthCheck))


@MANY
@given(CELLS, CELLS, CELLS, CELLS)
def test_parsed_prompts_are_finite_and_errors_are_short(points: Any, labels: Any, boxes: Any, masks: Any) -> None:
    for given_points, given_labels, given_boxes, given_masks in (
        (points, None, None, None),
        (None, None, boxes, None),
        (points, labels, boxes, masks),
    ):
        try:
            prompts = parsing.parse_prompts(given_points, given_labels, given_boxes, given_masks)
        except BadInput as error:
            assert error.column.startswith("input_") or error.column == "mask_input"
            assert len(str(error)) < 300 and "\n" not in str(error)
            continue
        for prompt in prompts:
            assert prompt.points is None or (prompt.points.shape[1] == 2 and np.isfinite(prompt.points).all())
            assert prompt.box is None or (prompt.box.shape == (4,) and np.isfinite(prompt.box).all())


@MANY
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["image", "image_id", "input_points", "input_labels", "input_boxes", "multimask_output"]),
            CELLS,
        ),
        min_size=1,
        max_size=4,
    )
)
def test_read_rows_returns_rows_or_short_errors(cells: list[dict[str, Any]]) -> None:
    frame = pd.DataFrame(cells, dtype=object)
    try:
        rows = read_rows(unfold(frame), ImageReader().reference)
    except BadInput:
        return
    assert all(isinstance(row, (Row, BadInput)) for row in rows)
    assert all(len(str(row)) < 400 for row in rows if isinstance(row, BadInput))


@MANY
@given(st.dictionaries(st.one_of(st.sampled_from(list(Params.__dataclass_fields__)), st.text()), CELLS))
def test_read_params_returns_params_or_a_short_error(given_params: dict[str, Any]) -> None:
    try:
        assert isinstance(Params.read(given_params), Params)
    except BadParameter as error:
        assert len(str(error)) < 600


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("[" * 100_000, "nested too deep|not JSON|JSON"),
        ("[[" + "1" * 10_000 + ", 2]]", "number"),
        ("[[NaN, 1]]", "finite"),
        ("[[Infinity, 1]]", "finite"),
        ("[[1e400, 1]]", "finite"),
        ("[[\uff11, \uff12]]", "JSON"),
        ("[[1, 2]] \u0000", "JSON"),
        ("{'a': 1}", "JSON"),
        ([[10**400, 1]], "number"),
        ([[[1, 2], [3]]], "points"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_rejects_cells_that_are_hard_to_parse(cell: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parsing.parse_prompts(cell, None, None, None)


@pytest.mark.parametrize(
    "text",
    ["[" + "[[1, 2]], " * 999_999 + "[[1, 2]]]", "[[" + "[1, 2], " * 999_999 + "[1, 2]]]"],
    ids=["prompts", "points"],
)
def test_rejects_a_million_prompts_or_points_before_parsing_them(text: str) -> None:
    with pytest.raises(BadInput, match=r"JSON of at most 1,000,000 lists and numbers, got [34],000,00[01]"):
        parsing.parse_prompts(text, None, None, None, max_count=1000)
