"""Image encoders whose linear layers compute with less than float32.

Lower precision is faster on processors that have the instructions for it, and not exact. `sam-endpoint evaluate` shows
the cost in IoU.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EXACT = "float32"
PRECISIONS = (EXACT, "bfloat16", "int8")


def quantize_encoder(encoder: nn.Module, precision: str) -> None:
    """Replace an encoder's linear layers, in place. Activations between the layers stay float32.

    Args:
        encoder: the image encoder, before or after its layers are replaced by fast ones.
        precision: `float32` leaves the layers as they are. `bfloat16` rounds weights and inputs to 8 bits of mantissa.
            `int8` rounds them to 8-bit integers, with a scale for each output channel of the weights and one scale for
            the inputs of each call (dynamic quantization); CPUs only.

    Raises:
        ValueError: the precision is unknown, or `int8` on a GPU.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision '{precision}': expected one of {', '.join(PRECISIONS)}")
    if precision == EXACT:
        return
    on_gpu = next(encoder.parameters()).device.type != "cpu"
    if precision == "int8" and on_gpu:
        raise ValueError("precision 'int8' is for CPUs; take bfloat16 on a GPU")
    layer_class = Bfloat16 if precision == "bfloat16" else Int8
    for module in list(encoder.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, layer_class(child))


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
            # Torch announces that a later release than the pinned one removes the function, and names no successor.
            warnings.simplefilter("ignore", UserWarning)
            weight = torch.quantize_per_channel(linear.weight.detach(), scales, zeros, 0, torch.qint8)
        self.packed: Any = torch.ops.quantized.linear_prepack(weight, self.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = torch.ops.quantized.linear_dynamic(inputs, self.packed)
        return outputs
