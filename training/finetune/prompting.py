"""Choose the objects and the prompts of each training batch. They depend only on the seed and the batch's number."""

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
    """Return the training batch with a given number: its images, and some objects of each image.

    The images of consecutive batches follow the order of the epoch. Each epoch has a different order. Half of the
    objects of a batch start with a click, the others with a box.
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
    """Return the batches for validation: one batch of objects for each sample, with about `limit` objects in total."""
    per_image = max(1, limit // max(1, len(samples)))
    batches = []
    for sample in samples:
        step = max(1, len(sample.targets) // per_image)
        targets = sample.targets[::step][:per_image]
        batches.append(make_batch(family, [sample], [targets], [True] * len(targets)))
    return batches


def to_points(family: Family, cells: Tensor) -> Tensor:
    """Return the centres of low-resolution cells in pixels of the model's input.

    Args:
        family: The model.
        cells: (..., 2) column and row of each cell.

    Returns:
        (..., 2) float32 x and y.
    """
    stride = family.input_size / family.low_res_size[0]
    return (cells.float() + 0.5) * stride - 0.5


def central_clicks(targets: Tensor) -> Tensor:
    """Return the cell of each target that is farthest from the target's edge.

    Args:
        targets: (p, height, width).

    Returns:
        (p, 2) column and row of the cell.
    """
    region = (targets > 0.5).float()
    best = (region * prompts.depth(region)).flatten(1).argmax(1)
    return torch.stack([best % targets.shape[2], best // targets.shape[2]], dim=1)
