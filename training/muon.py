"""The Muon optimizer (Jordan et al. 2024), which orthogonalises the momentum of each weight matrix."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def orthogonalize(matrices: Tensor) -> Tensor:
    """Return the nearest semi-orthogonal matrices, computed by five quintic Newton-Schulz steps.

    The computation is in float32. torch's own Muon uses bfloat16, which is slow on CPUs without bfloat16 instructions.

    Args:
        matrices: (count, rows, columns) float32.

    Returns:
        (count, rows, columns) float32.
    """
    is_tall = matrices.shape[1] > matrices.shape[2]
    x: Tensor = matrices.mT if is_tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x
    return x.mT if is_tall else x


class Muon(torch.optim.Optimizer):
    """Muon for weight matrices. A step has the same size as a step of AdamW: a root mean square of 0.2 times `lr`.

    Args:
        weights: The matrices, each (rows, columns).
        lr: The learning rate.
        momentum: The decay of the moving average of the gradients.
        decay: The weight decay.
    """

    def __init__(self, weights: Iterable[Tensor], lr: float, momentum: float = 0.95, decay: float = 0.0) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum, "decay": decay})

    # torch's type for `step` includes an overload that takes a closure and returns its loss. Training passes none.
    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update all weights from their gradients."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for weight in group["params"]:
                by_shape[weight.shape].append(weight)
            for shape, weights in by_shape.items():
                directions = []
                for weight in weights:
                    assert weight.grad is not None
                    momentum = self.state[weight].setdefault("push", torch.zeros_like(weight))
                    momentum.lerp_(weight.grad, 1 - group["momentum"])
                    directions.append(weight.grad.lerp(momentum, group["momentum"]))
                steps = orthogonalize(torch.stack(directions)) * (0.2 * max(shape) ** 0.5 * group["lr"])
                for weight, move in zip(weights, steps, strict=True):
                    weight.mul_(1 - group["lr"] * group["decay"]).sub_(move)
