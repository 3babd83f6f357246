"""The options of a training, and their command line. Imports no large package."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, fields
from pathlib import Path

from sam_endpoint.training.plans import add_plan, check_finite, option

FAMILY_NAMES = ("sam", "sam2")
IMAGE_SIZE = 256  # pixels, the side of the input


@dataclass(frozen=True)
class Plan:
    """The options that determine the trained weights. Their help texts are in the fields' metadata."""

    seed: int = option(1, "seed of the scenes, the batches and the first weights")
    scenes: int = option(16000, "number of scenes to draw")
    side: int = option(IMAGE_SIZE, "side of the input in pixels")
    steps: int = option(7000, "number of steps")
    windowed: int = option(4500, "number of first steps that train on windows of half the input's side")
    whole_every: int = option(1, "after these, train on whole inputs every so many steps, and on windows in between")
    close: bool = option(False, "let windows show objects as large as in the whole input")
    images: int = option(8, "number of whole inputs in a batch; a batch of windows has twice as many")
    masks: int = option(4, "number of target masks of each image")
    rate: float = option(1.2e-3, "maximum learning rate")
    warmup: int = option(80, "number of first steps in which the learning rate rises")
    decay: float = option(0.05, "weight decay")
    averaging: float = option(0.998, "decay of the moving average of the weights; the average is exported")
    balance: float = option(2.0, "weight of the balanced cross entropy in the first fifth of the steps")
    picked: float = option(0.0, "weight of the loss of the mask with the highest predicted score")
    photograph_share: float = option(0.45, "share of photographs in training images, if there are photographs")
    composite_share: float = option(0.2, "share of composites in training images, if there are photographs")
    composites: int = option(4000, "number of composites to draw, if there are photographs")
    frozen: bool = option(False, "do not train the image encoder")

    def __post_init__(self) -> None:
        check_finite(self)


@dataclass(frozen=True)
class TrainingOptions:
    """All options of a training: the plan, files, and computation.

    Attributes:
        output: The folder of the checkpoint.
        family: One of FAMILY_NAMES.
        plan: The options that determine the weights.
        photographs: Folders that each contain photographs and a COCO file `instances.json` with their masks. They are
            mixed with the drawn scenes.
        start: The folder of a checkpoint to start from; None for random weights.
        cache: The folder of the drawn scenes, the state and the log.
        device: A torch device. Empty: cuda if available, else cpu.
        workers: The number of processes that prepare batches.
        drawers: The number of processes that draw scenes beforehand.
        eager: Whether to run without torch.compile.
        bfloat16: Whether to use torch.autocast with bfloat16.
        save_every: The number of steps between two saved states.
    """

    output: Path
    family: str = "sam"
    plan: Plan = Plan()
    photographs: tuple[Path, ...] = ()
    start: Path | None = None
    cache: Path = Path(".cache")
    device: str = ""
    workers: int = 1
    drawers: int = os.cpu_count() or 1
    eager: bool = False
    bfloat16: bool = False
    save_every: int = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a training to a parser."""
    default = TrainingOptions
    parser.add_argument("--family", choices=FAMILY_NAMES, default=default.family, help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument(
        "--cache", type=Path, default=default.cache, help="folder for scenes, state and log (default: %(default)s)"
    )
    parser.add_argument("--start", type=Path, help="folder of a checkpoint to start from (default: random weights)")
    parser.add_argument(
        "--photos",
        type=Path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="folders of photographs, each with a COCO file instances.json, to train on in addition to scenes",
    )
    parser.add_argument("--device", default=default.device, help="cpu, cuda, cuda:1 (default: cuda if available)")
    parser.add_argument(
        "--workers", type=int, default=default.workers, help="processes that prepare batches (default: %(default)s)"
    )
    parser.add_argument(
        "--drawers", type=int, default=default.drawers, help="processes that draw scenes (default: one per CPU)"
    )
    parser.add_argument("--eager", action="store_true", help="do not compile the model")
    parser.add_argument("--bfloat16", action="store_true", help="use bfloat16 (torch.autocast)")
    parser.add_argument(
        "--save-every",
        type=int,
        default=default.save_every,
        help="steps between two saved states (default: %(default)s)",
    )
    add_plan(parser, Plan)


def read_options(arguments: argparse.Namespace) -> TrainingOptions:
    """Return the options of a parsed command line.

    Args:
        arguments: The parsed arguments. Plan options may be missing; they get their defaults.
    """
    values = vars(arguments)
    plan = Plan(**{item.name: values[item.name] for item in fields(Plan) if item.name in values})
    return TrainingOptions(
        output=arguments.output,
        family=arguments.family,
        plan=plan,
        photographs=tuple(arguments.photos),
        start=arguments.start,
        cache=arguments.cache,
        device=arguments.device or "",
        workers=arguments.workers,
        drawers=arguments.drawers,
        eager=arguments.eager,
        bfloat16=arguments.bfloat16,
        save_every=arguments.save_every,
    )
