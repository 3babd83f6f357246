"""Videos of labelling tools: X-AnyLabeling's published client, QuPath's requests to samapi, and CVAT's trackers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import yaml
from PIL import Image, ImageDraw

from tests import checkpoints, pictures
from tests.conftest import ROOT, run_with_clients, serve_endpoint
from tests.pictures import iou
from tests.scoring.online.endpoint import metric
from tests.scoring.online.test_hostile_tools import HOLE, VALUES, holes
from tests.videos import disc_frames, write_video

KEY = "correct-horse"
COUNT = 8
FRAMES, MASKS = disc_frames(COUNT)
TEXTS = [pictures.to_text(pictures.to_bytes(Image.fromarray(frame))) for frame in FRAMES]
DATA = [f"data:image/png;base64,{text}" for text in TEXTS]


@pytest.fixture(scope="module")
def url(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An endpoint whose default model has no memory; the model `video` has one, with random weights."""
    folder = tmp_path_factory.mktemp("endpoint")
    video = checkpoints.save_sam2_video(folder / "video", side=64)
    models = {
        "default": {"model": str(packaged), "stands_in_for": ["sam2/hiera_tiny"]},
        "video": {"checkpoint": str(video)},
    }
    (folder / "catalog.yaml").write_text(yaml.safe_dump({"default": "default", "models": models}))
    options = ["--catalog", folder / "catalog.yaml", "--track-frames", 20, "--public-metrics", "true"]
    with serve_endpoint(folder / "log", *options, SAM_API_KEYS=KEY) as base:
        yield base
        assert KEY not in (folder / "log").read_text()


def post(url: str, path: str, body: Any = None, **options: Any) -> requests.Response:
    headers = {"Token": KEY} if path.startswith("/v1/") else {"x-api-key": KEY}
    return requests.post(url + path, json=body, headers=headers, timeout=120, **options)


def filled(points: list[list[float]]) -> np.ndarray:
    canvas = Image.new("1", (128, 96))
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in points], fill=1)
    return np.asarray(canvas)


def test_x_anylabelings_published_client(url: str, tmp_path: Path) -> None:
    folder = write_video(tmp_path / "frames", FRAMES)
    script = Path(__file__).with_name("xanylabeling_video.py")
    found = run_with_clients(script, url, folder, KEY, "default", tmp_path, environment="tools")
    assert found["modes"] == {"None": "default", "images": "default", "video": "video"}
    (outline,) = found["click"]
    assert iou(filled(outline), MASKS[2]) > 0.8
    assert list(found["propagated"]) == [f"frame{number}.png" for number in range(2, COUNT)]
    for number in range(2, COUNT):
        (outline,) = found["propagated"][f"frame{number}.png"]
        assert iou(filled(outline), MASKS[number]) > 0.8
    assert found["same session"] and iou(filled(found["corrected"][0]), MASKS[4]) > 0.8
    assert list(found["after the correction"]) == [f"frame{number}.png" for number in range(4, COUNT)]
    assert found["expired"] == [] and "404" in found["messages"][-1]
    assert iou(filled(found["again"][0]), MASKS[2]) > 0.8
    wait_until_free(url)


def init(url: str, **body: Any) -> str:
    answer = post(url, "/v1/video/init", {"model": "default", "frames": DATA, "start_frame_index": 0, **body})
    assert answer.status_code == 200 and answer.json()["success"] is True, answer.text
    assert answer.json()["data"]["total_frames"] == COUNT
    return str(answer.json()["data"]["session_id"])


def click(url: str, session: str, **body: Any) -> requests.Response:
    prompt = {"frame_index": 0, "points": [[30 / 128, 0.5]], "point_labels": [1], "obj_id": 10000}
    return post(url, "/v1/video/prompt", {"session_id": session, "model": "default", **prompt, **body})


def test_x_anylabelings_background_task(url: str) -> None:
    session = init(url)
    answer = click(url, session).json()["data"]
    assert (answer["frame_index"], answer["num_objects"], len(answer["masks"])) == (0, 1, 1)
    assert answer["masks"][0]["label"] == "AUTOLABEL_OBJECT" and answer["masks"][0]["group_id"] == 10000
    started = post(url, "/v1/video/propagate", {"session_id": session, "model": "default", "end_frame": 4}).json()
    task = started["data"]["task_id"]
    deadline = time.monotonic() + 60
    while (state := status(url, task))["status"] in ("pending", "processing"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (state["status"], state["progress"], state["error"]) == ("completed", 1.0, None)
    assert list(state["results"]) == ["0", "1", "2", "3", "4"]
    assert iou(filled(state["results"]["4"]["masks"][0]["points"]), MASKS[4]) > 0.8
    again = {"session_id": session, "model": "default", "start_frame": 0}
    assert post(url, "/v1/video/propagate", again).json()["success"] is True
    post(url, f"/v1/video/cancel/{task}")
    while (state := status(url, task))["status"] in ("pending", "processing"):
        assert time.monotonic() < deadline + 60
        time.sleep(0.05)
    assert state["status"] in ("cancelled", "completed")  # the last frame may have been done before
    assert post(url, f"/v1/video/cancel/{task}").json()["data"]["status"] == "cancelled"
    assert post(url, f"/v1/video/cleanup/{session}", params={"model": "default"}).json()["success"] is True
    gone = post(url, f"/v1/video/cleanup/{session}", params={"model": "default"})
    assert gone.status_code == 404 and gone.json()["success"] is False


def status(url: str, task: str) -> dict[str, Any]:
    answer = requests.get(f"{url}/v1/video/status/{task}", headers={"Token": KEY}, timeout=60).json()
    return dict(answer["data"])


def test_x_anylabelings_bad_requests_name_the_frame(url: str) -> None:
    small = f"data:image/png;base64,{pictures.to_text(pictures.to_bytes(Image.new('RGB', (64, 48))))}"
    for frames, said in (
        ([], "a video with at least 1 frame, got 0 frames"),
        ([DATA[0], "SECRET %%"], "column 'frames', frame 1"),
        (DATA[:1] * 21, "a video of at most 20 frames, got 21 frames"),
    ):
        answer = post(url, "/v1/video/init", {"model": "default", "frames": frames})
        assert answer.status_code == 200 and answer.json()["success"] is False
        assert said in answer.json()["error"]["message"] and "SECRET" not in answer.text, answer.text
    session = init(url)
    for body, said in (
        ({"frame_index": 8}, "frame 8: expected a frame of the video, 0 to 7"),
        ({"points": "SECRET"}, "column 'points'"),
        ({"points": [[0.5, 0.5]], "point_labels": [1, 1]}, "frame 0"),
        ({"text_prompt": "SECRET"}, "objects in videos are selected by points"),
    ):
        answer = click(url, session, **body)
        assert answer.status_code == 200 and answer.json()["success"] is False
        assert said in answer.json()["error"]["message"] and "SECRET" not in answer.text, answer.text
    post(url, f"/v1/video/cleanup/{session}")
    # A frame of another size ends the video: the frames before it are sent.
    mixed = init(url, frames=[*DATA[:3], small, *DATA[4:]])
    click(url, mixed)
    stream = post(url, "/v1/video/propagate/stream", {"session_id": mixed, "model": "default"})
    events = [json.loads(line[6:]) for line in stream.text.splitlines() if line.startswith("data: ")]
    assert [event["type"] for event in events] == ["started", "progress", "progress", "progress", "completed"]
    assert list(events[-1]["results"]) == ["0", "1", "2"]
    assert "frame 3: expected a frame of 128 x 96 pixels" in events[-1]["message"]
    post(url, f"/v1/video/cleanup/{mixed}")
    wait_until_free(url)


# As the extension's class for prompts writes them: background points first, and no fields that are null.
QUPATH: dict[str, Any] = {
    "type": "sam2_t",
    "b64imgs": TEXTS,
    "axes": "XYZ",
    "plane_position": 2,
    "objs": {
        "1": [{"obj_id": 0, "bbox": [14, 30, 50, 66]}],
        "3": [{"obj_id": 5, "point_coords": [[2, 2], [36, 48]], "point_labels": [0, 1]}],
    },
}


def test_qupaths_request_to_samapi(url: str) -> None:
    answer = post(url, "/sam/video/", QUPATH)
    assert answer.status_code == 200, answer.text
    features = answer.json()
    assert [(feature["geometry"]["plane"]["z"], feature["properties"]["object_idx"]) for feature in features] == [
        (frame, number) for frame in range(1, COUNT) for number in ((0, 5) if frame >= 3 else (0,))
    ]
    for feature in features:
        assert feature["type"] == "Feature" and feature["geometry"]["type"] == "Polygon"
        assert feature["geometry"]["plane"] == {"c": -1, "z": feature["geometry"]["plane"]["z"], "t": 2}
        assert set(feature["properties"]) == {"object_idx", "label", "quality", "sam_model"}
        assert feature["properties"]["sam_model"] == "sam2_t" and 0 < feature["properties"]["quality"] <= 1
        (ring,) = feature["geometry"]["coordinates"]
        assert ring[0] == ring[-1] and iou(filled(ring), MASKS[feature["geometry"]["plane"]["z"]]) > 0.8
    part = post(url, "/sam/video/", QUPATH | {"axes": "XYT", "start_frame_idx": 2, "max_frame_num_to_track": 1}).json()
    assert {feature["geometry"]["plane"]["t"] for feature in part} == {2, 3}
    wait_until_free(url)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"type": "vit_b"}, "type: expected a model that tracks, one of sam2_t, sam2_s, sam2_bp, sam2_l"),
        ({"axes": "ZYX"}, "axes: expected one of XYT, XYZ"),
        ({"b64imgs": None, "dirname": "SECRET"}, "column 'b64imgs': expected the images as a list of base64 texts"),
        ({"b64imgs": []}, "at least 1 frame"),
        ({"b64imgs": [*TEXTS[:4], "SECRET %%"]}, "column 'b64imgs', frame 4"),
        ({"objs": {}}, "column 'objs'"),
        ({"objs": {"SECRET": []}}, "column 'objs': expected numbers of frames as keys"),
        (
            {"objs": {"9": [{"obj_id": 0, "bbox": [1, 1, 9, 9]}]}},
            "column 'objs', frame 9: expected a frame of the video",
        ),
        ({"objs": {"0": [{"obj_id": "SECRET", "bbox": [1, 1, 9, 9]}]}}, "column 'objs'"),
    ],
)
def test_qupaths_bad_requests(url: str, change: dict[str, Any], said: str) -> None:
    answer = post(url, "/sam/video/", QUPATH | change)
    assert answer.status_code == 400 and said in answer.json()["detail"] and "SECRET" not in answer.text, answer.text


FUNCTION = ROOT / "deploy" / "cvat" / "segment_anything.py"
PATHS = ("/sam/video/", "/v1/video/init", "/v1/video/prompt", "/v1/video/propagate/stream", "/v1/video/propagate", "/")


@pytest.mark.parametrize("path", PATHS)
def test_no_value_in_any_field_breaks_a_route(url: str, path: str) -> None:
    session, rejected = init(url), 0
    click(url, session)
    bodies: dict[str, dict[str, Any]] = {
        "/sam/video/": {**QUPATH, "b64imgs": TEXTS[:2], "objs": {"0": QUPATH["objs"]["1"]}, "start_frame_idx": 0},
        "/v1/video/init": {"model": "default", "frames": DATA[:2], "start_frame_index": 0},
        "/v1/video/prompt": {
            "session_id": session, "frame_index": 0, "points": [[0.3, 0.5]], "point_labels": [1], "obj_id": 10000,
            "params": {"conf_threshold": 0.1, "epsilon_factor": 0.01},
        },
        "/v1/video/propagate/stream": {"session_id": session, "start_frame": 0, "end_frame": 1},
        "/v1/video/propagate": {"session_id": session, "start_frame": 0, "end_frame": 1},
        "/": {"image": TEXTS[0], "shapes": [BOX, OCTAGON], "states": [None, "a"]},
    }  # fmt: skip
    headers = {"Token": KEY, "x-api-key": KEY}
    for pierced in map(json.dumps, holes(bodies[path])):
        for value in VALUES[::2]:
            body = pierced.replace(f'"{HOLE}"', value).encode()
            answer = requests.post(url + path, data=body, headers=headers, timeout=60)
            assert answer.status_code < 500, (body[:300], answer.text[:300])
            rejected += answer.status_code >= 400 or '"success":false' in answer.text
            if path == "/v1/video/init" and answer.json()["success"]:
                post(url, f"/v1/video/cleanup/{answer.json()['data']['session_id']}")
    assert rejected > 20
    post(url, f"/v1/video/cleanup/{session}")
    wait_until_free(url)


def wait_until_free(url: str) -> None:
    """Wait until the endpoint holds no session and no memory. A background task may be in its last frame."""
    deadline = time.monotonic() + 30
    while metric(url, "sam_track_sessions") or metric(url, "sam_memory_bytes"):
        assert time.monotonic() < deadline
        time.sleep(0.1)


BOX = [12, 30, 48, 66]
OCTAGON = [38, 31, 47, 40, 47, 56, 38, 65, 22, 65, 13, 56, 13, 40, 22, 31]


def test_cvats_tracker(url: str) -> None:
    answer = post(url, "/", {"image": TEXTS[0], "shapes": [BOX, OCTAGON], "states": []})
    assert answer.status_code == 200 and answer.json()["shapes"] == [BOX, OCTAGON], answer.text
    states = answer.json()["states"]
    for number in range(1, COUNT):
        found = post(url, "/", {"image": TEXTS[number], "shapes": [None, None], "states": states}).json()
        box, polygon = found["shapes"]
        x = np.flatnonzero(MASKS[number].any(0))
        assert np.abs(np.array(box) - [x[0], 31, x[-1] + 1, 66]).max() < 5
        assert iou(filled(np.reshape(polygon, (-1, 2)).tolist()), MASKS[number]) > 0.75
        states = found["states"]
    wait_until_free(url)


def test_cvats_agent(url: str, tmp_path: Path) -> None:
    folder = write_video(tmp_path / "frames", FRAMES[:4])
    shapes = json.dumps([{"type": "rectangle", "points": BOX}, {"type": "polygon", "points": OCTAGON}])
    script = Path(__file__).with_name("cvat_tracking.py")
    found = run_with_clients(script, FUNCTION, url, folder, KEY, shapes, environment="tools")
    assert found["fields"] == {"supported_shape_types": ["polygon", "rectangle"]}
    for number, (rectangle, polygon) in enumerate(found["shapes"], 1):
        x = np.flatnonzero(MASKS[number].any(0))
        assert rectangle["type"] == "rectangle"
        assert np.abs(np.array(rectangle["points"]) - [x[0], 31, x[-1] + 1, 66]).max() < 5
        assert polygon["type"] == "polygon"
        assert iou(filled(np.reshape(polygon["points"], (-1, 2)).tolist()), MASKS[number]) > 0.75
    assert "an API key is needed" in found["refused"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"shapes": [[1, 2, 3]]}, "column 'shapes[0]': expected [x1, y1, x2, y2] of a rectangle"),
        ({"shapes": [["a", 2, 3, 4]]}, "column 'shapes[0]'"),
        ({"shapes": "SECRET"}, "column 'shapes': expected a list of shapes"),
        ({"states": ["SECRET"]}, "column 'states[0]': expected a state of an earlier response of this endpoint"),
        ({"states": [pictures.to_text(b"SECRET" * 20)]}, "column 'states[0]': expected a state of an earlier response"),
        ({"shapes": [BOX] * 51}, "at most 50 objects in a video, got 51"),
    ],
)
def test_cvats_bad_requests(url: str, body: dict[str, Any], said: str) -> None:
    answer = post(url, "/", {"image": TEXTS[0], **body})
    assert answer.status_code == 400 and said in answer.text and "SECRET" not in answer.text, answer.text
