"""Batches of training: the choice of objects, and their boxes and clicks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sam_endpoint.evaluation.geometry import bounding_box
from sam_endpoint.training import prompts
from sam_endpoint.training.batches import Batches, choose_masks
from sam_endpoint.training.cache import SceneCache


def test_chooses_an_object_far_more_often_than_its_parts() -> None:
    """The scene has a plate whose well is a part of it, and a rim without parts."""
    labels = np.zeros((60, 120), np.uint8)
    labels[5:55, 5:55], labels[15:45, 15:45], labels[5:55, 65:115] = 1, 2, 3
    owners = np.arange(256, dtype=np.uint8)
    owners[2] = 1
    rng, counts = np.random.default_rng(0), {"plate": 0, "well": 0, "flange": 0, "rim": 0}
    areas = {2500: "plate", 900: "well", 1600: "flange"}
    for _ in range(500):
        masks = choose_masks(rng, labels, owners, 2, 40)
        assert masks is not None
        for mask in masks:
            counts["rim" if mask[5, 65] else areas[int(mask.sum())]] += 1
    assert counts["rim"] == 500  # each object is chosen once before any object is chosen twice
    assert 400 < counts["plate"] < 450  # 85 %
    assert counts["well"] > 15 and counts["flange"] > 15


def test_chooses_no_mask_if_no_object_is_large_enough() -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[:6, :6] = 1
    assert choose_masks(np.random.default_rng(0), labels, np.arange(256, dtype=np.uint8), 2, 40) is None


@pytest.mark.parametrize("stretched", [False, True])
def test_boxes_enclose_their_masks_and_clicks_are_inside(stretched: bool, tmp_path: Path) -> None:
    cache = SceneCache(tmp_path, 1, 8)
    cache.draw(1)
    batches = Batches(cache, 1, 4, 3, 128, windowed=1, stretched=stretched)
    for step in range(2):
        batch = batches[step]
        masks = torch.from_numpy(batch.masks).flatten(0, 1).float() / 255
        for mask, box in zip(masks, batch.boxes.reshape(-1, 4), strict=True):
            coarse = 2 * bounding_box(mask.numpy() > 0)  # a pixel of the mask is two pixels of the image wide
            assert np.all(np.abs(box - coarse) <= 1)
            assert box[0] >= coarse[0] and box[2] <= coarse[2]
        cells, labels = prompts.first_clicks(masks, torch.Generator().manual_seed(step))
        assert labels.all()
        for mask, (x, y) in zip(masks, cells.tolist(), strict=True):
            assert mask[y, x] > 0.5


def test_jitter_keeps_half_of_the_boxes_and_moves_the_others_slightly() -> None:
    boxes = torch.tensor([10.0, 20.0, 110.0, 70.0]).repeat(4000, 1)
    jittered = prompts.jitter_boxes(boxes, torch.Generator().manual_seed(0))
    assert 1900 < int((jittered == boxes).all(1).sum()) < 2100
    offset = (jittered - boxes).abs() / torch.tensor([100.0, 50.0, 100.0, 50.0])
    assert 0.1 < offset.max() <= 0.2
