"""The pure modules of the page, tested in the Node that Playwright includes, and the rules for the page's files."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import playwright
import pytest
from pycocotools import mask as coco

from sam_endpoint.scoring.online import page
from tests.conftest import ROOT

NODE = Path(playwright.__file__).parent / "driver" / "node"
MAX_LINES = 300
FOLDERS = ("formats", "masks", "project")
PURE = (
    *sorted(str(file.relative_to(page.FILES)) for folder in FOLDERS for file in (page.FILES / folder).glob("*.js")),
    *(
        "endpoint/lines.js",
        "endpoint/models.js",
        "endpoint/requests.js",
        "store.js",
        "video/formats.js",
        "video/tracks.js",
        "images/exif.js",
        "view/geometry.js",
        "view/styles.js",
    ),
)


def masks() -> dict[str, np.ndarray]:
    """Return (height, width) bool masks by name."""
    rng = np.random.default_rng(5)
    blob = np.zeros((40, 30), bool)
    blob[3:37, 5:28] = True
    blob[10:20, 12:16] = False
    return {
        "blob": blob,
        "noise": rng.random((17, 23)) > 0.5,
        "empty": np.zeros((6, 9), bool),
        "full": np.ones((6, 9), bool),
        "first and last pixel": np.eye(7, dtype=bool)[[0, 1, 1, 1, 1, 1, 6]],
        "long runs": np.arange(900).reshape(30, 30) % 450 > 3,
        "one row": rng.random((1, 50)) > 0.3,
    }


def test_the_tests_of_pure_modules_pass_in_node(tmp_path: Path) -> None:
    cases = {}
    for name, mask in masks().items():
        rle = coco.encode(np.asfortranarray(mask, np.uint8))
        rows = ["".join("01"[int(pixel)] for pixel in row) for row in mask]
        cases[name] = {"size": rle["size"], "counts": rle["counts"].decode(), "rows": rows}
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    tests = sorted((ROOT / "tests/scoring/online/page").glob("*.test.mjs"))
    done = subprocess.run(
        [NODE, "--test", "--test-reporter=tap", *tests],
        env={**os.environ, "CASES": str(tmp_path / "cases.json"), "POLYGONS": str(tmp_path / "polygons.json")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert int(re.findall(r"# pass (\d+)", done.stdout)[-1]) > 100
    for case in json.loads((tmp_path / "polygons.json").read_text()):
        mask = masks()[case["name"]]
        for polygons in (case["polygons"], case["single"]):
            flat = [[value for corner in polygon for value in corner] for polygon in polygons]
            rle = coco.merge(coco.frPyObjects(flat, *mask.shape)) if flat else None
            assert np.array_equal(coco.decode(rle) if rle else np.zeros(mask.shape), mask), case["name"]


@pytest.mark.parametrize(
    "file", sorted(file for file in page.FILES.rglob("*") if file.is_file()), ids=lambda file: file.name
)
def test_files_are_short_and_ask_for_nothing_absolute(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= MAX_LINES
    assert not re.findall(r"""(?:src|href|fetch\(|from|import|url\()\s*=?\s*["'`(]?(?:/|https?:)""", text)


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_use_neither_the_document_nor_the_network(name: str) -> None:
    text = re.sub(r"//.*|/\*(?s:.*?)\*/", "", (page.FILES / name).read_text())
    assert "export" in text
    assert not re.findall(r"\b(?:document|window|fetch|performance|navigator|localStorage|sessionStorage)\b", text)
    for imported in re.findall(r'\bfrom "([^"]+)"', text):
        target = ((page.FILES / name).parent / imported).resolve().relative_to(page.FILES.resolve())
        assert str(target) in PURE, f"{name} imports {target}"
    assert len(re.findall(r"\bimport\b", text)) == len(re.findall(r'\bimport [^;]+ from "', text))
