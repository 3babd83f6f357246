"""Track objects with a model that has no memory: prompt each frame with the box of the object's last mask.

This works for objects that move little from frame to frame and stay visible. After an object was hidden, or crossed a
similar object, the box can select another object.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..call import UNTRACKED, Call
from ..errors import BadData, BadFrame
from ..masks import CroppedMask
from ..prompts import Prompt
from ..segmenter import Embedding, Segmentation, Segmenter
from .tracker import PendingPrompts
from .values import TrackedFrame, TrackedObject, TrackPrompt


class BoxState:
    """The last boxes of objects. The size of the state depends on the number of objects only.

    Attributes:
        boxes: (4,) float32 x1,y1,x2,y2 of each object's last mask that was not empty, in pixels.
    """

    def __init__(self, boxes: dict[int, np.ndarray] | None = None) -> None:
        self.boxes = boxes or {}

    @property
    def nbytes(self) -> int:
        """Size of the boxes in bytes."""
        return sum(box.nbytes for box in self.boxes.values())

    def nbytes_of(self, frame: int) -> int:
        """Return the number of bytes that a copy of the state adds."""
        return self.nbytes

    def copy(self) -> BoxState:
        """Return a copy, which further tracking with this state does not change."""
        return BoxState(dict(self.boxes))

    def save(self, path: Path) -> None:
        """Write the state to a safetensors file. An existing file is replaced."""
        path.write_bytes(self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the content of the file that `save` writes."""
        return save({str(number): box for number, box in self.boxes.items()}, {"kind": "boxes"})

    @classmethod
    def load(cls, path: Path) -> BoxState:
        """Read a state that `save` wrote.

        Raises:
            BadData: the file cannot be read, or holds no state.
        """
        try:
            return cls.from_bytes(path.read_bytes())
        except (OSError, BadData):
            raise BadData(f"'{path}' is not the state of a tracker") from None

    @classmethod
    def from_bytes(cls, data: bytes) -> BoxState:
        """Read the content of a file that `save` wrote. Raises BadData."""
        try:
            boxes = {int(name): np.array(box) for name, box in load(data).items()}
        except (ValueError, SafetensorError):
            boxes = None
        if boxes is None or any(box.shape != (4,) or box.dtype != np.float32 for box in boxes.values()):
            raise BadData("expected the state of a tracker, got other content")
        return cls(boxes)


def track_by_box(
    segmenter: Segmenter,
    frames: Iterable[tuple[int, np.ndarray | Embedding]],
    prompts: Iterable[TrackPrompt],
    state: BoxState | None = None,
    call: Call = UNTRACKED,
) -> Iterator[TrackedFrame]:
    """Track objects through frames with a model of any family. The arguments and the results are those of `track`.

    Of a click on an object that has no box yet, the best of three masks is taken. A mask prompt is used as its box. The
    score of an object is the predicted IoU of its mask.

    Args:
        segmenter: the model.
        frames: number and pixels (height, width, 3) uint8 RGB of each frame, or its embedding.
        prompts: prompts on these frames. A list may grow while the frames are tracked.
        state: the last boxes, updated after each frame; None begins anew.
        call: context of the request, checked before each frame.

    Yields:
        The tracked objects of each frame, in the order of the frames.

    Raises:
        BadFrame: a prompt has only background points, and its object has no box yet.
        Overloaded, DeadlineExceeded, ClientDisconnected: as `Segmenter.embed`.
    """
    state, pending = BoxState() if state is None else state, PendingPrompts(prompts)
    for number, frame in frames:
        by_object: dict[int, list[TrackPrompt]] = defaultdict(list)
        for prompt in pending.take(number):
            by_object[prompt.object].append(prompt)
        embedding = frame if isinstance(frame, Embedding) else segmenter.embed([frame], call)[0]
        numbers = sorted({*state.boxes, *by_object})
        requests = [_request(by_object.get(i, []), state.boxes.get(i), number) for i in numbers]
        objects = []
        for (i, request), segmentation in zip(
            zip(numbers, requests, strict=True), _segment(segmenter, embedding, requests, call), strict=True
        ):
            index = int(segmentation.scores.argmax())
            chosen = Segmentation(segmentation.logits[index : index + 1], segmentation.scores[[index]], embedding.size)
            with call.stage("mask"):
                box = _box(segmenter.cropped_masks(chosen)[0])
            if box is not None:
                state.boxes[i] = box
            elif i not in state.boxes:
                state.boxes[i] = _around(request)
            score = float(np.clip(chosen.scores[0], 0, 1)) if box is not None else 0.0
            objects.append(TrackedObject(i, chosen.logits[0], score))
        yield TrackedFrame(number, embedding.size, objects)


def _request(prompts: list[TrackPrompt], last: np.ndarray | None, frame: int) -> Prompt:
    """Return the prompt for the model: the prompts of the frame, otherwise the last box."""
    points = [prompt.points for prompt in prompts if prompt.points is not None]
    labels = [
        np.ones(len(prompt.points), np.int64) if prompt.labels is None else prompt.labels
        for prompt in prompts
        if prompt.points is not None
    ]
    box: np.ndarray | None = None
    for prompt in prompts:
        box = prompt.box if prompt.box is not None else box
        if prompt.mask is not None:
            height, width = prompt.mask.shape
            box = _box(CroppedMask(prompt.mask, 0, 0, (height, width)))
    if box is None and not any(np.any(part == 1) for part in labels):
        if last is None:
            raise BadFrame("prompts", "an object point, a box or a mask first", "only background points", frame=frame)
        box = last
    return Prompt(
        points=np.concatenate(points).astype(np.float32) if points else None,
        labels=np.concatenate(labels).astype(np.int64) if labels else None,
        box=box,
    )


def _segment(segmenter: Segmenter, embedding: Embedding, prompts: list[Prompt], call: Call) -> list[Segmentation]:
    """Segment by prompts. A single click is ambiguous, so clicks get three masks, and boxes get one."""
    clicks = [i for i, prompt in enumerate(prompts) if prompt.box is None]
    others = [i for i, prompt in enumerate(prompts) if prompt.box is not None]
    results: dict[int, Segmentation] = {}
    for positions, multimask_output in ((clicks, True), (others, False)):
        for piece in call.pieces(len(positions), len(positions)):
            chosen = [prompts[i] for i in positions[piece]]
            with call.stage("prompt", len(chosen)):
                segmentations = segmenter.segment(embedding, chosen, multimask_output, call=call)
            results |= dict(zip(positions[piece], segmentations, strict=True))
    return [results[i] for i in range(len(prompts))]


def _box(mask: CroppedMask) -> np.ndarray | None:
    """Return (4,) float32 x1,y1,x2,y2 around a mask, or None if it is empty."""
    return (mask.box() + np.array([0, 0, 1, 1])).astype(np.float32) if mask.inside.any() else None


def _around(prompt: Prompt) -> np.ndarray:
    """Return the box of a prompt, or the box around its points with a margin of a pixel."""
    if prompt.box is not None or prompt.points is None:
        return np.asarray(prompt.box, np.float32)
    return np.concatenate([prompt.points.min(0) - 1, prompt.points.max(0) + 1]).astype(np.float32)
