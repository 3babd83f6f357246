"""Tables of requests: names in another spelling, look-alikes, labels, and lines that do not fit, in every form."""

from __future__ import annotations

import io
from typing import Any

import pandas as pd
import pytest

from sam_endpoint.model.errors import BadInput, BadParameter, BadRequest, describe_name
from sam_endpoint.scoring.tables import check_params, read_csv, read_parquet, read_table

IMAGE = "aGVsbG8="


def table_of(form: str, name: str) -> pd.DataFrame:
    """Read a row with an image, and a box under this name, from one of the forms."""
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
def test_another_spelling_is_read(form: str, name: str) -> None:
    table = table_of(form, name)
    assert sorted(table.columns) == ["image", "input_boxes"]
    assert table["input_boxes"].tolist()[-1] == "[1, 2, 3, 4]"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["input_box", "Input_Boxs", "inputboxes", "bbox"])
def test_a_look_alike_is_refused_by_name(form: str, name: str) -> None:
    with pytest.raises(BadInput, match=f"column '{name.lower()}': expected the name 'input_boxes'"):
        table_of(form, name)


@pytest.mark.parametrize("form", FORMS)
def test_other_columns_are_left_out(form: str) -> None:
    assert list(table_of(form, "comment").columns) == ["image"]


@pytest.mark.parametrize(
    "value",
    [{"columns": ["image", "Image"], "data": [["a", "b"]]}, [{"image": "a", "IMAGE": "b"}]],
    ids=["split", "records"],
)
def test_one_column_twice_is_refused(value: Any) -> None:
    with pytest.raises(BadInput, match="column 'image': expected one column of this name, got 2"):
        read_table(value, "input_data")
    with pytest.raises(BadInput, match="column 'image': expected one column of this name, got 2"):
        read_csv(b"image,input_boxes,image\na,b,c\n")


def test_values_stay_as_they_came() -> None:
    rows = [{"image": "a", "multimask_output": True}, {"image": "b", "multimask_output": None}, {"image": "c"}]
    assert read_table(rows, "input_data")["multimask_output"].tolist() == [True, None, None]
    assert read_csv(b"\xef\xbb\xbfimage,image_id\n007,1e3\n")["image_id"].tolist() == ["1e3"]


@pytest.mark.parametrize(
    ("index", "labels"),
    [([7, 3], [7, 3]), (["secret", "b"], [0, 1]), ([1, 2.5], [0, 1]), ([True, False], [0, 1]), ([1, 10**20], [0, 1])],
)
def test_labels_that_are_no_numbers_are_counted(index: list[Any], labels: list[int]) -> None:
    table = read_table({"columns": ["image"], "index": index, "data": [["a"], ["b"]]}, "input_data")
    assert table.index.tolist() == labels


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "image,input_boxes\na,b\nc,[[1,2,3,4]]\n",
            "line 3 has 5 fields, the header has 2; a field that contains a comma",
        ),
        ("image,input_boxes\nc,[[1,2,3,4]]\n", "text of 32 characters that cannot be read as CSV: line 2 has 5 fields"),
        ('image,input_boxes\na,"b\n', "a quoted field in or before line 2 is malformed or has no closing quote"),
        ("", "a header of columns (image, input_points, input_boxes"),
        ("image" + ",x" * 1000 + "\n", "at most 1,000 columns, got 1,001"),
    ],
)
def test_csv_that_does_not_fit_its_header(text: str, said: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read_csv(text.encode())
    assert said in str(refused.value)


def test_a_long_field_is_read() -> None:
    assert len(read_csv(f'image,input_boxes\n{"x" * 500_000},"[1,2,3,4]"\n'.encode())["image"][0]) == 500_000


def test_an_unknown_name_is_repeated_only_if_it_resembles_a_known_one() -> None:
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
