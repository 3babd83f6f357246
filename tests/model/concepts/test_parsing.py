"""The concept columns of a row, and their errors."""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sam_endpoint.model.concepts.parsing import MAX_TEXT, MAX_TEXTS, parse_concepts
from sam_endpoint.model.errors import BadInput
from sam_endpoint.model.images import ImageLimits, ImageReader
from sam_endpoint.model.rows import Row, read_row

BOX = [10, 10, 50, 50]


def read(**cells: Any) -> Row:
    return read_row(0, {"image": b"image", **cells}, ImageReader(ImageLimits(local_paths=True)).reference)


@pytest.mark.parametrize(
    "cell",
    ["cup", '"cup"', '["cup"]', ["cup"], ("cup",), np.array(["cup"]), pd.Series(["cup"]).to_numpy(), " cup\n"],
)
def test_a_text_may_be_plain_json_or_a_list(cell: object) -> None:
    (concept,) = parse_concepts(cell, None, None) or []
    assert concept.text == "cup" and concept.boxes.shape == (0, 4)


@pytest.mark.parametrize("text", ["Kaffeetasse", "咖啡杯", "ถ้วยกาแฟ", "فنجان", "☕", "👩‍👩‍👧", "क्षत्रिय", "3 cups"])
def test_texts_of_all_scripts_are_accepted(text: str) -> None:
    (concept,) = parse_concepts(text, None, None) or []
    assert concept.text == unicodedata.normalize("NFC", text)


def test_a_decomposed_text_is_composed_and_spaces_are_single() -> None:
    (concept,) = parse_concepts("cafe\u0301  au\tlait", None, None) or []
    assert concept.text == "caf\u00e9 au lait"


def test_boxes_with_a_text_belong_to_it_and_boxes_alone_are_a_concept() -> None:
    (both,) = parse_concepts("cup", f"[{BOX}, [0, 0, 5, 5]]", "[1, 0]") or []
    assert both.text == "cup" and both.boxes.tolist() == [BOX, [0, 0, 5, 5]] and both.labels.tolist() == [1, 0]
    (alone,) = parse_concepts(None, BOX, None) or []
    assert alone.text is None and alone.boxes.tolist() == [BOX] and alone.labels.tolist() == [1]


def test_missing_and_empty_cells() -> None:
    assert parse_concepts(None, None, None) is None
    assert parse_concepts(float("nan"), "null", "") is None
    assert parse_concepts([], None, None) == parse_concepts(None, "[]", None) == []
    assert read(input_text=None).is_everything
    assert not read(input_text=[]).is_everything
    assert not read(input_text="", input_boxes=[BOX]).is_everything


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (
            {"input_text": " "},
            "'input_text': expected a text, or null for every object .*, got an empty text",
        ),
        ({"input_text": ["cup", ""]}, "'input_text': expected a text with a.*, got an empty text"),
        ({"input_text": "\u200b\u200d"}, "'input_text': expected a text with .*, got text of 2 characters without"),
        ({"input_text": "caf\ud800"}, "unpaired surrogates, got text of 4 characters with some"),
        ({"input_text": "a\0b"}, "without control characters"),
        ({"input_text": "a" * 10_000}, f"at most {MAX_TEXT} characters, got text of 10000 characters"),
        ({"input_text": ["cup"] * 200}, rf"at most {MAX_TEXTS} texts in a row \(send several rows\), got 200"),
        ({"input_text": 7}, "'input_text': expected one text .*, got the number 7"),
        ({"input_text": [["cup"]]}, "'input_text': expected one text .*, got a list of 1"),
        ({"input_text": '["cup"'}, "'input_text': .* that is not JSON"),
        ({"input_text": "cup", "input_points": [[5, 5]]}, "'input_text': expected either concepts or points, .* both"),
        ({"input_exemplars": [BOX], "input_boxes": [BOX]}, "'input_exemplars': expected either concepts or points"),
        ({"input_text": ["a", "b"], "input_exemplars": [BOX]}, "'input_text': expected at most 1 text beside input_ex"),
        ({"input_exemplars": [[1, 2, 3]]}, "'input_exemplars': expected .n, 4. numbers .* got a list of 3"),
        ({"input_exemplars": [[9, 9, 5, 20]]}, "'input_exemplars': expected x1,y1,x2,y2 with x2 > x1"),
        ({"input_exemplars": [[9, 9, float("nan"), 20]]}, "'input_exemplars': expected finite coordinates"),
        ({"input_exemplars": [BOX], "input_exemplar_labels": [1, 0]}, "expected 1 labels, one per box .* got 2 labels"),
        ({"input_exemplars": [BOX], "input_exemplar_labels": [2]}, "each 1 for an example or 0 for a counter-example"),
        (
            {"input_exemplars": [BOX], "input_exemplar_labels": [0]},
            "at least one example .*, got only counter-ex",
        ),
        ({"input_exemplar_labels": [1]}, "'input_exemplar_labels': expected input_exemplars for the labels"),
        (
            {"input_exemplar_image": "sheet"},
            "'input_exemplars': expected boxes around examples in the image of",
        ),
        (
            {"input_exemplars": [BOX], "input_exemplar_image": 1j},
            "'input_exemplar_image': expected an image_id, or base64 .* got a complex",
        ),
    ],
)
def test_bad_cells_are_errors_that_name_the_column(cells: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read(**cells)


def test_an_image_of_examples_is_an_id_a_path_or_an_image() -> None:
    for cell, kind in (
        ("sheet", "id"),
        (7, "id"),
        ("samples/coins.png", "path"),
        (b"file", "content"),
        ("A" * 600, "base64"),
    ):
        ref = read(input_exemplars=[BOX], input_exemplar_image=cell).examples_image
        assert ref is not None and ref.kind == kind
