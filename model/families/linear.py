"""Linear layers in float32 on a CPU, computed by oneDNN, for inference only.

Torch multiplies float32 matrices with MKL. oneDNN, which is part of torch, computes the same products: on an AMD EPYC
with AVX-512 it was 1.0 to 1.2 times as fast on one and two threads and 1.3 to 1.5 times on four. oneDNN also applies
the next step, GELU or the sum with a block's input, while the results are in the cache.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import GELUActivation

# The operator that torch.compile uses for a linear layer. Torch, whose version is pinned, has no public name for it.
_onednn: Any = torch.ops.mkldnn._linear_pointwise if torch.backends.mkldnn.is_available() else None


def product(inputs: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool = False) -> Tensor:
    """Multiply inputs (..., in) by weight (out, in), add bias (out,) and apply GELU if `gelu` is set.

    Returns:
        (..., out) float32.
    """
    if _onednn is not None:
        fused: Tensor = _onednn(inputs, weight, bias, "gelu" if gelu else "none", [], "none")
        return fused
    output = F.linear(inputs, weight, bias)
    return F.gelu(output) if gelu else output


def linear(layer: nn.Module, inputs: Tensor, residual: Tensor | None = None) -> Tensor:
    """Apply a linear layer and add a residual, if there is one.

    Layers of other classes than nn.Linear, such as quantized ones, are called as they are.

    Args:
        layer: maps (..., in) to (..., out).
        inputs: (..., in) float32.
        residual: (..., out) float32; it is not changed.

    Returns:
        (..., out) float32.
    """
    if type(layer) is nn.Linear:
        if residual is not None and _onednn is not None:
            fused: Tensor = _onednn.binary(inputs, residual, layer.weight, layer.bias, "add")
            return fused
        output = product(inputs, layer.weight, layer.bias)
    else:
        output = layer(inputs)
    return output if residual is None else output.add_(residual)


def mlp(first: nn.Module, activation: nn.Module, second: nn.Module, inputs: Tensor, residual: Tensor) -> Tensor:
    """Return second(activation(first(inputs))) + residual.

    Args:
        inputs: (..., in) float32.
        residual: (..., out) float32; it is not changed.

    Returns:
        (..., out) float32.
    """
    if type(first) is nn.Linear and type(activation) is GELUActivation:
        inner = product(inputs, first.weight, first.bias, gelu=True)
    else:
        inner = activation(linear(first, inputs))
    return linear(second, inner, residual)
