"""Track with transformers' own models and sessions, whose processors need torchvision and are therefore left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import EdgeTamVideoModel, Sam2VideoModel, Sam3TrackerVideoModel
from transformers.models.edgetam_video.modeling_edgetam_video import EdgeTamVideoInferenceSession
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession
from transformers.models.sam3_tracker_video.modeling_sam3_tracker_video import Sam3TrackerVideoInferenceSession

from sam_endpoint.model.families.family import Family
from sam_endpoint.model.tracking import TrackPrompt

CLASSES: dict[str, tuple[Any, Any]] = {
    "sam2_video": (Sam2VideoModel, Sam2VideoInferenceSession),
    "edgetam_video": (EdgeTamVideoModel, EdgeTamVideoInferenceSession),
    "sam3_memory": (Sam3TrackerVideoModel, Sam3TrackerVideoInferenceSession),
}


@dataclass(frozen=True)
class ReferenceFrame:
    """transformers' output for one frame: low-resolution logits and object scores, by the object's number."""

    frame: int
    logits: dict[int, Tensor]
    scores: dict[int, float]


class ReferenceTracker:
    """A transformers model with a new session.

    Args:
        name: key of `CLASSES`.
        folder: the checkpoint.
        family: preprocesses frames and scales coordinates; other tests compare both with transformers' processors.
        frames: (n, height, width, 3) uint8, all frames of the video; None to stream frames.
        size: (height, width) of the frames.
    """

    def __init__(
        self, model: Any, session_class: Any, family: Family, size: tuple[int, int], frames: np.ndarray | None = None
    ) -> None:
        self.model, self.family, self.size = model, family, size
        video = None if frames is None else torch.stack([family.preprocess(frame) for frame in frames])
        self.session = session_class(video=video, video_height=size[0], video_width=size[1], dtype=torch.float32)

    def add(self, prompts: Iterable[TrackPrompt]) -> None:
        """Add the prompts of one frame, as `add_inputs_to_inference_session` of transformers' processors does."""
        prompts = list(prompts)
        side = self.family.input_size
        for prompt in prompts:
            index = self.session.obj_id_to_idx(prompt.object)
            if prompt.mask is not None:
                mask = torch.from_numpy(prompt.mask)[None, None].float()
                scaled = F.interpolate(mask, (side, side), mode="bilinear", antialias=True)
                self.session.add_mask_inputs(index, prompt.frame, (scaled >= 0.5).float())
                self.session.remove_point_inputs(index, prompt.frame)
                continue
            points, labels = np.zeros((0, 2), np.float32), np.zeros(0, np.int32)
            if prompt.points is not None and prompt.labels is not None:
                points, labels = prompt.points, prompt.labels
            if prompt.box is not None:
                points = np.concatenate([prompt.box.reshape(2, 2), points])
                labels = np.concatenate([np.array([2, 3], np.int32), labels])
            scale = torch.tensor([side / self.size[1], side / self.size[0]])
            inputs = {
                "point_coords": (torch.from_numpy(points) * scale)[None, None],
                "point_labels": torch.from_numpy(labels)[None, None],
            }
            self.session.add_point_inputs(index, prompt.frame, inputs)
            self.session.remove_mask_inputs(index, prompt.frame)
        self.session.obj_with_new_inputs = [prompt.object for prompt in prompts]

    def stream(self, number: int, frame: np.ndarray) -> ReferenceFrame:
        """Track the next frame of a stream."""
        return self._frame(self.model(self.session, frame_idx=number, frame=self.family.preprocess(frame)[None]))

    def step(self, number: int, reverse: bool = False) -> ReferenceFrame:
        """Track a frame of a whole video."""
        return self._frame(self.model(self.session, frame_idx=number, reverse=reverse))

    def propagate(self, start: int, reverse: bool = False) -> Iterator[ReferenceFrame]:
        """Track all frames of a whole video from `start` on."""
        for output in self.model.propagate_in_video_iterator(self.session, start_frame_idx=start, reverse=reverse):
            yield self._frame(output)

    def _frame(self, output: Any) -> ReferenceFrame:
        numbers = output.object_ids
        logits = dict(zip(numbers, output.pred_masks.flatten(0, -3), strict=True))
        scores = dict(zip(numbers, output.object_score_logits.flatten().sigmoid().tolist(), strict=True))
        return ReferenceFrame(output.frame_idx, logits, scores)
