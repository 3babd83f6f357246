"""Clicks and boxes as people and the papers place them, drawn on the model's device from the true masks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

REACHES = (3, 7, 15)  # in cells of half the resolution


def spread(region: Tensor) -> Tensor:
    """How deep inside a region each cell lies, by the region's share of ever wider squares around it, the wide ones
    measured at half the resolution.

    `region` and the result: (prompts, height, width), 0 to 1; even height and width.
    """
    fine = F.avg_pool2d(region[:, None], 3, 1, 1)
    coarse = F.avg_pool2d(region[:, None], 2)
    depth = torch.zeros_like(coarse)
    for reach in REACHES:
        rows = F.avg_pool2d(coarse, (reach, 1), 1, (reach // 2, 0))
        depth = depth + F.avg_pool2d(rows, (1, reach), 1, (0, reach // 2))
    depth = depth.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return (depth + fine)[:, 0] / (len(REACHES) + 1)


def clicks(region: Tensor, generator: torch.Generator, strict: float) -> Tensor:
    """One cell (prompts, 2) as x, y in each region (prompts, height, width): near its centre with probability
    `strict`, else anywhere in it."""
    prompts, _, width = region.shape
    noise = torch.rand(region.shape, generator=generator).to(region.device)
    centred = (torch.rand(prompts, 1, 1, generator=generator) < strict).to(region.device)
    score = region * torch.where(centred, spread(region) * (0.9 + 0.1 * noise), noise + 1e-3)
    best = score.flatten(1).argmax(1)
    return torch.stack([best % width, best // width], dim=1)


def first_clicks(targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A positive click on each target (prompts, height, width): cells (prompts, 2) and labels (prompts,)."""
    cells = clicks((targets > 0.5).float(), generator, strict=0.8)
    return cells, torch.ones(len(targets), dtype=torch.long, device=targets.device)


def next_clicks(targets: Tensor, logits: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A click in the error of `logits` (prompts, height, width): positive on what is missing, else negative; a
    faultless mask gets another positive one."""
    true, found = targets > 0.5, logits > 0
    error = (true ^ found).float()
    missed, extra = (true & ~found).float(), (found & ~true).float()
    depth = torch.maximum(spread(missed) * missed, spread(extra) * extra)
    largest = depth.flatten(1).amax(1)[:, None, None]
    error = torch.where(largest > 0, error * (depth > 0.5 * largest), true.float())
    cells = clicks(error, generator, strict=0.7)
    positive = true[torch.arange(len(cells), device=cells.device), cells[:, 1], cells[:, 0]]
    return cells, positive.long()


def shaken(boxes: Tensor, generator: torch.Generator) -> Tensor:
    """Boxes (prompts, 4) as hands draw them: half exact, a fifth loose, the others off by a few percent."""
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    kind = torch.rand(len(boxes), 1, generator=generator).to(boxes.device)
    offset = torch.randn(boxes.shape, generator=generator).to(boxes.device).clamp(-2, 2) * 0.04 * sides
    outward = torch.tensor([-1.0, -1.0, 1.0, 1.0], device=boxes.device)
    loose = torch.rand(boxes.shape, generator=generator).to(boxes.device) * 0.2 * sides * outward
    return boxes + torch.where(kind < 0.5, torch.zeros_like(boxes), torch.where(kind < 0.7, loose, offset))
