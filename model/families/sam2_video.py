"""The memory parts of the SAM 2 family: they let the objects of a frame attend to their masks in earlier frames."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, Sam2VideoModel

from . import memory_attention
from .decoder import to_tokens
from .object_decoder import predict_objects
from .sam2 import Sam2

NOT_VISIBLE = -1024.0  # logits of an object that is not visible


@dataclass(frozen=True)
class Recall:
    """What p objects remember of earlier frames. All objects remember the same number of frames.

    A distance is a number of frames between an earlier frame and the present one.

    Attributes:
        memories: (p, n, T, c), the memories of n frames, as `Sam2Video.memorize` returns them.
        distances: (p, n) int64 distance of each memory; 0 for frames with a prompt, whatever their distance.
        pointers: (p, k, C), object pointers of k frames.
        pointer_distances: (p, k) int64 distance of each pointer, negative for frames that are still to come.
        max_distance: largest distance of a pointer that was tracked.
    """

    memories: Tensor
    distances: Tensor
    pointers: Tensor
    pointer_distances: Tensor
    max_distance: int


@dataclass(frozen=True)
class DecodedObjects:
    """The masks of p objects in one frame.

    Attributes:
        logits: (p, *low_res_size) float32 logits.
        pointers: (p, C) object pointers.
        visible: (p,) logits of the probability that the object is visible.
        large: (p, S, S) logits at the size of the model's input; None if they are `Sam2Video.enlarge(logits)`.
    """

    logits: Tensor
    pointers: Tensor
    visible: Tensor
    large: Tensor | None = None


class Sam2Video(Sam2):
    """Checkpoints `facebook/sam2-hiera-*` and `facebook/sam2.1-hiera-*` with their memory parts.

    Images are segmented as with `Sam2`. In the shapes below, p is the number of objects, N the number of tokens of a
    frame (h * w), C the number of its channels, T the number of tokens of a memory, and c the number of their channels.

    Attributes:
        image_family: family of checkpoints whose config names this family, but which have no memory parts.
        num_memories: number of memories of frames without a prompt that an object attends to.
        max_prompted: number of memories of frames with a prompt that an object attends to; None for all.
        max_pointers: number of object pointers of frames without a prompt that an object attends to, plus 1.
        binarizes_together: whether a prompt on one object makes the masks of all objects binary before they are
            memorized, as in transformers' Sam2VideoModel.
    """

    model_class: ClassVar[type[PreTrainedModel]] = Sam2VideoModel
    tracks = True
    image_family: ClassVar[type[Sam2]] = Sam2
    binarizes_together: ClassVar[bool] = True

    def __init__(self, model: Any, processing: dict[str, Any]) -> None:
        encoding = self._neck(model).position_encoding  # `Sam2` replaces it, because images do not need it
        super().__init__(model, processing)
        config = self.prompt_model.config
        self.num_memories = config.num_maskmem - 1
        self.max_prompted = None if config.max_cond_frame_num == -1 else config.max_cond_frame_num
        self.max_pointers = config.max_object_pointers_in_encoder
        attention = self.prompt_model.memory_attention
        with torch.no_grad():
            self._image_positions = to_tokens(encoding(self.features_shape, self.device, torch.float32))
            self._memory_positions = self._position_memory()
            self._rotation = memory_attention.compute_rotation(attention, attention.position_ids)
            self._memory_rotation = self._rotate_memory()

    @cached_property
    def memory_fingerprint(self) -> str:
        """A hash of the weights, as `fingerprint` returns it. The weights must not change after the first use."""
        return self.fingerprint()

    @property
    def memory_shape(self) -> tuple[int, int]:
        """Shape (T, c) of the memory of one object in one frame."""
        tokens, channels = self._memory_positions.shape
        return tokens, channels

    @property
    def marker(self) -> Tensor:
        """(C, 1, 1), what is added to the last feature map of a frame without memory."""
        marker: Tensor = self.prompt_model.no_memory_embedding[0, 0][:, None, None]
        return marker

    def mark(self, features: Tensor) -> Tensor:
        """Return the last of the feature maps of `embed`, with the marker. `embed` of SAM 2 adds it."""
        return features

    def unmark(self, features: Tensor) -> Tensor:
        """Return the last of the feature maps of `embed`, without the marker."""
        return features - self.marker

    def condition(self, features: Tensor, recall: Recall) -> Tensor:
        """Let a frame attend to what p objects remember.

        Args:
            features: (1, C, h, w), the last of the feature maps of `embed`.
            recall: what the objects remember.

        Returns:
            (p, C, h, w) feature maps, one per object.
        """
        model = self.prompt_model
        objects, frames = recall.memories.shape[:2]
        tokens = to_tokens(self.unmark(features))
        memory = recall.memories.to(features.dtype).flatten(1, 2)
        # The first row is for distance 1, and the last row for frames with a prompt.
        times = model.memory_temporal_positional_encoding[:, 0, 0][recall.distances - 1]
        positions = (self._memory_positions + times[:, :, None]).flatten(1, 2)
        pointers, pointer_positions = self._pointer_tokens(recall)
        memory, positions = torch.cat([memory, pointers], 1), torch.cat([positions, pointer_positions], 1)
        if memory_attention.has_fast_path(model.memory_attention, features):
            placed = tokens + 0.1 * self._image_positions
            rotation = self._memory_rotation.repeat(frames, 1)
            attended = memory_attention.attend_to_memory(
                model.memory_attention, placed, memory, positions, self._rotation, rotation
            )
        else:
            attended = model.memory_attention(
                current_vision_features=tokens.transpose(0, 1).expand(-1, objects, -1),
                current_vision_position_embeddings=self._image_positions.transpose(0, 1),
                memory=memory.transpose(0, 1),
                memory_posision_embeddings=positions.transpose(0, 1),
                num_object_pointer_tokens=pointers.shape[1],
                **self._attention_options(frames),
            )
            attended = attended.transpose(0, 1).reshape(objects, *tokens.shape[1:])
        maps: Tensor = attended.mT.unflatten(2, features.shape[2:])
        return maps

    def decode_objects(
        self, features: tuple[Tensor, ...], points: Tensor | None, labels: Tensor | None, is_first: bool
    ) -> DecodedObjects:
        """Decode p objects in one frame.

        Args:
            features: feature maps of the frame, (1, channels, height, width), the last one (p, C, h, w).
            points: (p, n, 2) float32 x and y in pixels of the model's input, or None for no prompt. The corners of a
                box are points too.
            labels: (p, n) int64 label of each point: 1 for object, 0 for background, 2 and 3 for corners of a box.
            is_first: whether the objects have no memory of earlier frames.
        """
        *high_resolution, image = features
        count = 0 if points is None else points.shape[1]
        config = self.prompt_model.config
        multimask_output = (
            config.multimask_output_in_sam
            and (is_first or config.multimask_output_for_tracking)
            and config.multimask_min_pt_num <= count <= config.multimask_max_pt_num
        )
        logits, tokens, visible = self._predict(tuple(high_resolution), image, points, labels, None, multimask_output)
        pointers = self._pointers(tokens, visible > 0)
        return DecodedObjects(logits.masked_fill(visible[:, None, None] <= 0, NOT_VISIBLE), pointers, visible)

    def use_masks(self, features: tuple[Tensor, ...], masks: Tensor) -> DecodedObjects:
        """Take the masks of p objects as they are.

        Args:
            features: feature maps of the frame, each (1, channels, height, width).
            masks: (p, S, S) float32, 1 inside the object and 0 outside.
        """
        *high_resolution, image = features
        large = masks * 20 - 10
        logits = F.interpolate(large[:, None], self.low_res_size, mode="bilinear", antialias=True)[:, 0]
        small = self.prompt_model.mask_downsample(masks[:, None])
        if small.shape[2:] != self.low_res_size:
            small = F.interpolate(small, self.low_res_size, mode="bilinear", antialias=True)
        image = self.unmark(image).expand(len(masks), -1, -1, -1)
        _, tokens, decoded_visible = self._predict(tuple(high_resolution), image, None, None, small, True)
        is_visible = masks.flatten(1).any(1)
        pointers = self._pointers(self._pointers(tokens, decoded_visible > 0), is_visible, project=False)
        return DecodedObjects(logits, pointers, is_visible.float() * 20 - 10, large)

    def memorize(self, features: Tensor, large: Tensor, visible: Tensor, binarize: Tensor) -> Tensor:
        """Encode the masks of p objects as memories.

        Args:
            features: (1, C, h, w), the last of the feature maps of `embed`.
            large: (p, S, S) logits of the objects in this frame, at the size of the model's input.
            visible: (p,) logits of the probability that an object is visible.
            binarize: (p,) bool, whether an object's mask is made binary.

        Returns:
            (p, T, c) memories.
        """
        config, encoder = self.prompt_model.config, self.prompt_model.memory_encoder
        side = 4 * self.low_res_size[0]
        if large.shape[1] != side:
            large = F.interpolate(large[:, None], (side, side), mode="bilinear", antialias=True)[:, 0]
        masks = torch.where(binarize[:, None, None], (large > 0).to(large.dtype), large.sigmoid())
        scaled = masks * config.sigmoid_scale_for_mem_enc + config.sigmoid_bias_for_mem_enc
        projected = encoder.feature_projection(self.unmark(features))
        maps = encoder.projection(encoder.memory_fuser(projected + encoder.mask_downsampler(scaled[:, None])))
        if (hidden := self.prompt_model.occlusion_spatial_embedding_parameter) is not None:
            maps = maps + (visible <= 0).to(maps.dtype)[:, None, None, None] * hidden[..., None, None]
        return self._compress(maps)

    def enlarge(self, logits: Tensor) -> Tensor:
        """Scale low-resolution logits (p, h, w) to the model's input, (p, S, S)."""
        return F.interpolate(logits[:, None], (self.input_size, self.input_size), mode="bilinear")[:, 0]

    def prepare_mask(self, mask: Tensor) -> Tensor:
        """Scale a mask (height, width) to the model's input: (S, S) float32, 1 inside the object and 0 outside."""
        square = (self.input_size, self.input_size)
        if mask.shape == square:
            return mask.float()
        scaled = F.interpolate(mask[None, None].float(), square, mode="bilinear", antialias=True)
        return (scaled[0, 0] >= 0.5).float()

    def _predict(
        self,
        high_resolution: tuple[Tensor, ...],
        image: Tensor,
        points: Tensor | None,
        labels: Tensor | None,
        masks: Tensor | None,
        multimask_output: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits, mask tokens and visibility of objects, as `predict_objects` does."""
        if points is None:  # a padding point stands for no prompt
            points = image.new_zeros(len(image), 1, 2)
            labels = torch.full(points.shape[:2], -1, device=points.device)
        sparse, dense = self.prompt_model.prompt_encoder(points[:, None], labels[:, None], None, masks)  # type: ignore[index]
        positions = self.image_positions()
        decoder = self.prompt_model.mask_decoder
        return predict_objects(decoder, image, positions, sparse, dense, multimask_output, high_resolution)

    def _pointers(self, tokens: Tensor, is_visible: Tensor, project: bool = True) -> Tensor:
        """Return the object pointers (p, C) of mask tokens (p, C). Objects that are not visible share one pointer."""
        pointers = self.prompt_model.object_pointer_proj(tokens) if project else tokens
        return torch.where(is_visible[:, None], pointers, self.prompt_model.no_object_pointer)

    def _pointer_tokens(self, recall: Recall) -> tuple[Tensor, Tensor]:
        """Split object pointers into tokens of c channels. Return them and their position encoding, (p, m, c)."""
        pointers, channels = recall.pointers, self.memory_shape[1]
        if self.prompt_model.config.enable_temporal_pos_encoding_for_object_pointers:
            encoded = _encode_distances(recall.pointer_distances / recall.max_distance, pointers.shape[2])
            positions = self.prompt_model.temporal_positional_encoding_projection_layer(encoded)
        else:
            positions = pointers.new_zeros(*pointers.shape[:2], channels)
        parts = pointers.shape[2] // channels
        return pointers.unflatten(2, (parts, channels)).flatten(1, 2), positions.repeat_interleave(parts, 1)

    # Sam2Video and its subclasses differ in these methods:

    def _neck(self, model: Any) -> Any:
        """Return the neck that computes the tracker's feature maps."""
        return model.vision_encoder.neck

    def _compress(self, maps: Tensor) -> Tensor:
        """Convert encoded masks (p, c, h, w) to memories (p, T, c)."""
        return to_tokens(maps).bfloat16()  # as transformers and Meta's code do, which halves the memory

    def _position_memory(self) -> Tensor:
        """Return the position encoding of a memory, (T, c)."""
        encoder = self.prompt_model.memory_encoder
        shape = torch.Size((1, encoder.projection.out_channels, *self.features_shape[2:]))
        return to_tokens(encoder.position_encoding(shape, self.device, torch.float32))[0]

    def _rotate_memory(self) -> Tensor:
        """Return the rotary embedding of a memory, (T, C / 2) complex64."""
        return self._rotation

    def _attention_options(self, frames: int) -> dict[str, Any]:
        """Return further arguments of transformers' memory attention."""
        return {}


def _encode_distances(distances: Tensor, channels: int) -> Tensor:
    """Encode distances (p, k) as sines and cosines, (p, k, channels), as in "Attention Is All You Need"."""
    half = channels // 2
    exponents = 2 * (torch.arange(half, dtype=torch.float32, device=distances.device) // 2) / half
    angles = distances.float()[..., None] / 10000**exponents
    return torch.cat([angles.sin(), angles.cos()], -1)
