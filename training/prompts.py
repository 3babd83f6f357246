"""Simulated clicks and boxes for training, sampled from the target masks on the model's device.

A cell is one pixel of a target mask.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOWS = (3, 7, 15)  # sides of the windows in `depth`, in pixels; the windows cover the region at half its resolution


def depth(region: Tensor) -> Tensor:
    """Estimate how far each cell lies from the outline of its region.

    The estimate is the mean share of the region in windows of several sizes around the cell.

    Args:
        region: (prompts, height, width), 0 to 1; height and width are even.

    Returns:
        (prompts, height, width), 0 to 1; 1 deep inside the region.
    """
    fine = F.avg_pool2d(region[:, None], 3, 1, 1)
    coarse = F.avg_pool2d(region[:, None], 2)
    total = torch.zeros_like(coarse)
    for window in WINDOWS:
        rows = F.avg_pool2d(coarse, (window, 1), 1, (window // 2, 0))
        total = total + F.avg_pool2d(rows, (1, window), 1, (0, window // 2))
    total = total.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return (total + fine)[:, 0] / (len(WINDOWS) + 1)


def sample_cells(region: Tensor, generator: torch.Generator, centered: float) -> Tensor:
    """Sample a cell in each region.

    Args:
        region: (prompts, height, width), 0 to 1.
        generator: The random generator.
        centered: The probability of a cell near the region's centre. Otherwise, all cells are equally likely.

    Returns:
        x and y of a cell, (prompts, 2).
    """
    prompts, _, width = region.shape
    noise = torch.rand(region.shape, generator=generator).to(region.device)
    is_centered = (torch.rand(prompts, 1, 1, generator=generator) < centered).to(region.device)
    score = region * torch.where(is_centered, depth(region) * (0.9 + 0.1 * noise), noise + 1e-3)
    best = score.flatten(1).argmax(1)
    return torch.stack([best % width, best // width], dim=1)


def first_clicks(targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sample a positive click on each target.

    Args:
        targets: (prompts, height, width), 0 to 1.
        generator: The random generator.

    Returns:
        Cells (prompts, 2) and labels (prompts,).
    """
    cells = sample_cells((targets > 0.5).float(), generator, centered=0.8)
    return cells, torch.ones(len(targets), dtype=torch.long, device=targets.device)


def next_clicks(targets: Tensor, logits: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sample a click in the error of each predicted mask: positive in a missed region, negative in an extra region.

    A mask without error gets another positive click.

    Args:
        targets: (prompts, height, width), 0 to 1.
        logits: (prompts, height, width), of the predicted masks.
        generator: The random generator.

    Returns:
        Cells (prompts, 2) and labels (prompts,).
    """
    true, predicted = targets > 0.5, logits > 0
    error = (true ^ predicted).float()
    missed, extra = (true & ~predicted).float(), (predicted & ~true).float()
    depths = torch.maximum(depth(missed) * missed, depth(extra) * extra)
    deepest = depths.flatten(1).amax(1)[:, None, None]
    error = torch.where(deepest > 0, error * (depths > 0.5 * deepest), true.float())
    cells = sample_cells(error, generator, centered=0.7)
    positive = true[torch.arange(len(cells), device=cells.device), cells[:, 1], cells[:, 0]]
    return cells, positive.long()


def jitter_boxes(boxes: Tensor, generator: torch.Generator) -> Tensor:
    """Change boxes as if people had drawn them.

    Half of the boxes stay exact. A fifth is loose: each side moves outward by up to 20 % of the box. The sides of the
    others move by a normally distributed offset with a standard deviation of 4 % of the box.

    Args:
        boxes: (prompts, 4), x1, y1, x2, y2.
        generator: The random generator.

    Returns:
        (prompts, 4).
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    kind = torch.rand(len(boxes), 1, generator=generator).to(boxes.device)
    offset = torch.randn(boxes.shape, generator=generator).to(boxes.device).clamp(-2, 2) * 0.04 * sides
    outward = torch.tensor([-1.0, -1.0, 1.0, 1.0], device=boxes.device)
    loose = torch.rand(boxes.shape, generator=generator).to(boxes.device) * 0.2 * sides * outward
    return boxes + torch.where(kind < 0.5, torch.zeros_like(boxes), torch.where(kind < 0.7, loose, offset))
