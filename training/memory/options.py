"""The options of a training of memory parts. Imports only the standard library."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class MemoryPlan:
    """The options that determine the trained weights. Their help texts are in the fields' metadata."""

    seed: int = _option(11, "seed of the clips, the windows, the prompts and the first weights")
    clips: int = _option(500, "number of clips to draw")
    side: int = _option(224, "side of the input in pixels")
    full_side: int = _option(448, "side of the input of the finished model in pixels")
    frames: int = _option(7, "number of frames of a window")
    objects: int = _option(3, "maximum number of objects of a window")
    windows: int = _option(2, "number of windows of a step")
    steps: int = _option(1500, "number of steps")
    rate: float = _option(6e-4, "maximum learning rate")
    warmup: int = _option(50, "number of first steps in which the learning rate rises")
    decay: float = _option(0.01, "weight decay")
    averaging: float = _option(0.995, "decay of the moving average of the weights; the average is exported")
    forced: float = _option(0.7, "first probability that the true mask of a frame is memorized; it falls to 0")
    memories: int = _option(3, "number of memories that an object attends to, with that of the prompt")
    layers: int = _option(2, "number of layers of the memory attention")
