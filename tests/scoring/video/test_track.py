"""`sam-endpoint track`: the table, its exports and overlay, resuming after a kill, and broken videos."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools import mask as coco

from sam_endpoint.__main__ import main
from sam_endpoint.model.masks import encode
from sam_endpoint.model.mlflow import package
from sam_endpoint.model.segmenter import Segmenter
from sam_endpoint.model.tracking import TrackedFrame
from sam_endpoint.model.tracking.prompt_list import parse_track_prompts
from sam_endpoint.model.tracking.ways import tracker_for
from sam_endpoint.model.video import open_video
from sam_endpoint.scoring.batch.parts import Parts
from sam_endpoint.scoring.video import job
from sam_endpoint.scoring.video.exports import write_mot
from tests import checkpoints, warm
from tests.conftest import ROOT, run_here
from tests.pictures import iou
from tests.videos import HEIGHT, WIDTH, cut, disc_frames, write_video

COUNT = 10
FRAMES, MASKS = disc_frames(COUNT)
PROMPTS = [
    {"frame": 0, "object": 1, "points": [[30, 48]]},
    {"frame": 3, "object": 2, "box": [18, 30, 54, 66]},
]


def write_inputs(folder: Path, name: str = "clip.gif") -> tuple[Path, Path]:
    """Write a video of a moving disc and two prompts on it, and return both files."""
    prompts = folder / "prompts.json"
    prompts.write_text(json.dumps(PROMPTS))
    return write_video(folder / name, FRAMES), prompts


def track(video: Path, prompts: Path, output: Path, *options: object) -> subprocess.CompletedProcess[str]:
    named = ["--video", video, "--prompts", prompts, "--output", output, "--model", package.EMBEDDED]
    return run_here(main, "track", *named, *options)


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Track a disc with all exports, and return the folder of the output."""
    folder = tmp_path_factory.mktemp("tracked")
    video, prompts = write_inputs(folder)
    done = track(
        video, prompts, folder / "tracks.parquet", "--part-frames", 4,
        "--overlay", folder / "overlay.mp4", "--youtube-vis", folder / "vis.json",
        "--mot", folder / "mot.txt", "--mots", folder / "mots.txt", "--png-masks", folder / "masks",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "frames       10 (0 done before) of 128 x 96 pixels" in done.stdout
    assert "objects      2, visible in 17 of their frames" in done.stdout and "tracker      box" in done.stdout
    return folder


def read_rows(file: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    return rows


def decode(size: list[int], counts: str) -> np.ndarray:
    """Decode run lengths with pycocotools alone."""
    mask: np.ndarray = coco.decode({"size": size, "counts": counts.encode()}).astype(bool)
    return mask


def test_the_table_has_one_row_per_frame_and_object(tracked: Path) -> None:
    rows = read_rows(tracked / "tracks.parquet")
    assert list(rows[0]) == ["frame", "object", "encoded_binary_mask", "size", "bbox", "area", "score"]
    assert [(row["frame"], row["object"]) for row in rows] == [
        (frame, number) for frame in range(COUNT) for number in ((1, 2) if frame >= 3 else (1,))
    ]
    for row in rows:
        mask = decode(row["size"], row["encoded_binary_mask"])
        assert iou(mask, MASKS[row["frame"]]) > 0.8
        y, x = np.nonzero(mask)
        assert row["bbox"] == [x.min(), y.min(), x.max() + 1 - x.min(), y.max() + 1 - y.min()]
        assert row["area"] == len(x) and 0 < row["score"] <= 1
    assert not (tracked / "tracks.parquet.parts").exists()


def test_the_youtube_vis_file_has_a_list_per_object(tracked: Path) -> None:
    content = json.loads((tracked / "vis.json").read_text())
    (video,) = content["videos"]
    assert (video["width"], video["height"], video["length"]) == (WIDTH, HEIGHT, COUNT)
    assert len(video["file_names"]) == COUNT and content["categories"] == [{"id": 1, "name": "object"}]
    first, second = content["annotations"]
    assert (first["id"], first["video_id"], first["category_id"], second["id"]) == (1, 1, 1, 2)
    assert second["segmentations"][:3] == [None] * 3 == second["bboxes"][:3] == second["areas"][:3]
    for row in read_rows(tracked / "tracks.parquet"):
        annotation = content["annotations"][row["object"] - 1]
        rle = annotation["segmentations"][row["frame"]]
        assert np.array_equal(decode(rle["size"], rle["counts"]), decode(row["size"], row["encoded_binary_mask"]))
        assert annotation["bboxes"][row["frame"]] == row["bbox"] and annotation["areas"][row["frame"]] == row["area"]


def test_mot_and_mots_count_frames_from_1(tracked: Path) -> None:
    rows = read_rows(tracked / "tracks.parquet")
    lines = [line.split(",") for line in (tracked / "mot.txt").read_text().splitlines()]
    assert [(int(line[0]), int(line[1])) for line in lines] == [(row["frame"] + 1, row["object"]) for row in rows]
    assert [[float(part) for part in line[2:6]] for line in lines] == [row["bbox"] for row in rows]
    assert all(line[7:] == ["-1", "-1", "-1"] for line in lines)
    taken: dict[int, np.ndarray] = {}
    for line in (tracked / "mots.txt").read_text().splitlines():
        frame, identity, category, height, width, counts = line.split(" ")
        mask = decode([int(height), int(width)], counts)
        assert int(identity) in (1001, 1002) and category == "1" and mask.shape == (HEIGHT, WIDTH)
        earlier = taken.get(int(frame), np.zeros_like(mask))
        assert not (earlier & mask).any()  # MOTS allows no overlap
        taken[int(frame)] = earlier | mask
    assert sorted(taken) == list(range(1, COUNT + 1))
    assert all(iou(mask, MASKS[frame - 1]) > 0.8 for frame, mask in taken.items())


def test_png_masks_have_the_numbers_of_objects_as_values(tracked: Path) -> None:
    files = sorted((tracked / "masks").iterdir())
    assert [file.name for file in files] == [f"{frame:05d}.png" for frame in range(COUNT)]
    for frame, file in enumerate(files):
        image = Image.open(file)
        labels = np.asarray(image)
        assert image.mode == "P" and set(np.unique(labels)) <= {0, 1, 2}
        assert iou(labels > 0, MASKS[frame]) > 0.8


def test_the_overlay_shows_the_masks_at_the_times_of_the_frames(tracked: Path) -> None:
    video = open_video(tracked / "overlay.mp4")
    assert (video.size, video.count) == ((HEIGHT, WIDTH), COUNT)
    for frame, source in zip(video.frames(), open_video(tracked / "clip.gif").frames(), strict=True):
        assert frame.seconds == pytest.approx(source.seconds, abs=1e-3)
        changed = np.abs(frame.pixels.astype(int) - source.pixels).sum(-1) > 30
        assert (changed & MASKS[frame.number]).sum() > 0.6 * MASKS[frame.number].sum()
        assert (changed & ~MASKS[frame.number]).mean() < 0.05


def test_the_same_command_again_tracks_nothing_and_another_job_is_not_replaced(tracked: Path, tmp_path: Path) -> None:
    output, prompts = tracked / "tracks.parquet", tracked / "prompts.json"
    before = output.read_bytes()
    done = track(tracked / "clip.gif", prompts, output, "--part-frames", 4, "--mot", tmp_path / "again.txt")
    assert done.returncode == 0 and "is complete; there is nothing to track" in done.stdout
    assert (tmp_path / "again.txt").read_bytes() == (tracked / "mot.txt").read_bytes()
    other = tmp_path / "prompts.json"
    other.write_text(json.dumps(PROMPTS[:1]))
    done = track(tracked / "clip.gif", other, output, "--part-frames", 4)
    assert done.returncode == 2 and "exists and is not the output of this job" in done.stderr
    assert output.read_bytes() == before


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_killed_job_continues_and_gives_the_same_bytes(direction: str, tmp_path: Path) -> None:
    video, prompts = write_inputs(tmp_path)
    if direction == "backward":
        prompts.write_text(json.dumps([PROMPTS[0] | {"frame": COUNT - 1, "points": [[48, 48]]}]))
    output = tmp_path / "tracks.parquet"
    command = ["track", "--video", video, "--prompts", prompts, "--output", output, "--model", package.EMBEDDED]
    command += ["--direction", direction]
    process = subprocess.Popen(
        [warm.python(), "-m", "sam_endpoint", *map(str, command), "--part-frames", "4"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    parts = tmp_path / "tracks.parquet.parts"
    deadline = time.monotonic() + 120
    while not (parts / "part-000001.parquet").exists():
        assert process.poll() is None and time.monotonic() < deadline, "the job ended before it could be killed"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not output.exists()
    process.communicate()
    whole = tmp_path / "whole.parquet"
    for file in (output, whole):
        done = track(video, prompts, file, "--part-frames", 4, "--direction", direction)
        assert done.returncode == 0, done.stderr
        assert f"frames       10 ({8 if file == output else 0} done before)" in done.stdout
    assert output.read_bytes() == whole.read_bytes()
    assert not parts.exists()


@pytest.mark.parametrize("damaged", [".state-000001.safetensors", "part-000001.parquet"])
def test_what_is_damaged_is_tracked_again(damaged: str, tracked: Path, tmp_path: Path, tiny: Segmenter) -> None:
    """The job is stopped in its tenth frame, and a file that it has left is changed."""
    video, file = write_inputs(tmp_path)
    opened = open_video(video)
    prompts = parse_track_prompts(file.read_bytes(), opened.size, opened.count)
    tracker = tracker_for(tiny)
    output = tmp_path / "tracks.parquet"

    def track_until_the_last_frame(frames: Any, *arguments: Any) -> Iterator[TrackedFrame]:
        for tracked_frame in tracker.track(frames, *arguments):
            if tracked_frame.frame == COUNT - 1:
                raise KeyboardInterrupt
            yield tracked_frame

    stopped = replace(tracker, track=track_until_the_last_frame)
    with pytest.raises(KeyboardInterrupt):
        job.run(stopped, opened, prompts, Parts(str(output), {"same": "job"}), frames_per_part=4)
    left = tmp_path / "tracks.parquet.parts"
    assert {"part-000001.parquet", ".state-000001.safetensors"} <= {path.name for path in left.iterdir()}
    content = bytearray((left / damaged).read_bytes())
    content[-20] ^= 1
    (left / damaged).write_bytes(content)
    summary = job.run(tracker, opened, prompts, Parts(str(output), {"same": "job"}), frames_per_part=4)
    assert (summary.frames, summary.earlier, summary.error) == (COUNT, 4, "")
    assert read_rows(output) == read_rows(tracked / "tracks.parquet")


@pytest.mark.parametrize("ending", [".mp4", ".webm"])
def test_the_frames_before_a_broken_one_are_kept(ending: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noisy = np.clip(FRAMES + rng.normal(0, 25, FRAMES.shape), 0, 255).astype(np.uint8)
    video = cut(write_video(tmp_path / f"clip{ending}", noisy))
    _, prompts = write_inputs(tmp_path)
    output = tmp_path / "tracks.parquet"
    done = track(video, prompts, output, "--overlay", tmp_path / "overlay.webm")
    assert done.returncode == 1
    frames = {row["frame"] for row in read_rows(output)}
    assert 3 <= len(frames) < COUNT and frames == set(range(len(frames)))
    assert f"frame {len(frames)}: expected a file that holds all frames that its header announces" in done.stderr
    assert "the output holds the frames before it" in done.stderr
    assert open_video(tmp_path / "overlay.webm").count == len(frames)
    again = track(video, prompts, output)
    assert again.returncode == 1 and "there is nothing to track" in again.stdout
    assert f"frame {len(frames)}: expected" in again.stderr


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([{"frame": 10, "object": 1, "box": [1, 2, 3, 4]}], [], "column 'prompts', frame 10: expected a frame of the"),
        ([], [], "column 'prompts': expected a list of prompts such as"),
        (PROMPTS, ["--max-frames", 9], "column 'video': expected a video of at most 9 frames, got 10 frames"),
        (PROMPTS, ["--tracker", "memory"], "has no memory of earlier frames; choose 'box'"),
        (PROMPTS, ["--overlay", "out.avi"], "expected a file name that ends in .mp4 or .webm"),
        (PROMPTS, ["--mot", "out.csv"], "--mot 'out.csv': expected a file name that ends in .txt"),
    ],
)
def test_a_job_that_cannot_run_says_why(
    prompts: list[Any], options: list[object], message: str, tmp_path: Path
) -> None:
    video, file = write_inputs(tmp_path)
    file.write_text(json.dumps(prompts))
    done = track(video, file, tmp_path / "tracks.parquet", *options)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert not (tmp_path / "tracks.parquet").exists() and not (tmp_path / "tracks.parquet.parts").exists()


def test_a_model_with_memory_continues_with_the_same_masks(tmp_path: Path) -> None:
    """The state of the memory is put away after each part, and taken up again."""
    segmenter = Segmenter.load(str(checkpoints.save_sam2_video(tmp_path / "model")), "cpu")
    video, file = write_inputs(tmp_path)
    opened = open_video(video)
    prompts = parse_track_prompts(file.read_bytes(), opened.size, opened.count)
    tracker = tracker_for(segmenter)
    assert tracker.way == "memory"
    whole, resumed = tmp_path / "whole.parquet", tmp_path / "resumed.parquet"
    job.run(tracker, opened, prompts, Parts(str(whole), {"same": "job"}), frames_per_part=3)

    def stop_at(number: int) -> Any:
        def track_until(frames: Any, *arguments: Any) -> Iterator[TrackedFrame]:
            for tracked_frame in tracker.track(frames, *arguments):
                if tracked_frame.frame == number:
                    raise KeyboardInterrupt
                yield tracked_frame

        return track_until

    for number in (4, 8):
        with pytest.raises(KeyboardInterrupt):
            stopped = replace(tracker, track=stop_at(number))
            job.run(stopped, opened, prompts, Parts(str(resumed), {"same": "job"}), frames_per_part=3)
    summary = job.run(tracker, opened, prompts, Parts(str(resumed), {"same": "job"}), frames_per_part=3)
    assert (summary.frames, summary.earlier, summary.error) == (COUNT, 6, "")
    assert resumed.read_bytes() == whole.read_bytes()
    assert {row["object"] for row in read_rows(whole)} == {1, 2}


@pytest.mark.parametrize("direction", ["backward", "both"])
def test_other_directions_continue_after_a_stop_and_give_the_same_bytes(direction: str, tmp_path: Path) -> None:
    """The job is stopped in each direction. A frame and object has one row, and the rows are in order."""
    segmenter = Segmenter.load(str(checkpoints.save_sam2_video(tmp_path / "model", side=64)), "cpu")
    video, file = write_inputs(tmp_path)
    file.write_text(json.dumps([PROMPTS[0] | {"frame": 4, "points": [[38, 48]]}, PROMPTS[1] | {"frame": 6}]))
    opened = open_video(video)
    prompts = parse_track_prompts(file.read_bytes(), opened.size, opened.count)
    tracker = tracker_for(segmenter)
    whole, resumed = tmp_path / "whole.parquet", tmp_path / "resumed.parquet"
    summary = job.run(tracker, opened, prompts, Parts(str(whole), {"same": "job"}), 3, direction)
    ends = {"backward": 6, "both": COUNT - 1}
    assert (summary.frames, summary.error) == (ends[direction] + 1, "")
    rows = read_rows(whole)
    first, last = {"backward": (4, 6), "both": (COUNT - 1, COUNT - 1)}[direction]
    expected = [(frame, 1) for frame in range(first + 1)] + [(frame, 2) for frame in range(last + 1)]
    assert [(row["frame"], row["object"]) for row in rows] == sorted(expected)

    def stop_after(count: int) -> Any:
        left = count

        def track_until(frames: Any, *arguments: Any) -> Iterator[TrackedFrame]:
            nonlocal left
            for tracked_frame in tracker.track(frames, *arguments):
                if not left:
                    raise KeyboardInterrupt
                left -= 1
                yield tracked_frame

        return track_until

    total = 7 if direction == "backward" else COUNT + 7
    for count in (4, total - 4):  # in the second direction of `both`, too
        with pytest.raises(KeyboardInterrupt):
            stopped = replace(tracker, track=stop_after(count))
            job.run(stopped, opened, prompts, Parts(str(resumed), {"same": "job"}), 3, direction)
    summary = job.run(tracker, opened, prompts, Parts(str(resumed), {"same": "job"}), 3, direction)
    assert summary.earlier > 0 and resumed.read_bytes() == whole.read_bytes()


def test_the_command_tracks_in_both_directions(tmp_path: Path) -> None:
    video, prompts = write_inputs(tmp_path)
    prompts.write_text(json.dumps([PROMPTS[0] | {"frame": 4, "points": [[38, 48]]}]))
    for direction, frames in (("backward", range(5)), ("both", range(COUNT))):
        output = tmp_path / f"{direction}.parquet"
        done = track(video, prompts, output, "--direction", direction, "--png-masks", tmp_path / direction)
        assert done.returncode == 0 and f"tracker      box, {direction}" in done.stdout, done.stderr
        rows = read_rows(output)
        assert [row["frame"] for row in rows] == list(frames)
        assert all(iou(decode(row["size"], row["encoded_binary_mask"]), MASKS[row["frame"]]) > 0.8 for row in rows)
        assert len(list((tmp_path / direction).iterdir())) == len(frames)


def test_a_broken_frame_ends_each_direction(tmp_path: Path) -> None:
    folder = write_video(tmp_path / "frames", FRAMES)
    (folder / "frame6.png").write_bytes(b"broken")
    _, prompts = write_inputs(tmp_path)
    prompts.write_text(json.dumps([PROMPTS[0] | {"frame": 8, "points": [[46, 48]]}]))
    output = tmp_path / "tracks.parquet"
    done = track(folder, prompts, output, "--direction", "backward", "--mot", tmp_path / "mot.txt")
    assert done.returncode == 1 and "column 'video', frame 6: expected" in done.stderr
    assert [row["frame"] for row in read_rows(output)] == [7, 8]


def test_mot_keeps_large_object_numbers(tmp_path: Path) -> None:
    answer = encode(np.ones((4, 6), bool), "rle")
    numbers = [1_234_567, 1_234_568]
    records = [{"frame": 0, "object": number, "score": 0.9, **answer} for number in numbers]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "tracks.parquet")
    write_mot(tmp_path / "tracks.parquet", tmp_path / "mot.txt")
    lines = (tmp_path / "mot.txt").read_text().splitlines()
    assert [line.split(",")[:6] for line in lines] == [["1", str(number), "0", "0", "6", "4"] for number in numbers]
