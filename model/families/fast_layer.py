"""The base class of layers that run faster than the transformers layers that they replace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class FastLayer(nn.Module):
    """A layer with fast paths for inference on a CPU and on a GPU. For training, it calls transformers' implementation.

    A concrete class derives from this class first and from transformers' layer class second. `super().forward` is then
    transformers' implementation. transformers still recognises the layer by its class, so recording hidden states,
    gradient checkpointing and names of tensors work as before.

    Args:
        original: the layer to replace. Its parameters, submodules, hooks and settings are shared, not copied.
    """

    def __init__(self, original: nn.Module) -> None:
        nn.Module.__init__(self)  # not the layer class's own __init__, which would create new weights
        vars(self).update(vars(original))

    def forward(self, hidden_states: Tensor, **options: Any) -> Any:
        """Apply the layer to (images, height, width, channels) tokens and return tokens in the same form."""
        if torch.is_grad_enabled() or not self.has_fast_path(hidden_states):
            return super().forward(hidden_states, **options)
        if hidden_states.device.type == "cpu":
            return self.fast_forward(hidden_states)
        return self.device_forward(hidden_states, **options)

    def has_fast_path(self, hidden_states: Tensor) -> bool:
        """Return whether `fast_forward` and `device_forward` support tokens of this shape."""
        return True

    def fast_forward(self, hidden_states: Tensor) -> Tensor:
        """Compute the result of transformers' layer, up to rounding. Called on a CPU, without gradients."""
        raise NotImplementedError

    def device_forward(self, hidden_states: Tensor, **options: Any) -> Any:
        """Compute the result of transformers' layer, up to rounding. Called on a GPU, without gradients."""
        return super().forward(hidden_states, **options)


def replace_layers(layers: nn.ModuleList, replacements: Mapping[type[nn.Module], type[FastLayer]]) -> None:
    """Replace layers in a list by their fast versions, in place. Layers of other classes stay.

    Args:
        layers: the layers of an encoder.
        replacements: the fast class for each of transformers' layer classes.
    """
    for index, layer in enumerate(layers):
        if replacement := replacements.get(type(layer)):
            layers[index] = replacement(layer)
