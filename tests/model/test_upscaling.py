"""Upscaling of masks to the size of the image, compared with torch's upscaling of all logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sam_endpoint.model.upscaling import Step, upscale_masks

SIDE = 64


def draw_logits(kind: str) -> Tensor:
    """Draw logits of 64 x 64."""
    y, x = np.mgrid[:SIDE, :SIDE]
    rng = np.random.default_rng(0)
    values = {
        "disc": 8 - np.hypot(y - 20, x - 30),
        "corner": 30 - (y + x),
        "far corner": (y + x) - 2 * SIDE + 12,
        "two": np.maximum(4 - np.hypot(y - 8, x - 50), 3 - np.hypot(y - 40, x - 6)),
        "noise": rng.normal(size=(SIDE, SIDE)),
        "all": np.full((SIDE, SIDE), 3.0),
        "none": np.full((SIDE, SIDE), -3.0),
        "one": np.where((y == 33) & (x == 12), 2.0, -1.0),
        "beyond the image": (y - 50.0),
    }[kind]
    return torch.tensor(values + 0.0123, dtype=torch.float32)


def steps(size: tuple[int, int], padded: bool) -> list[Step]:
    """Return the steps of upscaling: two for SAM, whose input is padded, one for SAM 2."""
    scaled = tuple(max(1, round(side * 4 * SIDE / max(size))) for side in size)
    low, high = (SIDE, SIDE), (4 * SIDE, 4 * SIDE)
    return [(low, high), ((scaled[0], scaled[1]), size)] if padded else [(low, size)]


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize(
    "size", [(480, 640), (640, 333), (1, 1), (1, 300), (300, 1), (31, 17), (256, 256), (256, 100), (64, 64)]
)
@pytest.mark.parametrize(
    "kind", ["disc", "corner", "far corner", "two", "noise", "all", "none", "one", "beyond the image"]
)
def test_masks_equal_those_of_torchs_upscaling(kind: str, size: tuple[int, int], padded: bool) -> None:
    logits = draw_logits(kind)
    full = logits[None, None]
    for (height, width), larger in steps(size, padded):
        full = F.interpolate(full[..., :height, :width], larger, mode="bilinear", align_corners=False)
    thresholds = (-1.0, 0.0, 1.0)
    masks = upscale_masks(logits.numpy(), steps(size, padded), thresholds)
    for threshold, cropped in zip(thresholds, masks, strict=True):
        assert cropped.size == size
        differ = cropped.whole() != (full[0, 0] > threshold).numpy()
        assert not differ.any() or full[0, 0].numpy()[differ] == pytest.approx(threshold, abs=1e-5)
        assert differ.mean() <= 0.0001


def test_upscales_only_the_box_of_a_mask() -> None:
    (cropped,) = upscale_masks(draw_logits("disc").numpy(), steps((6400, 6400), True), (0.0,))
    rows, columns = cropped.inside.shape
    assert 1500 < rows < 1900 and 1500 < columns < 1900
    (none,) = upscale_masks(draw_logits("none").numpy(), steps((6400, 6400), True), (0.0,))
    assert none.inside.size == 0 and not none.whole().any()
