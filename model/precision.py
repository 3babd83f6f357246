"""Quantize the linear layers of image encoders to bfloat16 or int8.

Lower precision is faster on processors with the necessary instructions, but less accurate. `sam-endpoint evaluate`
measures the loss of IoU.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EXACT = "float32"  # the precision of the checkpoints
PRECISIONS = (EXACT, "bfloat16", "int8")


def quantize_encoder(encoder: nn.Module, precision: str) -> None:
    """Replace the linear layers of an encoder in place by layers of lower precision.

    Activations between the layers stay float32.

    Args:
        encoder: the image encoder.
        precision: one of PRECISIONS. `float32` changes nothing. `bfloat16` rounds weights and inputs to 8 significant
            bits. `int8` rounds them to 8-bit integers (dynamic quantization): weights have one scale per output
            channel, inputs have one scale per call. `int8` runs on CPUs only.

    Raises:
        ValueError: the precision is unknown, or it is `int8` and the encoder is on a GPU.

    Example:
        >>> encoder = nn.Sequential(nn.Linear(4, 2))
        >>> quantize_encoder(encoder, "bfloat16")
        >>> encoder(torch.zeros(1, 4)).dtype
        torch.float32
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision '{precision}': expected one of {', '.join(PRECISIONS)}")
    if precision == EXACT:
        return
    on_gpu = next(encoder.parameters()).device.type != "cpu"
    if precision == "int8" and on_gpu:
        raise ValueError("precision 'int8' runs on CPUs only; use bfloat16 on a GPU")
    layer_class = Bfloat16 if precision == "bfloat16" else Int8
    for module in list(encoder.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, layer_class(child))


class Bfloat16(nn.Module):
    """A linear layer that multiplies in bfloat16.

    Args:
        linear: the float32 layer to replace.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.bias = linear.bias
        self.weight = nn.Parameter(linear.weight.bfloat16(), requires_grad=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (..., in) float32 inputs to (..., out) float32 outputs."""
        product = F.linear(inputs.bfloat16(), self.weight).float()
        return product if self.bias is None else product.add_(self.bias)


class Int8(nn.Module):
    """A linear layer that multiplies in 8-bit integers.

    Args:
        linear: the float32 layer to replace.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.bias = linear.bias
        scales = linear.weight.detach().abs().amax(1).clamp_min(1e-8) / 127
        zeros = torch.zeros_like(scales, dtype=torch.int64)
        with warnings.catch_warnings():
            # Torch warns that a future release will remove this function, and names no replacement.
            warnings.simplefilter("ignore", UserWarning)
            weight = torch.quantize_per_channel(linear.weight.detach(), scales, zeros, 0, torch.qint8)
        self.packed: Any = torch.ops.quantized.linear_prepack(weight, self.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (..., in) float32 inputs to (..., out) float32 outputs."""
        outputs: Tensor = torch.ops.quantized.linear_dynamic(inputs, self.packed)
        return outputs
