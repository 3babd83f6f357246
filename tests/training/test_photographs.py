"""Training on photographs with masks, and on composites of them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sam_endpoint.model.errors import BadData, BadParameter
from sam_endpoint.training.batches import Batches, Mixture
from sam_endpoint.training.cache import SceneCache
from sam_endpoint.training.composites import EDGE, Collage, draw_composite
from sam_endpoint.training.options import Plan, TrainingOptions
from sam_endpoint.training.photographs import choose_bits, read_photographs
from sam_endpoint.training.train import train
from tests.conftest import ROOT
from tests.warm import python

GREY, RED, BLUE = (120, 120, 120), (220, 30, 30), (30, 30, 220)
Rectangle = tuple[int, int, int, int]  # x, y, width, height


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a red house that has two blue windows, and a picture with a single red thing."""
    folder = tmp_path_factory.mktemp("houses")
    house, windows = (40, 40, 240, 180), [(80, 80, 50, 50), (180, 80, 50, 60)]
    write_photographs(folder, [[(house, RED), *((window, BLUE) for window in windows)], [((100, 60, 90, 70), RED)]])
    return folder


def write_photographs(folder: Path, pictures: list[list[tuple[Rectangle, tuple[int, int, int]]]]) -> None:
    """Write grey pictures of 320 x 256 pixels with coloured rectangles, and their COCO file."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, things in enumerate(pictures):
        pixels = np.full((256, 320, 3), GREY, np.uint8)
        for (x, y, width, height), color in things:
            pixels[y : y + height, x : x + width] = color
            outline = [x, y, x + width, y, x + width, y + height, x, y + height]
            annotations.append({"id": len(annotations), "image_id": number, "segmentation": [outline]})
        Image.fromarray(pixels).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 320, "height": 256})
    annotations.append({**annotations[0], "id": len(annotations), "iscrowd": 1})
    (folder / "instances.json").write_text(json.dumps({"images": images, "annotations": annotations}))


def batches_of(folder: Path, share: float, stretched: bool = False) -> Batches:
    """Return batches with a share of photographs. The others are composites."""
    photographs = read_photographs([folder])
    scenes = SceneCache(folder / "scenes", 1, 2)
    scenes.draw(1)
    composites = SceneCache(folder / "composites", 1, 4, EDGE)
    composites.draw(1, partial(draw_composite, photographs))
    mixture = Mixture(photographs, composites, share, 1 - share)
    return Batches(scenes, 1, 4, 4, 192, windowed=1, stretched=stretched, close=True, mixture=mixture)


def test_reads_masks_and_boxes_without_crowd_regions(houses: Path) -> None:
    first, second = read_photographs([houses])
    assert first.boxes.tolist() == [[40, 40, 280, 220], [80, 80, 130, 130], [180, 80, 230, 140]]
    assert (len(second.masks), second.size) == (1, (256, 320))
    bits = first.labels([1, 0], (slice(0, 256), slice(0, 320)))
    assert (bits[100, 100], bits[60, 60], bits[10, 10]) == (0b11, 0b10, 0)
    assert first.visible((slice(0, 70), slice(0, 320))).tolist() == [0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "is not JSON"),
        ('{"images": []}', "KeyError 'annotations'"),
        ('{"images": [], "annotations": []}', "expected at least one image with a mask, got none"),
    ],
)
def test_says_which_file_has_no_photographs(content: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "instances.json").write_text(content)
    with pytest.raises(BadData, match=reason) as error:
        read_photographs([tmp_path])
    assert str(tmp_path / "instances.json") in str(error.value)


def test_chooses_parts_and_wholes(houses: Path) -> None:
    labels = read_photographs([houses])[0].labels([0, 1, 2], (slice(0, 256), slice(0, 320)))
    rng, areas = np.random.default_rng(0), Counter[int]()
    for _ in range(300):
        masks = choose_bits(rng, labels, 4, 100)
        assert masks is not None
        areas.update(int(area) for area in masks.sum((1, 2)))
    assert set(areas) == {240 * 180, 50 * 50, 50 * 60}
    assert areas[240 * 180] > 1.2 * areas[50 * 60]  # it also follows its windows
    assert areas[50 * 50] > 200  # each mask is chosen before any mask is chosen twice
    assert choose_bits(rng, labels, 4, 240 * 180 + 1) is None


@pytest.mark.parametrize("stretched", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_masks_follow_the_objects_of_cropped_photographs(whole: bool, stretched: bool, houses: Path) -> None:
    batches = batches_of(houses, 1.0, stretched)
    rng, shown = np.random.default_rng(3), Counter[bool]()
    for _ in range(40):
        cropped = batches.crop_photograph(rng, batches.mixture.photographs, 192, whole) if batches.mixture else None
        if cropped is None:
            continue
        image, masks = cropped
        assert masks.shape == (4, *image.shape[:2]) and max(image.shape) == 192
        colored = (np.ptp(image.astype(int), axis=2) > 60) & (image[..., 1] < 90)
        inside = masks.any(0)
        assert (colored & inside).sum() > 0.9 * inside.sum()  # except pixels that a camera and a JPEG file blur
        shown[bool(is_blue(image)[inside].any())] += 1
    assert min(shown.values()) > 5  # both photographs, although one has three times as many masks


def is_blue(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which pixels are blue."""
    return image[..., 2].astype(int) > image[..., 0].astype(int) + 60


def test_a_batch_of_photographs_and_composites_depends_only_on_the_step(houses: Path) -> None:
    batches = batches_of(houses, 0.5)
    for step, side in ((0, 96), (1, 192)):
        batch = batches[step]
        assert batch.images.shape[1:] == (side, side, 3)
        assert (batch.masks.max((2, 3)) > 127).all()  # no empty target
        again = batches[step]
        assert np.array_equal(batch.images, again.images) and np.array_equal(batch.masks, again.masks)


def test_a_composite_depends_only_on_its_seed_and_index(houses: Path) -> None:
    photographs = read_photographs([houses])
    first, again, other = (draw_composite(photographs, 1, index) for index in (0, 0, 1))
    assert np.array_equal(first.image, again.image) and np.array_equal(first.labels, again.labels)
    assert max(first.labels.shape) == EDGE and first.labels.max() > 0
    assert first.image.shape != other.image.shape or not np.array_equal(first.image, other.image)


def test_the_visible_part_of_a_pasted_object_has_its_label(houses: Path) -> None:
    """Pastes a square partly over another one, and one partly outside the image."""
    collage = Collage(np.random.default_rng(0), np.full((200, 200, 3), 0.5, np.float32), read_photographs([houses]))
    collage.harmony = 0.0
    green, square = np.full((60, 60, 3), (0, 0.8, 0), np.float32), np.ones((60, 60), np.float32)
    for left, top in ((40, 40), (70, 40), (170, 170)):
        collage.paste(green, square, left, top, 30)
    image, labels = collage.canvas.image, collage.canvas.labels
    assert labels[70, 50] == 1 and labels[70, 85] == 2 and labels[199, 199] == 3  # the second covers the first
    expected = {1: 30 * 60, 2: 60 * 60, 3: 30 * 30}
    for label, area in expected.items():
        assert abs(int((labels == label).sum()) - area) < 0.12 * area
    is_green = image[..., 1] > image[..., 0] + 0.25
    assert (is_green == (labels > 0)).mean() > 0.98
    assert (image[labels == 0] < 0.45).any()  # a shadow


def test_the_command_trains_on_photographs(houses: Path, tmp_path: Path) -> None:
    arguments = ["--scenes=2", "--composites=2", "--side=128", "--windowed=1", "--images=1", "--masks=2", "--steps=2"]
    arguments += ["--eager", f"--output={tmp_path / 'checkpoint'}", f"--cache={tmp_path / 'cache'}", "--photos"]
    command = [python(), "-m", "sam_endpoint", "train", *arguments, str(houses)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "checkpoint" / "model.safetensors").exists()
    done = subprocess.run([*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"'{tmp_path / 'instances.json'}' cannot be read: No such file or directory" in done.stderr


def test_a_cache_belongs_to_one_start_and_to_its_photographs(houses: Path, tmp_path: Path) -> None:
    """Otherwise, a training from another checkpoint would end at once, with the weights of the training before."""
    plan = Plan(scenes=2, composites=2, side=128, windowed=1, images=1, masks=2, steps=1)
    options = TrainingOptions(tmp_path / "a", plan=plan, cache=tmp_path / "cache", eager=True, workers=0, drawers=1)
    options = replace(options, start=Path("checkpoints/sam-tiny"))
    with pytest.raises(FileNotFoundError):
        train(replace(options, start=tmp_path / "misspelt"))
    train(options)
    train(replace(options, start=shutil.copytree("checkpoints/sam-tiny", tmp_path / "copy")))
    for other in ({"start": tmp_path / "a"}, {"start": None}, {"photographs": (houses,)}):
        with pytest.raises(BadParameter, match="belongs to another training, with another checkpoint to start from"):
            train(replace(options, **other))
