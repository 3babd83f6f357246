"""The state of tracking: what the model remembers of earlier frames."""

from __future__ import annotations

import json
import os
import uuid
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..errors import BadData, BadInput

if TYPE_CHECKING:
    from ..families.sam2_video import Sam2Video

FORMAT = 1  # format of saved states; increment it with every change that older versions cannot read
LENGTH_BYTES = 8  # of the length of a safetensors header, at the beginning of a file
MAX_PROMPTED = 32  # frames with a prompt that are remembered per object


@dataclass(frozen=True)
class FrameMemory:
    """What is remembered of one object in one frame.

    Attributes:
        pointer: (C,) object pointer.
        features: (T, c) memory; None for frames of which only the pointer is used.
        logits: (h, w) low-resolution logits; None for frames without a prompt, which are tracked again when needed.
        visible: logit of the probability that the object is visible.
    """

    pointer: Tensor
    features: Tensor | None
    logits: Tensor | None
    visible: float

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that are not None, by name."""
        tensors = {"pointer": self.pointer, "features": self.features, "logits": self.logits}
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}


@dataclass(frozen=True)
class ObjectMemory:
    """What is remembered of one object. `remember` returns a new value; the tensors are shared and never change.

    Attributes:
        prompted: memories of the frames where the object was prompted before it was tracked, by number of the frame.
        tracked: memories of other frames, by number of the frame.
    """

    prompted: dict[int, FrameMemory]
    tracked: dict[int, FrameMemory]

    def remember(self, frame: int, memory: FrameMemory, is_prompted: bool, family: Sam2Video) -> ObjectMemory:
        """Add the memory of a frame, and forget frames that the model no longer looks at.

        The model looks at frames around the present frame, and at all prompted frames. Tracking in the other direction
        may begin at the first or the last prompted frame, so the frames around them are remembered too. If more than
        MAX_PROMPTED frames are prompted, the frame that is farthest from the present frame is forgotten.

        Args:
            frame: number of the present frame.
            memory: memory of the present frame.
            is_prompted: whether the memory belongs to `prompted`.
            family: the model.
        """
        prompted, tracked = dict(self.prompted), dict(self.tracked)
        (prompted if is_prompted else tracked)[frame] = memory
        if is_prompted:
            tracked.pop(frame, None)
        if len(prompted) > MAX_PROMPTED:
            del prompted[max(prompted, key=lambda number: abs(number - frame))]
        centres = {frame, min(prompted, default=frame), max(prompted, default=frame)}
        kept = {}
        for number, remembered in tracked.items():
            distance = min(abs(number - centre) for centre in centres)
            if distance <= family.num_memories:
                kept[number] = remembered
            elif distance < family.max_pointers:
                kept[number] = replace(remembered, features=None)
        return ObjectMemory(prompted, kept)


class TrackState:
    """What the model remembers of earlier frames. Its size does not depend on the number of frames tracked.

    `track` updates the state after each frame. So a caller can save the state between two frames, and continue with the
    next frame later, in this or in another process. `copy` keeps the state of a frame to return to.

    Args:
        length: number of frames of the whole video; None if it is unknown. It makes a difference only for videos with
            fewer frames than the model has object pointers (16 in published checkpoints): transformers' sessions that
            hold a whole video use it, and sessions that stream frames do not.

    Attributes:
        model: a hash of the model's weights; empty before the first frame.
        size: (height, width) of the frames in pixels; None before the first frame.
        frame: number of the last tracked frame; None before the first frame.
        backward: whether the last frames were tracked backward; None before the second frame.
        objects: what is remembered of each prompted object, by the object's number.
    """

    def __init__(self, length: int | None = None) -> None:
        self.length = length
        self.model = ""
        self.size: tuple[int, int] | None = None
        self.frame: int | None = None
        self.backward: bool | None = None
        self.objects: dict[int, ObjectMemory] = {}

    @property
    def nbytes(self) -> int:
        """Size of the remembered tensors in bytes."""
        return sum(tensor.nbytes for tensor in self._tensors().values())

    def nbytes_of(self, frame: int) -> int:
        """Return the size in bytes of the memories of one frame."""
        memories = ({**thing.tracked, **thing.prompted}.get(frame) for thing in self.objects.values())
        return sum(tensor.nbytes for memory in memories if memory for tensor in memory.tensors().values())

    def copy(self) -> TrackState:
        """Return a copy, which further tracking with this state does not change. Both share tensors."""
        duplicate = copy(self)
        duplicate.objects = dict(self.objects)
        return duplicate

    def check(self, family: Sam2Video) -> None:
        """Raise BadInput if the state belongs to another model."""
        shapes = {
            "pointer": (family.features_shape[1],),
            "features": family.memory_shape,
            "logits": family.low_res_size,
        }
        fits = all(tuple(tensor.shape) == shapes[key[3]] for key, tensor in self._tensors().items())
        if self.model not in ("", family.memory_fingerprint) or not fits:
            raise BadInput("state", "a state of this model", "a state of another model")

    def save(self, path: Path) -> None:
        """Write the state to a safetensors file. An existing file is replaced in one step.

        Example:
            >>> import tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     TrackState().save(Path(folder) / "state.safetensors")
            ...     TrackState.load(Path(folder) / "state.safetensors").frame is None
            True
        """
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            part.write_bytes(self.to_bytes())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    def to_bytes(self) -> bytes:
        """Return the content of the file that `save` writes."""
        tensors = {
            f"{number}.{kind}.{frame}.{name}": tensor.contiguous().cpu()
            for (number, kind, frame, name), tensor in self._tensors().items()
        }
        header = {
            "format": FORMAT,
            "length": self.length,
            "model": self.model,
            "size": self.size,
            "frame": self.frame,
            "backward": self.backward,
            "visible": [
                [number, kind, frame, memory.visible] for (number, kind, frame), memory in self._memories().items()
            ],
        }
        return save(tensors, {"state": json.dumps(header)})

    @classmethod
    def load(cls, path: Path, device: str | torch.device = "cpu") -> TrackState:
        """Read a state that `save` wrote.

        Args:
            path: the file.
            device: device of the model that continues.

        Raises:
            BadData: the file cannot be read, or holds no state.
        """
        try:
            return cls.from_bytes(path.read_bytes(), device)
        except (OSError, BadData) as error:
            reason = "a broken file" if isinstance(error, OSError) else str(error)
            raise BadData(f"'{path}': {reason}") from None

    @classmethod
    def from_bytes(cls, data: bytes, device: str | torch.device = "cpu") -> TrackState:
        """Read the content of a file that `save` wrote. Raises BadData."""
        try:
            length = int.from_bytes(data[:LENGTH_BYTES], "little")
            header = json.loads(json.loads(data[LENGTH_BYTES : LENGTH_BYTES + length])["__metadata__"]["state"])
            tensors = {name: tensor.to(device) for name, tensor in load(data).items()}
            if header["format"] != FORMAT:
                raise BadData(f"expected a state of format {FORMAT}, got format {header['format']}")
            state = cls(header["length"])
            state.model, state.frame, state.backward = header["model"], header["frame"], header["backward"]
            state.size = None if header["size"] is None else (int(header["size"][0]), int(header["size"][1]))
            for number, kind, frame, visible in header["visible"]:
                memory = state.objects.setdefault(number, ObjectMemory({}, {}))
                features, logits = (tensors.get(f"{number}.{kind}.{frame}.{name}") for name in ("features", "logits"))
                pointer = tensors[f"{number}.{kind}.{frame}.pointer"]
                frames = {"prompted": memory.prompted, "tracked": memory.tracked}[kind]
                frames[frame] = FrameMemory(pointer, features, logits, float(visible))
        except BadData:
            raise
        except (SafetensorError, KeyError, TypeError, ValueError, IndexError):
            raise BadData("expected the saved state of a video, got another or a broken file") from None
        return state

    def _memories(self) -> dict[tuple[int, str, int], FrameMemory]:
        """Return all memories by number of the object, `prompted` or `tracked`, and number of the frame."""
        return {
            (number, kind, frame): memory
            for number, remembered in self.objects.items()
            for kind, frames in (("prompted", remembered.prompted), ("tracked", remembered.tracked))
            for frame, memory in frames.items()
        }

    def _tensors(self) -> dict[tuple[int, str, int, str], Tensor]:
        return {
            (*place, name): tensor
            for place, memory in self._memories().items()
            for name, tensor in memory.tensors().items()
        }
