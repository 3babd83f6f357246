"""CVAT: the request of its interactors, and the functions that its published tools run."""

from __future__ import annotations

import base64
import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import yaml
from PIL import Image, ImageDraw

from sam_endpoint.model import masks
from tests import checkpoints, pictures
from tests.conftest import ROOT, client_python, run_with_clients, serve_endpoint
from tests.scoring.online.cvat_stand_in import LABEL, TASK, StandIn, serving

KEY = "correct-horse"
AUTH = {"x-api-key": KEY}
SCRIPT = Path(__file__).with_name("cvat_interaction.py")
FUNCTION = ROOT / "deploy" / "cvat" / "segment_anything.py"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An endpoint whose default model is the starter model."""
    log = tmp_path_factory.mktemp("endpoint") / "log"
    with serve_endpoint(log, "--public-metrics", "true", SAM_API_KEYS=KEY) as base:
        yield base


def post(url: str, body: Any, key: str = KEY) -> requests.Response:
    return requests.post(f"{url}/", json=body, headers={"x-api-key": key}, timeout=60)


def scored(url: str, image: bytes, **row: Any) -> np.ndarray:
    """The best mask of `/score` for a row of one prompt."""
    body: dict[str, Any] = {
        "input_data": [{"image": pictures.to_text(image), **row}],
        "params": {"mask_encoding": "rle"},
    }
    (answer,) = requests.post(f"{url}/score", json=body, headers=AUTH, timeout=60).json()
    best = max(answer["predictions"][0]["mask_per_prediction"], key=lambda mask: mask["iou_score"])
    return masks.decode(best["encoded_binary_mask"], "rle", tuple(best["size"]))


PROMPTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"pos_points": [[110, 80]]}, {"input_points": [[[110, 80]]]}),
    (
        {"pos_points": [[110, 80], [100.5, 70]], "neg_points": [[10, 10]], "obj_bbox": []},
        {"input_points": [[[110, 80], [100.5, 70], [10, 10]]], "input_labels": [[1, 1, 0]]},
    ),
    ({"pos_points": [], "neg_points": [], "obj_bbox": [[68, 38], [153, 123]]}, {"input_boxes": [[68, 38, 153, 123]]}),
    ({"obj_bbox": [68, 38, 153, 123], "threshold": 0.5}, {"input_boxes": [[68, 38, 153, 123]]}),
]


@pytest.mark.parametrize(("prompt", "row"), PROMPTS, ids=["point", "points", "box", "flat box"])
def test_an_interactors_request(url: str, disc: tuple[bytes, np.ndarray], prompt: Any, row: Any) -> None:
    answer = post(url, {"image": pictures.to_text(disc[0]), **prompt})
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"mask"}  # the starter model's features are none that the browser decodes
    mask = np.array(answer.json()["mask"])
    assert set(np.unique(mask)) == {0, 255}
    assert ((mask == 255) == scored(url, disc[0], **row)).all() and pictures.iou(mask == 255, disc[1]) > 0.7


PICTURE = pictures.to_text(pictures.disc()[0])


def wrong(said: str, image: Any = PICTURE, **body: Any) -> Any:
    return pytest.param({"image": image, **body}, said, id=said)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param({}, "image: Field required", id="nothing"),
        pytest.param([1], "valid dictionary", id="a list"),
        wrong("image: Input should be a valid string", 5),
        wrong("column 'image'", "SECRET", pos_points=[[1, 2]]),
        wrong("column 'pos_points': expected at least one point, or obj_bbox, got neither"),
        wrong("column 'pos_points': expected [[x, y], ...] in pixels", pos_points="SECRET"),
        wrong("column 'pos_points'", pos_points=[[1, "SECRET"]]),
        wrong("column 'pos_points'", neg_points=[[1, 2, 3]]),
        wrong("column 'obj_bbox'", obj_bbox=[[1, 2], [3]]),
        wrong("column 'obj_bbox'", obj_bbox=["SECRET", 1, 2, 3]),
        wrong("column 'obj_bbox'", obj_bbox="SECRET"),
    ],
)
def test_wrong_requests(url: str, body: Any, said: str) -> None:
    answer = post(url, body)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"].startswith("text/plain") and said in answer.text
    assert "SECRET" not in answer.text and len(answer.text) < 500


def test_only_requests_for_masks_need_a_key(url: str) -> None:
    assert post(url, {}, "wrong").status_code == 401 and "an API key is needed" in post(url, {}, "").text
    for method in ("GET", "HEAD"):
        assert requests.request(method, f"{url}/", timeout=10).status_code == 200
    assert requests.options(f"{url}/", timeout=10).status_code == requests.put(f"{url}/", timeout=10).status_code == 405


def test_the_features_that_the_browser_decodes(disc: tuple[bytes, np.ndarray], tmp_path: Path) -> None:
    """A model of SAM's published shapes, of one narrow layer and random weights."""
    checkpoints.save_sam_of_published_shapes(tmp_path / "checkpoint")
    entry = {"checkpoint": str(tmp_path / "checkpoint"), "stands_in_for": ["sam/vit_h"]}
    (tmp_path / "catalog.yaml").write_text(yaml.safe_dump({"default": "large", "models": {"large": entry}}))
    image = pictures.to_text(disc[0])
    with serve_endpoint(tmp_path / "log", "--catalog", tmp_path / "catalog.yaml") as base:
        answer = post(base, {"image": image})
        assert answer.status_code == 200, answer.text
        assert set(answer.json()) == {"blob"}
        features = np.frombuffer(base64.b64decode(answer.json()["blob"]), "<f4").reshape(1, 256, 64, 64)
        body: dict[str, Any] = {
            "image": {"type": "base64", "value": image},
            "sam_version_id": "vit_h",
            "format": "binary",
        }
        embedded = requests.post(f"{base}/sam/embed_image", json=body, timeout=60)
        assert np.array_equal(features, np.load(io.BytesIO(embedded.content)))
        both = post(base, {"image": image, "pos_points": [[110, 80]]}).json()
        assert set(both) == {"mask", "blob"} and np.array(both["mask"]).shape == (160, 240)


def test_the_command_annotates_a_task(url: str, disc: tuple[bytes, np.ndarray], tmp_path: Path) -> None:
    other = Image.new("RGB", (240, 160), (214, 204, 190))
    ImageDraw.Draw(other).rectangle((30, 30, 110, 110), fill=(40, 90, 60))
    square = np.zeros((160, 240), bool)
    square[30:111, 30:111] = True
    both, first = StandIn([disc[0], pictures.to_bytes(other)], (240, 160)), StandIn([disc[0]], (240, 160))
    environment = {**os.environ, "HOME": str(tmp_path), "CVAT_ACCESS_TOKEN": "token"}
    polygons = ["--conv-mask-to-poly", "--conf-threshold", "0.5"]
    for stand_in, kind, options in ((both, "mask", []), (first, "polygon", polygons)):
        with serving(stand_in) as cvat:
            command = [str(client_python("tools").with_name("cvat-cli")), "--server-host", cvat]
            command += ["task", "auto-annotate", str(TASK), "--function-file", str(FUNCTION), *options]
            command += ["-p", f"url=str:{url}", "-p", f"key=str:{KEY}"]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        (upload,) = stand_in.annotations
        shapes = upload["shapes"]
        assert {(shape["type"], shape["label_id"], shape["source"]) for shape in shapes} == {(kind, LABEL, "auto")}
        for frame, truth in enumerate((disc[1], square)[: stand_in.frames]):
            drawn = [read(shape) for shape in shapes if shape["frame"] == frame]
            assert max(pictures.iou(mask, truth) for mask in drawn) > 0.8


def read(shape: dict[str, Any]) -> np.ndarray:
    """Return the mask of a shape of CVAT: run lengths inside a box, whose inclusive corners come last; or a polygon."""
    if shape["type"] == "mask":
        *runs, left, top, right, bottom = map(int, shape["points"])
        values = np.arange(len(runs)) % 2 == 1
        mask = np.zeros((160, 240), bool)
        mask[top : bottom + 1, left : right + 1] = np.repeat(values, runs).reshape(bottom - top + 1, right - left + 1)
        return mask
    canvas = Image.new("1", (240, 160))
    ImageDraw.Draw(canvas).polygon(shape["points"], fill=1)
    return np.asarray(canvas)


def test_the_interaction_function(url: str, picture: Path, disc: tuple[bytes, np.ndarray]) -> None:
    before = encoded(url)
    found = run_with_clients(SCRIPT, FUNCTION, url, picture, KEY, environment="tools")
    assert encoded(url) <= before + 1
    assert found["fields"] == {"min_pos_points": 0, "min_neg_points": 0, "startswith_box_optional": True}
    rows = [row for _, row in PROMPTS[:1]] + [
        {"input_points": [[[110, 80], [10, 10]]], "input_labels": [[1, 0]]},
        {"input_boxes": [[68, 38, 153, 123]]},
    ]
    for name, row in zip(("point", "points", "box"), rows, strict=True):
        (shape,) = found[name]
        assert (read(shape) == scored(url, disc[0], **row)).all()
        ((number, confidence),) = shape["attributes"]
        assert number == 0 and 0.5 < float(confidence) <= 1
    assert found["nothing"] == [] and "an API key is needed" in found["refused"]


def encoded(url: str) -> float:
    lines = requests.get(f"{url}/metrics", timeout=10).text.splitlines()
    found = [line for line in lines if line.startswith('sam_stage_seconds_count{stage="encode"}')]
    return float(found[0].split()[-1]) if found else 0.0
