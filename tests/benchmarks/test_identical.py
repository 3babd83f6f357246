"""`python -m benchmarks.identical` finds the first difference between two packaged models."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from benchmarks import identical
from benchmarks.identical import first_difference


def test_reports_the_first_difference_and_its_place(
    packaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the copy, polygons begin with a space. All earlier answers are identical."""
    copy = shutil.copytree(packaged, tmp_path / "copy")
    (code,) = copy.glob("code/*/masks.py")
    text = code.read_text()
    polygons = "msgspec.json.encode(polygons)"
    assert polygons in text
    code.write_text(text.replace(polygons, '" " + ' + polygons))
    requests = identical.requests()[:3]
    old, new = (identical.answer(model, sys.executable, requests) for model in (packaged, copy))
    assert not identical.compare(old, new)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "identical    prompts, 1 mask, png",
        "identical    prompts, 1 mask, rle",
        "different    prompts, 1 mask, polygon",
    ]
    place = "rows[0].predictions[0].mask_per_prediction[0].encoded_binary_mask, from character 0 of "
    assert place in lines[2] and " became ' [[" in lines[2]


def test_a_folder_without_a_model_fails(packaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert identical.main([str(tmp_path), str(packaged)]) == 2
    assert "MLmodel" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ({"a": [1, None, "x"]}, {"a": [1, None, "x"]}, None),
        (1, 1.0, "at: 1 became 1.0"),
        (0.0, -0.0, "at: 0.0 became -0.0"),
        ([1], [1, 2], "at[1]: absent became 2"),
        ({"a": 1}, {}, "at.a: 1 became absent"),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, "names of at[0], from character 0 of 1 and 1: 'a' became 'b'"),
        ({"a": [{"b": True}]}, {"a": [{"b": 1}]}, "at.a[0].b: True became 1"),
        ("abcd", "abxd", "at, from character 2 of 4 and 4: 'cd' became 'xd'"),
        ("ab", "abc", "at, from character 2 of 2 and 3: '' became 'c'"),
    ],
)
def test_describes_the_first_difference_of_two_values(old: object, new: object, difference: str | None) -> None:
    assert first_difference(old, new, "at") == difference
