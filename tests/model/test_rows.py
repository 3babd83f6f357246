"""Names of columns: the spellings that are accepted, and the names that are rejected as misspelt."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sam_endpoint.model.errors import BadInput
from sam_endpoint.model.params import Params
from sam_endpoint.model.rows import column_names
from sam_endpoint.model.segmenter import Segmenter
from tests.engines import scorer_of


@pytest.mark.parametrize(
    "name", [" input_boxes", "Input_Boxes", "INPUT BOXES", "input-boxes", "\ufeffinput_boxes", "\tinput_boxes\r"]
)
def test_accepts_other_spellings_of_a_column(name: str) -> None:
    assert column_names(["image", name, "Label"]) == {"image": "image", name: "input_boxes", "Label": "Label"}


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("input_box", "input_boxes"),
        ("inputBoxes", "input_boxes"),
        ("Input_Point", "input_points"),
        ("input_label", "input_labels"),
        ("mask_inputs", "mask_input"),
        ("multimask_outputs", "multimask_output"),
        ("bboxes", "input_boxes"),
        ("points", "input_points"),
    ],
)
def test_rejects_a_name_that_resembles_a_column_of_prompts(name: str, column: str) -> None:
    with pytest.raises(BadInput, match=f"column '{name.lower()}': expected the name '{column}'"):
        column_names(["image", name])


@pytest.mark.parametrize("names", [["image", "label"], ["image", "input_boxes", "bbox"], ["image", "id", "split", 3]])
def test_accepts_other_columns(names: list[object]) -> None:
    assert column_names(names) == {name: name for name in names}


@pytest.mark.parametrize("names", [["image", "Image"], ["image", "image"], ["input_boxes", "input boxes", "image"]])
def test_rejects_two_columns_of_the_same_name(names: list[str]) -> None:
    with pytest.raises(BadInput, match="expected one column of this name, got 2"):
        column_names(names)


def test_a_scorer_checks_the_names_of_columns(tiny: Segmenter, disc: tuple[bytes, np.ndarray]) -> None:
    scorer, box = scorer_of(tiny), [[68, 38, 153, 123]]
    answer = scorer.score_frame(pd.DataFrame([{" Image": disc[0], "INPUT_BOXES": box}]), Params())
    assert len(answer["predictions"][0]) == 1
    with pytest.raises(BadInput, match="column 'input_box'"):
        scorer.score_frame(pd.DataFrame([{"image": disc[0], "input_box": box}]), Params())
