"""The endpoint as server of X-AnyLabeling, asked by its published client class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image, ImageDraw

from tests import pictures
from tests.conftest import run_with_clients, serve_endpoint

KEY = "correct-horse"
PICTURE = f"data:image/png;base64,{pictures.to_text(pictures.disc()[0])}"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("endpoint") / "log"
    with serve_endpoint(log, "--prompts", "50", SAM_API_KEYS=KEY) as base:
        yield base
        assert KEY not in log.read_text()


def filled(shape: dict[str, Any]) -> np.ndarray:
    canvas = Image.new("1", (240, 160))
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in shape["points"]], fill=1)
    return np.asarray(canvas)


def test_the_published_client(url: str, picture: Path, disc: tuple[bytes, np.ndarray], tmp_path: Path) -> None:
    script = Path(__file__).with_name("xanylabeling.py")
    found = run_with_clients(script, url, picture, KEY, tmp_path, environment="tools")
    assert list(found["models"]) == ["sam-tiny", "sam2-tiny"] and found["mode"] == "default"
    widgets = {widget["name"] for widget in found["models"]["sam-tiny"]["widgets"]}
    assert {"button_add_point", "button_add_rect", "mask_fineness_slider"} <= widgets
    for name in ("point", "points", "unsaved", "rectangle"):
        (shape,) = found[name]["shapes"]
        assert (shape["label"], shape["type"], shape["group"]) == ("AUTOLABEL_OBJECT", "polygon", 1)
        assert 0 < shape["score"] <= 1 and 8 <= len(shape["points"]) < 60
        assert pictures.iou(filled(shape), disc[1]) > 0.7 and found[name]["replace"] is False
    assert found["unsaved"]["shapes"] == found["point"]["shapes"]
    assert {shape["group"] for shape in found["several"]["shapes"]} == {1, 2}
    assert pictures.iou(filled(found["several"]["shapes"][0]), disc[1]) > 0.7
    everything = found["everything"]
    assert everything["replace"] is True  # the client's own setting
    assert max(pictures.iou(filled(shape), disc[1]) for shape in everything["shapes"]) > 0.8
    assert len(found["coarse"]["shapes"][0]["points"]) <= len(found["point"]["shapes"][0]["points"])
    # The client shows nothing for an error with status 200, and the library's words for another status.
    assert found["text"]["shapes"] == found["messages_before"] == []
    assert found["stranger_models"] == {} and found["stranger_shapes"] == 0
    assert "401" in found["messages"][0]


def post(url: str, body: Any, key: str = KEY) -> requests.Response:
    return requests.post(f"{url}/v1/predict", json=body, headers={"Token": key}, timeout=60)


def test_a_text_prompt_says_what_the_model_takes(url: str) -> None:
    answer = post(url, {"model": "sam-tiny", "image": PICTURE, "params": {"text_prompt": "a SECRET"}})
    assert answer.status_code == 200 and answer.json()["success"] is False
    message = answer.json()["error"]["message"]
    assert message.startswith(
        "column 'text_prompt': expected a model that takes text (package --checkpoint facebook/sam3"
    )
    assert "add --detector IDEA-Research/grounding-dino-tiny to `sam-endpoint package`" in message
    assert "SECRET" not in answer.text


def test_a_wrong_key(url: str) -> None:
    for key in ("", "wrong"):
        answer = post(url, {}, key)
        assert answer.status_code == 401 and answer.json()["success"] is False
        assert requests.get(f"{url}/v1/models", headers={"Token": key}, timeout=10).status_code == 401
    info = requests.get(f"{url}/v1/models/facebook/sam-vit-large/info", headers={"Token": KEY}, timeout=10).json()
    assert info["success"] is True and info["data"]["model_id"] == "sam-tiny"


def wrong(said: str, marks: Any = None, **more: Any) -> Any:
    params = more.pop("params", {"marks": marks})
    return pytest.param({"model": "sam-tiny", "image": PICTURE, "params": params, **more}, said, id=said[:50])


POINT = {"type": "point", "data": [110, 80], "label": 1}
BOX = {"type": "rectangle", "data": [68, 38, 153, 123], "label": 1}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param({}, "model: Field required; image: Field required", id="nothing"),
        wrong("no model of this name", model="SECRET"),
        wrong("column 'image'", image="SECRET"),
        wrong("params.conf_threshold: Input is not as expected", params={"conf_threshold": 5}),
        wrong("params.epsilon_factor: Input is not as expected", params={"epsilon_factor": -1}),
        wrong("column 'marks': expected marks", "SECRET"),
        wrong("column 'marks[1]': expected marks", [POINT, "SECRET"]),
        wrong("column 'marks[0]': expected marks", [{**POINT, "type": "SECRET"}]),
        wrong("column 'marks[0]': expected marks", [{**POINT, "label": "SECRET"}]),
        wrong("a rectangle with label 1; to exclude a part of the image", [{**BOX, "label": 0}]),
        wrong("column 'marks[0].data': expected 2 numbers in pixels", [{**POINT, "data": [1, 2, 3]}]),
        wrong("column 'marks[0].data': expected 2 numbers in pixels", [{**POINT, "data": [1, 1e300]}]),
        wrong("column 'marks[0].data': expected 4 numbers in pixels", [{**BOX, "data": [1, 2, 3, "SECRET"]}]),
        wrong("a point inside one of the rectangles", [BOX, BOX, {**POINT, "data": [5, 5]}]),
        wrong("at most 50", [POINT] * 51),
    ],
)
def test_wrong_requests(url: str, body: Any, said: str) -> None:
    answer = post(url, body)
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"success", "error"} and answer.json()["success"] is False
    assert said in answer.json()["error"]["message"] and isinstance(answer.json()["error"]["code"], str), answer.text
    assert "SECRET" not in answer.text


def test_a_box_may_be_drawn_from_any_corner(url: str) -> None:
    shapes = []
    for data in ([68, 38, 153, 123], [153, 123, 68, 38], [153, 38, 68, 123]):
        answer = post(url, {"model": "sam-tiny", "image": PICTURE, "params": {"marks": [{**BOX, "data": data}]}})
        shapes.append([shape["points"] for shape in answer.json()["data"]["shapes"]])
    assert shapes[0] == shapes[1] == shapes[2]
