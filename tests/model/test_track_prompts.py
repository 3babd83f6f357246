"""Parse the prompts of a video, and track with a model that has no memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sam_endpoint.model.errors import BadData, BadFrame, BadInput, BadParameter
from sam_endpoint.model.masks import decode, to_rle
from sam_endpoint.model.segmenter import Segmenter
from sam_endpoint.model.tracking import TrackPrompt
from sam_endpoint.model.tracking.by_box import BoxState, track_by_box
from sam_endpoint.model.tracking.prompt_list import parse_track_prompts
from sam_endpoint.model.tracking.records import TrackRecord, track_records
from sam_endpoint.model.tracking.ways import tracker_for
from tests.pictures import iou
from tests.videos import disc_frames

SIZE = (96, 128)
FRAMES, MASKS = disc_frames(12)


def test_reads_points_boxes_and_masks_in_the_order_of_frames() -> None:
    rle = to_rle(MASKS[0])
    prompts = parse_track_prompts(
        json.dumps(
            [
                {"frame": 5, "object": 2, "box": [1, 2, 30, 40], "points": [[3, 4]]},
                {"frame": 0, "object": 7, "mask": {"size": rle["size"], "counts": rle["counts"].decode()}},
                {"frame": 0, "object": 1, "points": [[10, 20], [30, 40]], "labels": [1, 0]},
                {"frame": 6, "object": 7, "points": [[1, 1]], "labels": [0]},
            ]
        ),
        SIZE,
        count=12,
    )
    assert [(prompt.frame, prompt.object) for prompt in prompts] == [(0, 1), (0, 7), (5, 2), (6, 7)]
    click, mask, both, correction = prompts
    assert click.points is not None and click.points.tolist() == [[10, 20], [30, 40]]
    assert click.labels is not None and click.labels.tolist() == [1, 0] and click.labels.dtype == np.int32
    assert mask.mask is not None and np.array_equal(mask.mask, MASKS[0])
    assert both.box is not None and both.box.tolist() == [1, 2, 30, 40] and both.points is not None
    assert correction.labels is not None and correction.labels.tolist() == [0]


BAD = [
    ("no json", "text of 7 characters that is not JSON", None),
    ([], "expected a list of prompts such as", None),
    ({"frame": 0}, "got an object with 1 keys", None),
    ([3], "the number 3 as prompt 0", None),
    ([{"object": 1, "box": [1, 2, 3, 4]}], "as 'frame' of prompt 0, got nothing", None),
    ([{"frame": 0, "object": -1, "box": [1, 2, 3, 4]}], "as 'object' of prompt 0, got the number -1", None),
    ([{"frame": 0, "object": True, "box": [1, 2, 3, 4]}], "as 'object' of prompt 0, got true", None),
    ([{"frame": 0, "object": 1, "bbox": [1, 2, 3, 4]}], "got another field in prompt 0", None),
    ([{"frame": 12, "object": 1, "box": [1, 2, 3, 4]}], "0 to 11, got a prompt after its end", 12),
    ([{"frame": 3, "object": 1, "box": [5, 2, 3, 4]}], "in 'box' of object 1, got a box 5,2,3,4", 3),
    ([{"frame": 3, "object": 1, "points": [[1, "a"]]}], "where a number is expected", 3),
    ([{"frame": 3, "object": 1, "points": [[1, 2]], "labels": [1, 1]}], "in 'labels' of object 1, got 2 labels", 3),
    ([{"frame": 3, "object": 1, "points": [[1, 2]], "labels": [-1]}], "labels 1 (object) and 0 (background)", 3),
    ([{"frame": 3, "object": 1}], "points, a box or a mask of one object in each prompt", 3),
    ([{"frame": 3, "object": 1, "box": [[1, 2, 3, 4], [1, 2, 3, 4]]}], "got 2 sets of them", 3),
    ([{"frame": 3, "object": 1, "mask": {"size": [9, 9], "counts": [81]}}], "run lengths of size [96, 128]", 3),
    ([{"frame": 3, "object": 1, "mask": {"size": [96, 128], "counts": [12288]}}], "got an empty mask", 3),
    ([{"frame": 3, "object": 1, "mask": [], "box": [1, 2, 3, 4]}], "a mask without points and box", 3),
    ([{"frame": 3, "object": 1, "box": [1, 2, 3, 4]}] * 2, "a second prompt for object 1", 3),
    ([{"frame": 3, "object": 4, "points": [[1, 2]], "labels": [0]}], "only background points for object 4", None),
]


@pytest.mark.parametrize(("value", "message", "frame"), BAD)
def test_a_bad_prompt_is_an_error_that_names_its_frame(value: object, message: str, frame: int | None) -> None:
    with pytest.raises(BadInput) as caught:
        parse_track_prompts(value, SIZE, count=12)
    assert message in str(caught.value)
    assert "column 'prompts'" in str(caught.value)
    assert (caught.value.frame if isinstance(caught.value, BadFrame) else None) == frame
    if frame is not None:
        assert f"frame {frame}: expected" in str(caught.value)


def click(frame: int = 0, number: int = 1, x: float = 30, label: int = 1) -> TrackPrompt:
    return TrackPrompt(frame, number, np.array([[x, 48]], np.float32), np.array([label], np.int32))


def track(tiny: Segmenter, prompts: list[TrackPrompt], state: BoxState, start: int = 0) -> list[TrackRecord]:
    frames = list(enumerate(FRAMES))[start:]
    return [row for tracked in track_by_box(tiny, frames, prompts, state) for row in track_records(tiny, tracked)]


def test_the_box_of_the_last_mask_follows_a_disc(tiny: Segmenter) -> None:
    frames = list(track_by_box(tiny, enumerate(FRAMES), [click()]))
    assert [tracked.frame for tracked in frames] == list(range(12))
    for tracked, true in zip(frames, MASKS, strict=True):
        (record,) = track_records(tiny, tracked)
        mask = decode(record["encoded_binary_mask"], "rle", (96, 128))
        assert iou(mask, true) > 0.85
        assert record["area"] == mask.sum() and record["size"] == [96, 128] and 0 <= record["score"] <= 1


def test_a_state_that_was_put_away_continues_with_the_same_masks(tiny: Segmenter, tmp_path: Path) -> None:
    prompts = [click(), click(4, 2, x=38)]
    whole = track(tiny, prompts, BoxState())
    assert [record["frame"] for record in whole if record["object"] == 2] == list(range(4, 12))
    state = BoxState()
    generator = track_by_box(tiny, enumerate(FRAMES[:6]), prompts, state)
    first = [row for tracked in generator for row in track_records(tiny, tracked)]
    state.save(tmp_path / "state.safetensors")
    assert [*first, *track(tiny, prompts, BoxState.load(tmp_path / "state.safetensors"), start=6)] == whole
    (tmp_path / "bad.safetensors").write_bytes(b"not a state")
    with pytest.raises(BadData, match="is not the state of a tracker"):
        BoxState.load(tmp_path / "bad.safetensors")


def test_prompts_may_be_added_while_the_frames_are_tracked(tiny: Segmenter) -> None:
    prompts = [click()]
    numbers = []
    for tracked in track_by_box(tiny, enumerate(FRAMES[:4]), prompts):
        numbers.append([thing.object for thing in tracked.objects])
        if tracked.frame == 1:
            prompts.append(click(2, 5, x=34))
    assert numbers == [[1], [1], [1, 5], [1, 5]]


def test_a_background_point_alone_is_an_error_before_the_object_has_a_mask(tiny: Segmenter) -> None:
    done = []
    with pytest.raises(BadFrame, match="frame 2: expected an object point, a box or a mask first"):
        for tracked in track_by_box(tiny, enumerate(FRAMES[:4]), [click(), click(2, 9, label=0)]):
            done.append(tracked.frame)
    assert done == [0, 1]


def test_a_model_without_memory_tracks_by_box_only(tiny: Segmenter) -> None:
    assert tracker_for(tiny).way == tracker_for(tiny, "box").way == "box"
    with pytest.raises(BadParameter, match="has no memory of earlier frames; choose 'box'"):
        tracker_for(tiny, "memory")
    with pytest.raises(BadParameter, match="expected one of auto, memory, box"):
        tracker_for(tiny, "other")
