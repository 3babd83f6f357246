"""The options of a training of memory parts. Imports no large package."""

from __future__ import annotations

from dataclasses import dataclass

from sam_endpoint.training.plans import check_finite, option


@dataclass(frozen=True)
class MemoryPlan:
    """The options that determine the trained weights. Their help texts are in the fields' metadata."""

    seed: int = option(11, "seed of the clips, the windows, the prompts and the first weights")
    clips: int = option(500, "number of clips to draw")
    side: int = option(224, "side of the input in pixels")
    full_side: int = option(448, "side of the input of the finished model in pixels")
    frames: int = option(7, "number of frames of a window")
    objects: int = option(3, "maximum number of objects of a window")
    windows: int = option(2, "number of windows of a step")
    steps: int = option(1500, "number of steps")
    rate: float = option(6e-4, "maximum learning rate")
    warmup: int = option(50, "number of first steps in which the learning rate rises")
    decay: float = option(0.01, "weight decay")
    averaging: float = option(0.995, "decay of the moving average of the weights; the average is exported")
    forced: float = option(0.7, "first probability that the true mask of a frame is memorized; it falls to 0")
    memories: int = option(3, "number of memories that an object attends to, with that of the prompt")
    layers: int = option(2, "number of layers of the memory attention")

    def __post_init__(self) -> None:
        check_finite(self)
