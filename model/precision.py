"""Lower the precision of image encoders: on a CPU that of the linear layers, on a GPU that of all numbers.

Lower precision is faster on processors with the necessary instructions, but less accurate. `sam-endpoint evaluate`
measures the loss of IoU.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

EXACT = "float32"  # the precision of the checkpoints
PRECISIONS = (EXACT, "bfloat16", "int8")


def quantize_encoder(encoder: nn.Module, precision: str | None = None) -> None:
    """Lower the precision of an encoder in place.

    Args:
        encoder: the image encoder.
        precision: one of PRECISIONS; None for `bfloat16` on a GPU and `float32` on a CPU.

            - `float32` changes nothing.
            - `bfloat16` on a CPU rounds the weights and inputs of linear layers to 8 significant bits. Activations
              between the layers stay float32. On a GPU, all weights and activations are bfloat16, or float16 if the GPU
              has no bfloat16 (see `compute_in`).
            - `int8` rounds weights and inputs of linear layers to 8-bit integers (dynamic quantization): weights have
              one scale per output channel, inputs have one scale per call. `int8` runs on CPUs only.

    Raises:
        ValueError: the precision is unknown, or it is `int8` and the encoder is on a GPU.

    Example:
        >>> encoder = nn.Sequential(nn.Linear(4, 2))
        >>> quantize_encoder(encoder, "bfloat16")
        >>> encoder(torch.zeros(1, 4)).dtype
        torch.float32
    """
    device = next(encoder.parameters()).device.type
    on_gpu = device != "cpu"
    precision = precision or ("bfloat16" if on_gpu else EXACT)
    if precision not in PRECISIONS:
        raise ValueError(f"precision '{precision}': expected one of {', '.join(PRECISIONS)}")
    if precision == EXACT:
        return
    if precision == "int8" and on_gpu:
        raise ValueError("precision 'int8' runs on CPUs only; use bfloat16 on a GPU")
    if on_gpu:
        has_bfloat16 = device != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
        compute_in(encoder, torch.bfloat16 if has_bfloat16 else torch.float16)
        return
    layer_class = Bfloat16 if precision == "bfloat16" else Int8
    for module in list(encoder.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, layer_class(child))


def compute_in(encoder: nn.Module, dtype: torch.dtype) -> None:
    """Convert the weights of an encoder to a dtype. It still takes and returns float32 tensors.

    Args:
        encoder: the image encoder. It may return a tensor, or a ModelOutput, list or tuple of tensors.
        dtype: torch.bfloat16 or torch.float16.

    Example:
        >>> encoder = nn.Sequential(nn.Linear(4, 2))
        >>> compute_in(encoder, torch.bfloat16)
        >>> encoder[0].weight.dtype, encoder(torch.zeros(1, 4)).dtype
        (torch.bfloat16, torch.float32)
    """
    encoder.to(dtype)

    def convert_inputs(module: nn.Module, inputs: Any, options: Any) -> tuple[Any, Any]:
        return _to(inputs, dtype), {name: _to(value, dtype) for name, value in options.items()}

    encoder.register_forward_pre_hook(convert_inputs, with_kwargs=True)
    encoder.register_forward_hook(lambda module, inputs, outputs: _to(outputs, torch.float32))


def _to(value: Any, dtype: torch.dtype) -> Any:
    """Convert the floating-point tensors in a value to a dtype."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, ModelOutput):
        return type(value)(**{name: _to(part, dtype) for name, part in value.items()})
    if isinstance(value, (list, tuple)):
        return type(value)(_to(part, dtype) for part in value)
    return value


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
