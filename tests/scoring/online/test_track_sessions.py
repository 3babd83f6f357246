"""Sessions of `POST /track`: prompts while a video is tracked, both directions, and sessions that end."""

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

from sam_endpoint.model.masks import decode
from tests import checkpoints
from tests.conftest import serve_endpoint
from tests.pictures import iou
from tests.scoring.online.endpoint import KEY, OTHER_KEY, metric
from tests.videos import disc_frames, write_video

COUNT, SECONDS, MANY = 10, 15, 40
FRAMES, MASKS = disc_frames(COUNT)
CLICK = {"frame": 4, "object": 1, "points": [[38, 48]]}
AUTH = {"authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def url(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run an endpoint with two keys, and at most four sessions, which expire after SECONDS."""
    folder = tmp_path_factory.mktemp("endpoint")
    video = checkpoints.save_sam2_video(folder / "video", side=64)
    models = {"default": {"model": str(packaged)}, "video": {"checkpoint": str(video)}}
    (folder / "catalog.yaml").write_text(yaml.safe_dump({"default": "default", "models": models}))
    limits = ["--track-sessions", 4, "--track-session-seconds", SECONDS, "--public-metrics", "true"]
    options = ["--catalog", folder / "catalog.yaml", *limits]
    with serve_endpoint(folder / "log", *options, SAM_API_KEYS=f"{KEY},{OTHER_KEY}") as url:
        yield url


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a video of a moving disc."""
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", FRAMES)


def post(
    url: str,
    path: str = "/track",
    video: Path | None = None,
    prompts: Any = None,
    key: str = KEY,
    stream: bool = False,
    **fields: Any,
) -> requests.Response:
    data = {name: str(value) for name, value in fields.items()}
    if prompts is not None:
        data["prompts"] = json.dumps(prompts)
    files: dict[str, Any] = {name: (None, value) for name, value in data.items()}
    if video is not None:
        files["video"] = (video.name, video.read_bytes())
    return requests.post(
        url + path, files=files, headers={"authorization": f"Bearer {key}"}, stream=stream, timeout=120
    )


def read(response: requests.Response) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the records, and the last line."""
    assert response.status_code == 200, response.text
    lines = [json.loads(line) for line in response.text.splitlines()]
    return lines[:-1], lines[-1]


def start(url: str, clip: Path, **fields: Any) -> str:
    """Open a session without tracking, and return its id."""
    (described,), end = read(post(url, video=clip, session="new", **fields))
    assert end == {"frames": 0, "error": None}
    assert (described["frames"], described["size"], described["rate"]) == (COUNT, [96, 128], pytest.approx(25))
    return str(described["session"])


def close(url: str, session: str, key: str = KEY) -> requests.Response:
    return requests.delete(f"{url}/track/{session}", headers={"authorization": f"Bearer {key}"}, timeout=60)


def test_directions_of_one_request(url: str, clip: Path) -> None:
    expected = {
        "forward": range(4, COUNT),
        "backward": range(4, -1, -1),
        "both": [*range(4, COUNT), *range(3, -1, -1)],
    }
    for direction, frames in expected.items():
        records, end = read(post(url, video=clip, prompts=[CLICK], direction=direction))
        assert [record["frame"] for record in records] == list(frames) and end == {"frames": len(frames), "error": None}
        for record in records:
            assert record["seconds"] == pytest.approx(record["frame"] / 25)
            assert iou(decode(record["encoded_binary_mask"], "rle", (96, 128)), MASKS[record["frame"]]) > 0.8
    wrong = post(url, video=clip, prompts=[CLICK], direction="sideways")
    assert wrong.status_code == 400 and "direction: expected one of forward, backward, both" in wrong.json()["error"]


@pytest.mark.parametrize("model", ["default", "video"])
def test_a_session_continues_and_corrects(url: str, clip: Path, model: str) -> None:
    session = start(url, clip, model=model)
    first, _ = read(post(url, session=session, prompts=[CLICK], count=3))
    assert [record["frame"] for record in first] == [4, 5, 6]
    rest, end = read(post(url, session=session))
    assert [record["frame"] for record in rest] == [7, 8, 9] and end == {"frames": 3, "error": None}
    assert read(post(url, session=session)) == ([], {"frames": 0, "error": None})
    whole, _ = read(post(url, video=clip, prompts=[CLICK], model=model))
    masks = [record["encoded_binary_mask"] for record in first + rest]
    assert masks == [record["encoded_binary_mask"] for record in whole]  # as in one request
    correction = {"frame": 6, "object": 1, "points": [[42, 48], [2, 2]], "labels": [1, 0]}
    corrected, end = read(post(url, session=session, prompts=[correction]))
    assert [record["frame"] for record in corrected] == [6, 7, 8, 9] and end["error"] is None
    later, _ = read(post(url, session=session, prompts=[{"frame": 8, "object": 2, "box": [28, 30, 64, 66]}], count=1))
    assert [(record["frame"], record["object"]) for record in later] == [(8, 1), (8, 2)]
    before, _ = read(post(url, session=session, direction="both"))
    assert [record["frame"] for record in before if record["object"] == 1] == [9, 3, 2, 1, 0]
    assert [record["frame"] for record in before if record["object"] == 2] == [9, *range(7, -1, -1)]
    background = [{"frame": 9, "object": 1, "points": [[2, 2]], "labels": [0]}]
    assert post(url, session=session, prompts=background, count=1).status_code == 200  # the object has a mask already
    assert close(url, session).json() == {"session": session, "closed": True}
    gone = post(url, session=session)
    assert gone.status_code == 404 and "no session of this id" in gone.json()["error"]


def test_prompts_are_added_while_a_video_is_tracked(url: str, tmp_path: Path) -> None:
    frames = disc_frames(MANY, 0)[0]
    frames[np.arange(MANY), 0, np.arange(MANY)] = 255  # equal frames would be one frame
    video = write_video(tmp_path / "long.webp", frames)
    response = post(url, video=video, session="new", prompts=[{**CLICK, "frame": 0}], stream=True)
    lines = response.iter_lines()
    session = json.loads(next(lines))["session"]
    assert json.loads(next(lines))["frame"] == 0
    added = post(url, f"/track/{session}/prompts", prompts=[{"frame": 0, "object": 2, "box": [20, 30, 56, 66]}])
    assert added.json() == {"session": session, "prompts": 2}
    seen = [(record["frame"], record["object"]) for line in lines if "frame" in (record := json.loads(line))]
    again = seen.index((0, 2))  # the response went back to the frame of the new prompt
    assert seen[again - 1 :] == [(frame, number) for frame in range(MANY) for number in (1, 2)]
    assert all(number == 1 for _, number in seen[: again - 1])
    close(url, session)


def test_a_session_that_is_closed_ends_its_response_and_frees_all(url: str, tmp_path: Path) -> None:
    frames = disc_frames(MANY, 0)[0]
    frames[np.arange(MANY), 0, np.arange(MANY)] = 255
    video = write_video(tmp_path / "long.webp", frames)
    wait_until_free(url)
    for way in ("close", "hang up"):
        response = post(url, video=video, session="new", prompts=[{**CLICK, "frame": 0}], model="video", stream=True)
        lines = response.iter_lines()
        session = json.loads(next(lines))["session"]
        next(lines)
        assert metric(url, "sam_track_sessions") == 1
        assert metric(url, "sam_memory_bytes") > video.stat().st_size
        if way == "close":
            assert close(url, session).status_code == 200
            with pytest.raises(requests.exceptions.ChunkedEncodingError):
                list(lines)
            wait_until_free(url, SECONDS / 2)
        else:
            response.close()
            again = post(url, session=session, count=1)  # the session is still there
            assert again.status_code == 200 and len(again.text.splitlines()) == 2
            wait_until_free(url)  # until it expires


def wait_until_free(url: str, seconds: float = 60) -> None:
    """Wait until the endpoint holds no memory, no requests and no sessions."""
    names = ("sam_memory_bytes", "sam_requests_in_flight", "sam_track_sessions")
    deadline = time.monotonic() + seconds
    while any(metric(url, name) for name in names):
        assert time.monotonic() < deadline, [(name, metric(url, name)) for name in names]
        time.sleep(0.1)


def test_a_session_belongs_to_a_key_and_their_number_is_limited(url: str, clip: Path) -> None:
    wait_until_free(url)
    sessions = [start(url, clip) for _ in range(2)]
    full = post(url, video=clip, session="new")
    assert full.status_code == 503 and "too many sessions" in full.json()["error"]
    assert post(url, session=sessions[0], key=OTHER_KEY, prompts=[CLICK]).status_code == 404
    assert post(url, f"/track/{sessions[0]}/prompts", prompts=[CLICK], key=OTHER_KEY).status_code == 404
    assert close(url, sessions[0], OTHER_KEY).status_code == 404
    assert metric(url, "sam_track_sessions") == 2
    close(url, sessions[0])
    start(url, clip)


def test_bad_requests_name_the_field_and_the_frame(url: str, clip: Path) -> None:
    wait_until_free(url)
    session = start(url, clip)
    for fields, message in (
        ({"count": "0"}, "count: expected a whole number from 1"),
        ({"prompts": [{**CLICK, "frame": 10}]}, "column 'prompts', frame 10: expected a frame of the video, 0 to 9"),
        ({"prompts": [{**CLICK, "box": [9, 9, 9, 9]}]}, "frame 4"),
        ({"video": clip}, "video: expected no video in a request with a session"),
    ):
        response = post(url, session=session, **fields)
        assert response.status_code == 400 and message in response.json()["error"], response.text
    nothing, end = read(post(url, session=session))
    assert nothing == [] and "expected at least one prompt" in end["error"]
    missing = post(url, session="new")
    assert missing.status_code == 400 and "video: Field required" in missing.json()["error"]
