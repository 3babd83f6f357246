"""Image encoders whose linear layers compute with less than float32: faster where the processor has the instructions
for it, and not exact. What it costs in IoU, `python -m training.evaluate` tells."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EXACT = "float32"
PRECISIONS = (EXACT, "bfloat16", "int8")


def lower(encoder: nn.Module, precision: str) -> None:
    """Replaces an encoder's linear layers, in place; activations between them stay float32.

    bfloat16: weights and inputs rounded to 8 bits of mantissa. int8: to 8-bit integers, weights with a scale for each
    output channel, inputs with one for each call (dynamic quantisation); on CPUs only.
    Raises ValueError for a precision that is unknown, or int8 on a GPU.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision '{precision}': expected one of {', '.join(PRECISIONS)}")
    if precision == EXACT:
        return
    on_gpu = next(encoder.parameters()).device.type != "cpu"
    if precision == "int8" and on_gpu:
        raise ValueError("precision 'int8' is for CPUs; take bfloat16 on a GPU")
    kind = Bfloat16 if precision == "bfloat16" else Int8
    for module in list(encoder.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, kind(child))


class Bfloat16(nn.Module):
    """A linear layer that multiplies in bfloat16: (..., in) float32 to (..., out) float32."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.bias = linear.bias
        self.weight = nn.Parameter(linear.weight.bfloat16(), requires_grad=False)

    def forward(self, inputs: Tensor) -> Tensor:
        product = F.linear(inputs.bfloat16(), self.weight).float()
        return product if self.bias is None else product.add_(self.bias)


class Int8(nn.Module):
    """A linear layer that multiplies in 8-bit integers: (..., in) float32 to (..., out) float32."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.bias = linear.bias
        scales = linear.weight.detach().abs().amax(1).clamp_min(1e-8) / 127
        zeros = torch.zeros_like(scales, dtype=torch.int64)
        with warnings.catch_warnings():
            # It is to go from a later torch than the one that is pinned; how then, its authors have not said.
            warnings.simplefilter("ignore", UserWarning)
            weight = torch.quantize_per_channel(linear.weight.detach(), scales, zeros, 0, torch.qint8)
        self.packed: Any = torch.ops.quantized.linear_prepack(weight, self.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.ops.quantized.linear_dynamic(inputs, self.packed)
