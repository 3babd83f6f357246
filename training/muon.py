"""Muon (Jordan et al. 2024): momentum whose matrix is made orthogonal before it is applied."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices (count, rows, columns), by five quintic Newton-Schulz steps.

    In float32: torch's own Muon computes in bfloat16, which processors without it emulate slowly.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    found = matrices.mT if tall else matrices
    found = found / (found.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = found @ found.mT
        found = 3.4445 * found + (-4.775 * square + 2.0315 * square @ square) @ found
    return found.mT if tall else found


class Muon(torch.optim.Optimizer):
    """For weight matrices; each step is scaled to the size that AdamW's has (0.2 in root mean square, times `lr`)."""

    def __init__(self, weights: Iterable[Tensor], lr: float, momentum: float = 0.95, decay: float = 0.0) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for weight in group["params"]:
                by_shape[weight.shape].append(weight)
            for shape, weights in by_shape.items():
                pushes = []
                for weight in weights:
                    assert weight.grad is not None
                    push = self.state[weight].setdefault("push", torch.zeros_like(weight))
                    push.lerp_(weight.grad, 1 - group["momentum"])
                    pushes.append(weight.grad.lerp(push, group["momentum"]))
                steps = orthogonal(torch.stack(pushes)) * (0.2 * max(shape) ** 0.5 * group["lr"])
                for weight, move in zip(weights, steps, strict=True):
                    weight.mul_(1 - group["lr"] * group["decay"]).sub_(move)
