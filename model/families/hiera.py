"""Fast blocks for SAM 2's image encoder, Hiera, on a CPU."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.models.sam2.modeling_sam2 import Sam2MultiScaleBlock

from . import windows
from .fast_layer import FastLayer, replace_layers
from .linear import linear, mlp

OUTPUT_NUMBERS = 2**21  # numbers of a block's output per step, 8 MiB, or as many as one row of windows has


def use_fast_layers(backbone: Any) -> None:
    """Replace the blocks of a Sam2HieraDetModel, in place, by blocks that are faster on a CPU.

    The fast blocks compute the same sums in another order, so that results differ by rounding only, and most work stays
    in the processor's cache. Measurements are in docs/performance.md.

    - A block is completed for some rows of windows before the next rows are read.
    - Queries, keys and values are projected before windows are cut, so that padding is not multiplied.
    - Attention in small windows is two plain products and a softmax.
    - The attention among the heads of a token, which transformers computes and does not use, is left out.

    Args:
        backbone: `model.vision_encoder.backbone` of a Sam2Model.
    """
    replace_layers(backbone.blocks, {Sam2MultiScaleBlock: FastMultiScaleBlock})


class FastMultiScaleBlock(FastLayer, Sam2MultiScaleBlock):
    """Hiera's block."""

    query_stride: Any  # (down, across), or None

    @property
    def stride(self) -> tuple[int, int]:
        """Tokens of the input for one token of the output, down and across."""
        down, across = self.query_stride or (1, 1)
        return down, across

    def window(self, hidden_states: Tensor) -> tuple[int, int]:
        """Return (height, width) of the windows: the whole image in blocks with global attention."""
        height, width = hidden_states.shape[1:3]
        return (self.window_size, self.window_size) if self.window_size else (height, width)

    def has_fast_path(self, hidden_states: Tensor) -> bool:
        # Pooling leaves out some tokens of odd windows; none of Meta's checkpoints has such windows.
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

    def _attend(self, hidden_states: Tensor, window: tuple[int, int], output: Tensor) -> None:
        """Apply the block's first half to rows of windows (h, w, dim) into output (h / stride, w / stride, dim_out)."""
        normed = self.layer_norm1(hidden_states)
        attended = windows.attend(linear(self.attn.qkv, normed), self.attn, window, self.query_stride)
        residual = hidden_states
        if self.dim != self.dim_out:
            residual = windows.max_pool(linear(self.proj, normed), self.stride)
        output.copy_(linear(self.attn.proj, attended[: len(output), : output.shape[1]], residual))

    def _apply_mlp(self, tokens: Tensor) -> None:
        """Apply the block's second half to tokens (n, dim_out), in place."""
        normed = self.layer_norm2(tokens)
        tokens.copy_(mlp(self.mlp.proj_in, self.mlp.activation, self.mlp.proj_out, normed, tokens))
