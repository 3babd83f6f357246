"""Batches of training objects, and the prompts on them. Both depend on the seed and the number of the batch only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sam_endpoint.model.families.family import Family
from sam_endpoint.training import prompts
from sam_endpoint.training.finetune.features import Sample
from sam_endpoint.training.finetune.options import Plan
from sam_endpoint.training.finetune.targets import Target


@dataclass(frozen=True)
class ObjectBatch:
    """Objects on several images.

    Attributes:
        samples: The images.
        owners: (p,) The position of each object's image in `samples`.
        targets: (p, *low_res_size) float32, 0 to 1.
        inside: (p, *low_res_size) bool, the cells that the object's image covers.
        boxes: (p, 4) float32, x1, y1, x2, y2 in pixels of the model's input.
        clicked: (p,) bool, whether the first prompt of the object is a click and not a box.
    """

    samples: Sequence[Sample]
    owners: Tensor
    targets: Tensor
    inside: Tensor
    boxes: Tensor
    clicked: Tensor


def make_batch(
    family: Family, samples: Sequence[Sample], chosen: Sequence[Sequence[Target]], clicked: Sequence[bool]
) -> ObjectBatch:
    """Stack chosen targets of each sample."""
    owners = [position for position, targets in enumerate(chosen) for _ in targets]
    grids = np.stack([target.whole(family.low_res_size) for targets in chosen for target in targets])
    inside = np.zeros(grids.shape, bool)
    for row, owner in zip(inside, owners, strict=True):
        height, width = samples[owner].region
        row[:height, :width] = True
    boxes = np.stack([target.box for targets in chosen for target in targets])
    device = family.device
    return ObjectBatch(
        samples,
        torch.tensor(owners, device=device),
        torch.from_numpy(grids).to(device),
        torch.from_numpy(inside).to(device),
        torch.from_numpy(boxes).to(device),
        torch.tensor(list(clicked), device=device),
    )


def batch_at(family: Family, samples: Sequence[Sample], plan: Plan, number: int) -> ObjectBatch:
    """Return the training batch of a number: the next images of the epoch's order, and some objects of each.

    Every epoch has an order of its own. Half of the objects of a batch get a click first, the others a box.
    """
    rng = np.random.default_rng([plan.seed, 1, number])
    orders: dict[int, np.ndarray] = {}
    images, chosen = [], []
    for place in range(number * plan.images, number * plan.images + plan.images):
        epoch, position = divmod(place, len(samples))
        if epoch not in orders:
            orders[epoch] = np.random.default_rng([plan.seed, 2, epoch]).permutation(len(samples))
        sample = samples[int(orders[epoch][position])]
        picked = rng.permutation(len(sample.targets))[: plan.masks]
        images.append(sample)
        chosen.append([sample.targets[int(i)] for i in picked])
    count = sum(map(len, chosen))
    clicked = (np.arange(count) + rng.integers(2)) % 2 == 0
    return make_batch(family, images, chosen, clicked.tolist())


def fixed_batches(family: Family, samples: Sequence[Sample], limit: int) -> list[ObjectBatch]:
    """Return batches of a sample's objects each, for validation; at most about `limit` objects together."""
    per_image = max(1, limit // max(1, len(samples)))
    batches = []
    for sample in samples:
        step = max(1, len(sample.targets) // per_image)
        targets = sample.targets[::step][:per_image]
        batches.append(make_batch(family, [sample], [targets], [True] * len(targets)))
    return batches


def to_points(family: Family, cells: Tensor) -> Tensor:
    """Return the centres (..., 2) of low-resolution cells x, y (..., 2) in pixels of the model's input."""
    stride = family.input_size / family.low_res_size[0]
    return (cells.float() + 0.5) * stride - 0.5


def central_clicks(targets: Tensor) -> Tensor:
    """Return the cell x, y (p, 2) of each target (p, height, width) that lies deepest inside it."""
    region = (targets > 0.5).float()
    best = (region * prompts.depth(region)).flatten(1).argmax(1)
    return torch.stack([best % targets.shape[2], best // targets.shape[2]], dim=1)
