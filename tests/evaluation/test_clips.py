"""Drawn clips, and the evaluation of tracking on them and on folders in the layout of DAVIS."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import numpy as np
import pytest
from PIL import Image

from sam_endpoint.evaluation.clips import Clip, draw_clip
from sam_endpoint.evaluation.clips.davis_folder import read_davis
from sam_endpoint.model.mlflow import package
from tests import checkpoints
from tests.evaluation.coco_files import evaluate_here, evaluate_logged
from tests.videos import disc_frames


@pytest.mark.parametrize("index", range(3))
def test_a_clip_depends_only_on_its_seed_and_index(index: int) -> None:
    clip, same, other = (draw_clip(seed, index, length=8) for seed in (7, 7, 8))
    assert np.array_equal(clip.frames, same.frames) and np.array_equal(clip.labels, same.labels)
    assert clip.frames.shape != other.frames.shape or not np.array_equal(clip.frames, other.frames)
    assert clip.frames.dtype == np.uint8 and clip.frames.shape == (*clip.labels.shape, 3)
    assert len(clip.frames) == 8 and max(clip.labels.shape[1:]) == 256


def test_objects_move_and_are_hidden_for_some_frames() -> None:
    moved, hidden, changed_light = [], 0, []
    for index in range(6):
        clip = draw_clip(7, index)
        assert len(clip.frames) == 32 and clip.has_occlusion()
        areas = clip.areas()
        for number in clip.objects():
            gone = clip.hidden(number)
            assert not gone[0] and gone.mean() <= 0.5
            hidden += bool(gone.sum() >= 2 and not gone[-1])
            assert areas[0, number] >= 40
            moved.append(distance(clip, number))
        background = [frame[label == 0].mean() for frame, label in zip(clip.frames, clip.labels, strict=True)]
        changed_light.append(max(background) / min(background))
    assert hidden >= 6 and np.median(moved) > 15 and np.median(changed_light) > 1.1


def distance(clip: Clip, number: int) -> float:
    """Return the largest distance of an object's centre from its first place, in pixels."""
    centres = [np.argwhere(clip.mask(int(frame), number)).mean(0) for frame in np.flatnonzero(clip.areas()[:, number])]
    return float(max(np.linalg.norm(centre - centres[0]) for centre in centres))


def test_labels_fit_the_pixels() -> None:
    """At the border of a moving object the picture changes: the labels are at the place of the object."""
    inside, across = [], []
    for index in range(4):
        clip = draw_clip(7, index, length=8)
        for frame, labels in zip(clip.frames.astype(float), clip.labels, strict=True):
            steps = np.abs(np.diff(frame, axis=1)).sum(-1)
            border = labels[:, 1:] != labels[:, :-1]
            across.append(steps[border].mean() if border.any() else np.nan)
            inside.append(steps[~border].mean())
    assert np.nanmean(across) > 3 * np.mean(inside)


@pytest.fixture(scope="module")
def davis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write two videos of a disc in the layout of DAVIS; one of its pixels is void."""
    folder = tmp_path_factory.mktemp("davis")
    for name, step in (("fast", 6), ("slow", 1)):
        frames, masks = disc_frames(6, step)
        images, annotations = (folder / part / "480p" / name for part in ("JPEGImages", "Annotations"))
        images.mkdir(parents=True)
        annotations.mkdir(parents=True)
        for number, (frame, mask) in enumerate(zip(frames, masks, strict=True)):
            Image.fromarray(frame).save(images / f"{number:05d}.jpg", quality=95)
            labels = mask.astype(np.uint8)
            labels[0, 0] = 255
            image = Image.fromarray(labels, "P")
            image.putpalette([0, 0, 0, 200, 0, 0])
            image.save(annotations / f"{number:05d}.png")
    return folder


def test_evaluates_a_davis_folder_with_both_baselines(davis: Path, tmp_path: Path) -> None:
    done = evaluate_here(
        tmp_path, "--model", package.EMBEDDED, "--data", davis, "--output", "out.json", "--pictures", "pictures"
    )
    assert done.returncode == 0, done.stderr
    assert "2 clips, 2 objects, one click each in the first frame" in done.stdout
    report = json.loads((tmp_path / "out.json").read_text())
    box, first = (report["methods"][name] for name in ("box of the last mask", "first mask repeated"))
    assert box["J mean"] > 0.85 and box["F mean"] > 0.85
    assert box["J&F"] == pytest.approx((box["J mean"] + box["F mean"]) / 2, abs=1e-3)
    assert first["J mean"] < box["J mean"] - 0.2 and first["J decay"] > 0.2 > abs(box["J decay"])
    assert "hidden found" not in box  # the disc is always visible
    clips, frames = (Image.open(tmp_path / "pictures" / f"{name}.png") for name in ("clips", "frames"))
    assert clips.width > 600 and clips.height > 600 and frames.size == (440, 360)


def test_a_model_with_memory_is_compared_with_both_baselines(davis: Path, tmp_path: Path) -> None:
    model = checkpoints.save_sam2_video(tmp_path / "model")
    done = evaluate_here(tmp_path, "--model", model, "--data", davis, "--output", "out.json", "--count", 1)
    assert done.returncode == 0, done.stderr
    methods = json.loads((tmp_path / "out.json").read_text())["methods"]
    assert list(methods) == ["memory", "box of the last mask", "first mask repeated"]


def test_the_limit_on_videos_and_mlflow_metrics(davis: Path, tmp_path: Path) -> None:
    done = evaluate_logged(tmp_path, "--model", package.EMBEDDED, "--data", davis, "--count", 1)
    assert done.returncode == 0 and "1 clips, 1 objects" in done.stdout, done.stderr
    (run,) = mlflow.MlflowClient(f"sqlite:///{tmp_path}/runs.db").search_runs(["0"])
    assert run.data.metrics["box of the last mask/J mean"] > 0.8


def test_a_folder_with_a_missing_mask_is_an_error(davis: Path, tmp_path: Path) -> None:
    copy = tmp_path / "davis"
    for part in ("JPEGImages", "Annotations"):
        (copy / part / "fast").mkdir(parents=True)
        for file in (davis / part / "480p" / "fast").iterdir():
            (copy / part / "fast" / file.name).write_bytes(file.read_bytes())
    (copy / "Annotations" / "fast" / "00003.png").unlink()
    done = evaluate_here(tmp_path, "--model", package.EMBEDDED, "--data", copy)
    assert done.returncode == 2 and "expected one mask per frame of 'fast', got 5 for 6" in done.stderr


def test_masks_belong_to_the_frame_of_their_number(tmp_path: Path) -> None:
    """Names without leading zeros: `10.png` is the mask of frame 10, not of frame 2."""
    for folder in ("JPEGImages", "Annotations"):
        (tmp_path / folder / "a").mkdir(parents=True)
    for number in range(11):
        mask = np.zeros((20, 60), np.uint8)
        mask[5:15, 5 * number : 5 * number + 5] = 1
        Image.fromarray(np.repeat(mask[..., None] * 255, 3, 2)).save(
            tmp_path / f"JPEGImages/a/{number}.jpg", quality=95
        )
        Image.fromarray(mask).save(tmp_path / f"Annotations/a/{number}.png")
    ((_, clip),) = read_davis(tmp_path)
    for number in range(11):
        assert np.array_equal(clip.mask(number, 1), clip.frames[number][..., 0] > 127)
