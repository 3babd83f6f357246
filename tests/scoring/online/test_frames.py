"""`POST /frames`: the frames of a video as JPEG files, with the numbers and the times of the tracker."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from sam_endpoint.model.video import open_video
from tests.conftest import serve_endpoint
from tests.scoring.online.endpoint import in_flight, metric
from tests.videos import CLOCKWISE, IDENTITY, break_in_the_middle, cut, disc_frames, write_video

FRAMES = disc_frames(10)[0]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    options = ["--track-frames", 300, "--public-metrics", "true"]
    with serve_endpoint(tmp_path_factory.mktemp("endpoint") / "log", *options) as url:
        yield url


def ask(url: str, video: Path, stream: bool = False, **fields: Any) -> requests.Response:
    with video.open("rb") as file:
        return requests.post(f"{url}/frames", files={"video": file}, data=fields, stream=stream, timeout=60)


def read_lines(response: requests.Response) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the lines of the frames, and the last line."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in response.text.splitlines()]
    return lines[:-1], lines[-1]


def pixels_of(line: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(line["jpeg"]))).convert("RGB")).astype(int)


def rotated(folder: Path) -> Path:
    """Return an mp4 file whose metadata turn it by 90 degrees, as phones write it."""
    video = write_video(folder / "turned.mp4", FRAMES)
    content = video.read_bytes()
    at = content.index(IDENTITY, content.index(b"tkhd"))
    video.write_bytes(content[:at] + CLOCKWISE + content[at + len(IDENTITY) :])
    return video


@pytest.mark.parametrize("form", ["mp4", "variable", "gif", "turned"])
def test_the_lines_are_the_frames_of_the_tracker(url: str, tmp_path: Path, form: str) -> None:
    times = [0, 10, 500, 540, 550, 560, 900, 920, 930, 1000]
    video = {
        "mp4": lambda: write_video(tmp_path / "clip.mp4", FRAMES),
        "variable": lambda: write_video(tmp_path / "clip.webm", FRAMES, milliseconds=times),
        "gif": lambda: write_video(tmp_path / "clip.gif", FRAMES),
        "turned": lambda: rotated(tmp_path),
    }[form]()
    lines, end = read_lines(ask(url, video))
    assert end == {"frames": 10, "error": None}
    decoded = list(open_video(video).frames())
    assert [line["frame"] for line in lines] == [frame.number for frame in decoded] == list(range(10))
    for line, frame in zip(lines, decoded, strict=True):
        assert line["size"] == list(frame.pixels.shape[:2]) and line["count"] == 10
        assert line["seconds"] == pytest.approx(frame.seconds, abs=1e-5)
        assert np.abs(pixels_of(line) - frame.pixels).mean() < 4
    if form == "variable":
        assert [line["seconds"] for line in lines] == [value / 1000 for value in times]
    if form == "turned":
        assert lines[0]["size"] == [128, 96]


def test_images_are_reduced_and_never_enlarged(url: str, tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.gif", FRAMES)
    lines, _ = read_lines(ask(url, video, side=64))
    assert pixels_of(lines[0]).shape == (48, 64, 3) and lines[0]["size"] == [96, 128]
    assert pixels_of(read_lines(ask(url, video, side=4000))[0][0]).shape == (96, 128, 3)
    assert "side" in ask(url, video, side=5000).json()["error"]


def test_the_frames_before_a_broken_one_are_answered(url: str, tmp_path: Path) -> None:
    noisy = np.clip(FRAMES + np.random.default_rng(0).normal(0, 25, FRAMES.shape), 0, 255).astype(np.uint8)
    video = write_video(tmp_path / "clip.mp4", noisy)
    for broken in (cut(video), break_in_the_middle(video)):
        lines, end = read_lines(ask(url, broken))
        assert 0 < len(lines) == end["frames"] < 10
        assert f"frame {end['frames']}" in end["error"]


def test_a_bad_video_is_an_error_before_the_first_line(url: str, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    frames = disc_frames(301, 0)[0]
    frames[np.arange(301), 0, np.arange(301) % 100] = 255
    long = write_video(tmp_path / "long.gif", frames)
    for video, message in (
        (tmp_path / "text.mp4", "column 'video': expected an mp4, mov, webm, mkv, avi, GIF or WebP file"),
        (long, "column 'video': expected a video of at most 300 frames, got 301 frames"),
    ):
        response = ask(url, video)
        assert response.status_code == 400 and message in response.json()["error"]
    response = requests.post(f"{url}/frames", json={}, timeout=60)
    assert response.status_code == 415, response.text


def test_a_client_that_hangs_up_frees_its_place_and_its_memory(url: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 480, 640, 3), np.uint8)
    video = write_video(tmp_path / "long.webm", noise)
    before = metric(url, "sam_memory_bytes")
    response = ask(url, video, stream=True)
    next(response.iter_lines(chunk_size=1000))
    response.close()
    deadline = time.monotonic() + 15
    while in_flight(url) or metric(url, "sam_memory_bytes") > before:
        assert time.monotonic() < deadline
        time.sleep(0.1)
