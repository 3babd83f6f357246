"""Fast blocks for SAM 2's image encoder, Hiera."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.models.sam2.modeling_sam2 import Sam2MultiScaleBlock

from . import windows
from .device_attention import attend_windows
from .fast_layer import FastLayer, replace_layers
from .linear import linear, mlp

OUTPUT_NUMBERS = 2**21  # output numbers computed per step, 8 MiB; at least one row of windows


def use_fast_layers(backbone: Any) -> None:
    """Replace the blocks of a Sam2HieraDetModel in place by blocks that are faster.

    The fast blocks compute the same sums in another order, so results differ by rounding only. On a CPU, most of the
    data stays in the processor's cache. Measurements are in docs/performance.md.

    - A block is computed for some rows of windows completely before the next rows are read.
    - Queries, keys and values are projected before the image is cut into windows, so padding is not multiplied.
    - Attention in small windows is computed by two plain matrix products and a softmax.
    - transformers also computes an attention among the heads of a token, and does not use it. The fast blocks skip it.

    Args:
        backbone: `model.vision_encoder.backbone` of a Sam2Model.
    """
    replace_layers(backbone.blocks, {Sam2MultiScaleBlock: FastMultiScaleBlock})


class FastMultiScaleBlock(FastLayer, Sam2MultiScaleBlock):
    """Hiera's block, with a fast path."""

    query_stride: Any  # (down, across), or None

    @property
    def stride(self) -> tuple[int, int]:
        """Number of input tokens per output token, (down, across)."""
        down, across = self.query_stride or (1, 1)
        return down, across

    def window(self, hidden_states: Tensor) -> tuple[int, int]:
        """Return (height, width) of the windows. In blocks with global attention, the window is the whole image."""
        height, width = hidden_states.shape[1:3]
        return (self.window_size, self.window_size) if self.window_size else (height, width)

    def has_fast_path(self, hidden_states: Tensor) -> bool:
        """Return whether all sides are multiples of the stride. Otherwise, pooling would skip tokens.

        All of Meta's checkpoints have such sides.
        """
        sides = *hidden_states.shape[1:3], self.window(hidden_states)[0]
        return all(side % step == 0 for side in sides for step in self.stride)

    def fast_forward(self, hidden_states: Tensor) -> Tensor:
        """Apply the block: (images, height, width, dim) to (images, height / stride, width / stride, dim_out)."""
        down, across = self.stride
        window = self.window(hidden_states)
        images, height, width = hidden_states.shape[:3]
        output = hidden_states.new_empty(images, height // down, width // across, self.dim_out)
        step = OUTPUT_NUMBERS // self.dim_out  # tokens
        rows = window[0] * max(1, step // (window[0] * width))
        for image, image_output in zip(hidden_states, output, strict=True):
            for top in range(0, height, rows):
                part = image_output[top // down : (top + rows) // down]
                self._attend(image[top : top + rows], window, part)
                tokens = part.flatten(0, 1)
                for start in range(0, len(tokens), step):
                    self._apply_mlp(tokens[start : start + step])
        return output

    def device_forward(self, hidden_states: Tensor, **options: Any) -> Tensor:
        """Apply the block with few, large operations. Shapes are those of `fast_forward`."""
        normed = self.layer_norm1(hidden_states)
        attended = attend_windows(normed, self.attn, self.window(hidden_states), self.query_stride)
        residual = hidden_states
        if self.dim != self.dim_out:
            residual = windows.max_pool(self.proj(normed), self.stride)
        output: Tensor = residual + self.attn.proj(attended)
        output += self.mlp(self.layer_norm2(output))
        return output

    def _attend(self, hidden_states: Tensor, window: tuple[int, int], output: Tensor) -> None:
        """Apply the first half of the block to rows of windows.

        Args:
            hidden_states: (h, w, dim) tokens.
            window: (height, width) of the windows.
            output: (h / stride, w / stride, dim_out) tokens, which are overwritten with the result.
        """
        normed = self.layer_norm1(hidden_states)
        attended = windows.attend(linear(self.attn.qkv, normed), self.attn, window, self.query_stride)
        residual = hidden_states
        if self.dim != self.dim_out:
            residual = windows.max_pool(linear(self.proj, normed), self.stride)
        output.copy_(linear(self.attn.proj, attended[: len(output), : output.shape[1]], residual))

    def _apply_mlp(self, tokens: Tensor) -> None:
        """Apply the second half of the block to (n, dim_out) tokens in place."""
        normed = self.layer_norm2(tokens)
        tokens.copy_(mlp(self.mlp.proj_in, self.mlp.activation, self.mlp.proj_out, normed, tokens))
