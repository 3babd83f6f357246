"""Helpers for comparisons of layers: random weights, and the error of a tensor."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def with_random_weights(module: Any) -> Any:
    """Initialise the weights of a module so that each of them affects the output."""
    for name, weight in module.named_parameters():
        nn.init.normal_(weight, 1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.1)
    return module.eval()


def error(actual: Tensor, expected: Tensor) -> float:
    """Return the largest difference from the expected tensor, relative to the largest expected value."""
    assert actual.shape == expected.shape
    return float((actual - expected).abs().max() / expected.abs().max())
