"""Linear layers on a CPU, in float32, by oneDNN. Only for inference.

Torch multiplies float32 matrices with MKL. oneDNN, which torch brings too, makes the same products: measured on an AMD
EPYC with AVX-512, 1.0 to 1.2 times as fast on one and two threads and 1.3 to 1.5 times on four. And it applies what
follows, GELU or the sum with a block's input, to results that are in the cache still.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import GELUActivation

# What torch.compile makes of a linear layer; torch, which is pinned, has no other name for it.
_onednn: Any = torch.ops.mkldnn._linear_pointwise if torch.backends.mkldnn.is_available() else None


def product(inputs: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool = False) -> Tensor:
    """inputs (..., in) by weight (out, in), and bias (out,) to it: (..., out), or GELU of that."""
    if _onednn is not None:
        return _onednn(inputs, weight, bias, "gelu" if gelu else "none", [], "none")
    found = F.linear(inputs, weight, bias)
    return F.gelu(found) if gelu else found


def linear(layer: nn.Module, inputs: Tensor, added: Tensor | None = None) -> Tensor:
    """layer(inputs), (..., in) to (..., out), and `added` (..., out) to it. Layers of other kinds, such as those of a
    lower precision, do their own work."""
    if type(layer) is not nn.Linear:
        found = layer(inputs)
    elif added is None or _onednn is None:
        found = product(inputs, layer.weight, layer.bias)
    else:
        return _onednn.binary(inputs, added, layer.weight, layer.bias, "add")
    return found if added is None else found.add_(added)


def mlp(first: nn.Module, activation: nn.Module, second: nn.Module, inputs: Tensor, added: Tensor) -> Tensor:
    """second(activation(first(inputs))) + added."""
    if type(first) is nn.Linear and type(activation) is GELUActivation:
        inner = product(inputs, first.weight, first.bias, gelu=True)
    else:
        inner = activation(linear(first, inputs))
    return linear(second, inner, added)
