"""Tables of requests in every form: spellings of column names, misspelt names, labels of rows, and broken CSV."""

from __future__ import annotations

import io
from typing import Any

import pandas as pd
import pytest

from sam_endpoint.model.errors import BadInput, BadParameter, BadRequest, describe_name
from sam_endpoint.scoring.tables import check_params, read_csv, read_parquet, read_table

IMAGE = "aGVsbG8="


def table_of(form: str, name: str) -> pd.DataFrame:
    """Read a table in one of the forms. Its row has an image, and a box in the column `name`."""
    row: dict[str, Any] = {"image": IMAGE, name: "[1, 2, 3, 4]"}
    buffer = io.BytesIO()
    match form:
        case "records":
            return read_table([{"image": IMAGE}, row], "input_data")
        case "split":
            return read_table({"columns": list(row), "data": [list(row.values())]}, "dataframe_split")
        case "columns":
            return read_table({key: [value] for key, value in row.items()}, "inputs")
        case "a row":
            return read_table(row, "inputs")
        case "csv":
            return read_csv(pd.DataFrame([row]).to_csv(index=False).encode())
        case _:
            pd.DataFrame([row]).to_parquet(buffer)
            return read_parquet(buffer.getvalue())


FORMS = ["records", "split", "columns", "a row", "csv", "parquet"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["input_boxes", " Input_Boxes ", "INPUT-BOXES", "input boxes"])
def test_accepts_other_spellings_of_a_column(form: str, name: str) -> None:
    table = table_of(form, name)
    assert sorted(table.columns) == ["image", "input_boxes"]
    assert table["input_boxes"].tolist()[-1] == "[1, 2, 3, 4]"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["input_box", "Input_Boxs", "inputboxes", "bbox"])
def test_rejects_a_misspelt_column_with_the_right_name(form: str, name: str) -> None:
    with pytest.raises(BadInput, match=f"column '{name.lower()}': expected the name 'input_boxes'"):
        table_of(form, name)


@pytest.mark.parametrize("form", FORMS)
def test_leaves_out_other_columns(form: str) -> None:
    assert list(table_of(form, "comment").columns) == ["image"]


@pytest.mark.parametrize(
    "value",
    [{"columns": ["image", "Image"], "data": [["a", "b"]]}, [{"image": "a", "IMAGE": "b"}]],
    ids=["split", "records"],
)
def test_rejects_two_columns_of_the_same_name(value: Any) -> None:
    with pytest.raises(BadInput, match="column 'image': expected one column of this name, got 2"):
        read_table(value, "input_data")
    with pytest.raises(BadInput, match="column 'image': expected one column of this name, got 2"):
        read_csv(b"image,input_boxes,image\na,b,c\n")


def test_keeps_the_values_of_cells() -> None:
    rows = [{"image": "a", "multimask_output": True}, {"image": "b", "multimask_output": None}, {"image": "c"}]
    assert read_table(rows, "input_data")["multimask_output"].tolist() == [True, None, None]
    for marks in range(4):
        assert read_csv(b"\xef\xbb\xbf" * marks + b"image,image_id\n007,1e3\n")["image_id"].tolist() == ["1e3"]


@pytest.mark.parametrize(
    ("index", "labels"),
    [([7, 3], [7, 3]), (["secret", "b"], [0, 1]), ([1, 2.5], [0, 1]), ([True, False], [0, 1]), ([1, 10**20], [0, 1])],
)
def test_replaces_labels_that_are_not_whole_numbers_by_row_numbers(index: list[Any], labels: list[int]) -> None:
    table = read_table({"columns": ["image"], "index": index, "data": [["a"], ["b"]]}, "input_data")
    assert table.index.tolist() == labels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "image,input_boxes\na,b\nc,[[1,2,3,4]]\n",
            "line 3 has 5 fields, the header has 2; a field that contains a comma",
        ),
        ("image,input_boxes\nc,[[1,2,3,4]]\n", "text of 32 characters that cannot be read as CSV: line 2 has 5 fields"),
        ('image,input_boxes\na,"b\n', "a quoted field in or before line 2 is malformed or has no closing quote"),
        ("", "a header of columns (image, input_points, input_boxes"),
        ("image" + ",x" * 1000 + "\n", "at most 1,000 columns, got 1,001"),
        ("image" + ",x" * 60_000 + "\na\n", "expected a CSV header of at most 100,000 characters, got a longer one"),
        ('image,"' + "x\n" * 60_000, "expected a CSV header of at most 100,000 characters, got a longer one"),
    ],
)
def test_rejects_csv_that_does_not_match_its_header(text: str, message: str) -> None:
    with pytest.raises(BadRequest) as raised:
        read_csv(text.encode())
    assert message in str(raised.value)


def test_reads_a_long_field() -> None:
    assert len(read_csv(f'image,input_boxes\n{"x" * 500_000},"[1,2,3,4]"\n'.encode())["image"][0]) == 500_000


def test_errors_repeat_an_unknown_name_only_if_it_resembles_a_known_one() -> None:
    assert describe_name("mask_encodng", ["mask_encoding"]) == "'mask_encodng' (did you mean 'mask_encoding'?)"
    assert describe_name("a secret", ["mask_encoding"]) == "text of 8 characters"
    assert describe_name("mask_encoding" * 20, ["mask_encoding"]) == "text of 260 characters"
    with pytest.raises(
        BadParameter, match=r"unknown parameter text of 6 characters; the known parameters are mask_encoding, "
    ):
        check_params({"secret": 1})
    with pytest.raises(
        BadParameter, match=r"unknown parameter 'on-error' \(did you mean 'on_error'\?\); the known parameters are"
    ):
        check_params({"on-error": "record"})
