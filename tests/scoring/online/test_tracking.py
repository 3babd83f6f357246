"""`POST /track`: one line of JSON per frame and object, errors that name the frame, and clients that hang up."""

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
from tests.model.test_video import write_sound, write_without_frames
from tests.pictures import iou
from tests.scoring.online.endpoint import in_flight, metric
from tests.videos import break_in_the_middle, cut, disc_frames, write_changing, write_video

COUNT = 10
FRAMES, MASKS = disc_frames(COUNT)
PROMPTS = [{"frame": 0, "object": 1, "points": [[30, 48]]}, {"frame": 3, "object": 2, "box": [18, 30, 54, 66]}]


@pytest.fixture(scope="module")
def url(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run an endpoint that tracks at most 300 frames, and whose requests have at most 20 seconds per frame.

    The default model has no memory; the model `video` has one, with random weights.
    """
    folder = tmp_path_factory.mktemp("endpoint")
    video = checkpoints.save_sam2_video(folder / "video")
    models = {"default": {"model": str(packaged)}, "video": {"checkpoint": str(video)}}
    (folder / "catalog.yaml").write_text(yaml.safe_dump({"default": "default", "models": models}))
    limits = ["--track-frames", 300, "--track-objects", 2, "--request-seconds", 20]
    with serve_endpoint(folder / "log", "--catalog", folder / "catalog.yaml", *limits) as url:
        yield url


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a video of a moving disc."""
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", FRAMES)


def track(
    url: str, video: Path, prompts: object = PROMPTS, fields: dict[str, str] | None = None, stream: bool = False
) -> requests.Response:
    with video.open("rb") as file:
        data = {"prompts": prompts if isinstance(prompts, str) else json.dumps(prompts), **(fields or {})}
        return requests.post(f"{url}/track", files={"video": file}, data=data, stream=stream, timeout=120)


def still_frames(count: int) -> np.ndarray:
    """Return frames of a disc that does not move. One pixel counts, because Pillow writes equal frames only once."""
    frames = disc_frames(count, 0)[0]
    frames[np.arange(count), 0, np.arange(count) % 100] = 255
    return frames


def read_lines(response: requests.Response) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the records, and the last line."""
    lines = [json.loads(line) for line in response.text.splitlines()]
    return lines[:-1], lines[-1]


def test_answers_a_line_per_frame_and_object(url: str, clip: Path) -> None:
    response = track(url, clip)
    assert response.status_code == 200 and response.headers["content-type"] == "application/x-ndjson"
    assert response.headers["x-answered-by"]
    records, end = read_lines(response)
    assert end == {"frames": COUNT, "error": None}
    assert [(record["frame"], record["object"]) for record in records] == [
        (frame, number) for frame in range(COUNT) for number in ((1, 2) if frame >= 3 else (1,))
    ]
    for record in records:
        assert set(record) == {"frame", "object", "encoded_binary_mask", "size", "bbox", "area", "score", "seconds"}
        assert record["seconds"] == pytest.approx(record["frame"] / 25)
        mask = decode(record["encoded_binary_mask"], "rle", (96, 128))
        assert iou(mask, MASKS[record["frame"]]) > 0.8 and record["area"] == mask.sum()


def test_a_model_with_memory_uses_it(url: str, clip: Path) -> None:
    records, end = read_lines(track(url, clip, fields={"model": "video", "tracker": "memory"}))
    assert end == {"frames": COUNT, "error": None} and len(records) == 2 * COUNT - 3
    by_box, _ = read_lines(track(url, clip, fields={"model": "video", "tracker": "box"}))
    assert [record["encoded_binary_mask"] for record in records] != [row["encoded_binary_mask"] for row in by_box]


def test_frames_before_the_first_prompt_are_not_tracked(url: str, clip: Path) -> None:
    tracked = 'sam_stage_seconds_count{stage="render"}'
    before = metric(url, tracked)
    records, end = read_lines(track(url, clip, [PROMPTS[0] | {"frame": 6, "points": [[42, 48]]}]))
    assert end == {"frames": 4, "error": None} and [record["frame"] for record in records] == [6, 7, 8, 9]
    assert metric(url, tracked) - before == 4
    assert all(
        iou(decode(record["encoded_binary_mask"], "rle", (96, 128)), MASKS[record["frame"]]) > 0.8 for record in records
    )


def test_lines_arrive_while_the_video_is_tracked(url: str, tmp_path: Path) -> None:
    video = write_video(tmp_path / "long.gif", disc_frames(40, 1)[0])
    times = [time.monotonic()]
    for line in track(url, video, PROMPTS[:1], stream=True).iter_lines():
        assert json.loads(line)
        times.append(time.monotonic())
    assert len(times) == 42
    assert times[1] - times[0] < (times[-1] - times[0]) / 4


def test_a_client_that_hangs_up_frees_its_place_and_its_memory(url: str, tmp_path: Path) -> None:
    video = write_video(tmp_path / "long.webp", still_frames(250))
    before = metric(url, "sam_memory_bytes")
    response = track(url, video, PROMPTS[:1], stream=True)
    lines = response.iter_lines()  # requests closes the connection with the iterator
    next(lines)
    assert in_flight(url) == 1 and metric(url, "sam_memory_bytes") > before
    response.close()
    deadline = time.monotonic() + 15  # 250 frames take longer
    while in_flight(url) or metric(url, "sam_memory_bytes") > before:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    encoded = metric(url, 'sam_stage_seconds_count{stage="render"}')
    time.sleep(1)
    assert metric(url, 'sam_stage_seconds_count{stage="render"}') == encoded  # nothing is tracked any more


def test_the_frames_before_a_broken_one_are_answered(url: str, tmp_path: Path) -> None:
    noisy = np.clip(FRAMES + np.random.default_rng(0).normal(0, 25, FRAMES.shape), 0, 255).astype(np.uint8)
    records, end = read_lines(track(url, cut(write_video(tmp_path / "clip.mp4", noisy))))
    assert 0 < end["frames"] < COUNT and {record["frame"] for record in records} == set(range(end["frames"]))
    assert f"column 'video', frame {end['frames']}: expected a file that holds all frames" in end["error"]


def test_a_corrupt_frame_ends_the_answer_with_its_number(url: str, tmp_path: Path) -> None:
    noisy = np.clip(FRAMES + np.random.default_rng(0).normal(0, 25, FRAMES.shape), 0, 255).astype(np.uint8)
    records, end = read_lines(track(url, break_in_the_middle(write_video(tmp_path / "clip.mp4", noisy))))
    assert 0 < end["frames"] < COUNT and {record["frame"] for record in records} == set(range(end["frames"]))
    assert f"column 'video', frame {end['frames']}: expected a frame that can be decoded" in end["error"]


@pytest.mark.parametrize("ending", [".mkv", ".mp4"])
def test_a_change_of_size_ends_the_answer_with_the_frame(ending: str, url: str, tmp_path: Path) -> None:
    video = write_changing(tmp_path / f"clip{ending}")
    records, end = read_lines(track(url, video, [{"frame": 0, "object": 1, "box": [5, 5, 60, 60]}]))
    assert {record["frame"] for record in records} == set(range(10)) and end["frames"] == 10
    assert "column 'video', frame 10: expected a frame of 64 x 64 pixels, like the first" in end["error"]


def test_a_prompt_that_cannot_be_tracked_ends_the_answer(url: str, clip: Path) -> None:
    prompts = [*PROMPTS[:1], {"frame": 4, "object": 2, "points": [[1, 1]], "labels": [0]}, PROMPTS[1] | {"frame": 6}]
    records, end = read_lines(track(url, clip, prompts))
    assert end["frames"] == 4 == len(records)
    assert "column 'prompts', frame 4: expected an object point, a box or a mask first" in end["error"]


BAD: list[tuple[object, dict[str, str], int, str]] = [
    ("not json", {}, 400, "column 'prompts': expected a list of prompts"),
    ([PROMPTS[0] | {"frame": 10}], {}, 400, "column 'prompts', frame 10: expected a frame of the video, 0 to 9"),
    ([PROMPTS[0] | {"object": number} for number in range(3)], {}, 400, "expected at most 2 objects in a video, got 3"),
    (PROMPTS, {"tracker": "memory"}, 400, "has no memory of earlier frames"),
    (PROMPTS, {"tracker": "other"}, 400, "tracker: expected one of auto, memory, box"),
    (PROMPTS, {"model": "other"}, 404, "model"),
]


@pytest.mark.parametrize(("prompts", "fields", "status", "message"), BAD)
def test_a_bad_request_is_an_error_before_the_first_line(
    prompts: object, fields: dict[str, str], status: int, message: str, url: str, clip: Path
) -> None:
    response = track(url, clip, prompts, fields)
    assert response.status_code == status and message in response.json()["error"], response.text


def test_a_bad_video_is_an_error_before_the_first_line(url: str, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    sound, empty = write_sound(tmp_path / "sound.mov"), write_without_frames(tmp_path / "none.mkv")
    long = write_video(tmp_path / "long.gif", still_frames(301))
    for video, message in (
        (tmp_path / "text.mp4", "column 'video': expected an mp4, mov, webm, mkv, avi, GIF or WebP file"),
        (sound, "column 'video': expected a file with a video stream, got a file without one"),
        (empty, "got 0 frames"),
        (long, "column 'video': expected a video of at most 300 frames, got 301 frames"),
    ):
        response = track(url, video)
        assert response.status_code == 400 and message in response.json()["error"]
    response = requests.post(f"{url}/track", files={"video": b""}, timeout=60)
    assert response.status_code == 400 and "prompts: Field required" in response.json()["error"]
    response = requests.post(f"{url}/track", json={"prompts": "[]"}, timeout=60)
    assert response.status_code == 415, response.text
