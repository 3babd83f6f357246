"""Compute linear layers in float32 on a CPU with the faster of torch's two libraries, for inference only.

Torch multiplies float32 matrices with the library MKL. Torch also contains the library oneDNN, which computes the same
products. oneDNN can apply the next step (GELU, or adding the input of the block) while the results are in the cache.

- On an AMD EPYC with AVX-512, oneDNN was 1.0 to 1.2 times as fast with one and two threads, and 1.3 to 1.5 times as
  fast with four.
- On an Intel Xeon with AVX-512, MKL was 1.0 to 1.2 times as fast with one thread, although GELU and the addition are
  steps of their own.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import GELUActivation


def _has_intel_processor() -> bool:
    """Return whether the processor is Intel's."""
    file = Path("/proc/cpuinfo")
    described = file.read_text(errors="replace") if file.exists() else platform.processor()
    return "GenuineIntel" in described


# The operator that torch.compile uses for a linear layer. It has no public name; the version of torch is pinned.
ONEDNN: Any = torch.ops.mkldnn._linear_pointwise if torch.backends.mkldnn.is_available() else None
_onednn: Any = None if torch.backends.mkl.is_available() and _has_intel_processor() else ONEDNN


def product(inputs: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool = False) -> Tensor:
    """Multiply inputs by a weight matrix, add a bias, and optionally apply GELU.

    Args:
        inputs: (..., in) float32.
        weight: (out, in) float32.
        bias: (out,) float32, or None.
        gelu: whether to apply GELU.

    Returns:
        (..., out) float32.
    """
    if _onednn is not None:
        fused: Tensor = _onednn(inputs, weight, bias, "gelu" if gelu else "none", [], "none")
        return fused
    output = F.linear(inputs, weight, bias)
    return torch.ops.aten.gelu_(output) if gelu else output


def uses_onednn() -> bool:
    """Return whether the products of this module are oneDNN's, and not MKL's."""
    return _onednn is not None


def project(layer: nn.Module, inputs: Tensor, parts: int) -> list[Tensor]:
    """Apply a linear layer and split its output into equal parts.

    With MKL, each part is computed by itself. The parts of a large output then fit the memory that the C library keeps
    (`memory.MAX_BLOCK`), while the whole output would cost a page fault per 4 KiB.

    Args:
        layer: maps (..., in) to (..., parts * out).
        inputs: (..., in) float32.
        parts: number of parts.

    Returns:
        The parts, each (..., out) float32.
    """
    if uses_onednn() or type(layer) is not nn.Linear or layer.bias is None:
        return list(linear(layer, inputs).chunk(parts, -1))
    pairs = zip(layer.weight.chunk(parts), layer.bias.chunk(parts), strict=True)
    return [product(inputs, weight, bias) for weight, bias in pairs]


def linear(layer: nn.Module, inputs: Tensor, residual: Tensor | None = None) -> Tensor:
    """Apply a linear layer and add a residual.

    Layers of other classes than nn.Linear, such as quantized layers, are called directly.

    Args:
        layer: maps (..., in) to (..., out).
        inputs: (..., in) float32.
        residual: (..., out) float32 to add, or None. The function does not change the residual.

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
    """Compute second(activation(first(inputs))) + residual.

    Args:
        first: linear layer that maps (..., in) to (..., inner).
        activation: activation function between the two layers.
        second: linear layer that maps (..., inner) to (..., out).
        inputs: (..., in) float32.
        residual: (..., out) float32 to add. The function does not change the residual.

    Returns:
        (..., out) float32.
    """
    if type(first) is nn.Linear and type(activation) is GELUActivation:
        inner = product(inputs, first.weight, first.bias, gelu=True)
    else:
        inner = activation(linear(first, inputs))
    return linear(second, inner, residual)
