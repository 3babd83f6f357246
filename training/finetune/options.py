"""The options of a fine-tuning, and the command line that sets them. This module imports no large library."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sam_endpoint.model.errors import BadParameter
from sam_endpoint.training.plans import add_plan, check_finite, option

MODES = ("decoder", "lora", "full")
FORMATS = ("auto", "coco", "yolo", "label-studio", "predictions")
FIGURES = ("1 click", "box", "2 clicks", "3 clicks", "4 clicks", "5 clicks")
DEFAULT_STEPS = 1000
DEFAULT_HOLDOUT = 0.2


@dataclass(frozen=True)
class Plan:
    """The options that determine the trained weights. The base model and the data also determine the weights.

    The help texts are in the fields' metadata. `steps` is 0 until it has been derived from `epochs` or `minutes`.
    """

    mode: str = "decoder"
    steps: int = 0
    seed: int = option(1, "seed of the split, the batches, the prompts and the bootstrap")
    images: int = option(8, "images of a batch")
    masks: int = option(2, "objects of each image in a batch")
    accumulate: int = option(1, "batches whose gradients are added up for one step")
    rate: float = option(3e-4, "maximum learning rate")
    warmup: int = option(20, "number of first steps in which the learning rate rises")
    decay: float = option(0.01, "weight decay")
    rank: int = option(8, "rank of the adapters, for --mode lora")
    stop_share: float = option(0.1, "share of the training images that early stopping watches; 0: no early stopping")
    validate_every: int = option(50, "steps between two validations")
    patience: int = option(6, "training stops after this number of validations without an improvement")

    def __post_init__(self) -> None:
        check_finite(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the options by name, for JSON and for MLflow's params."""
        return asdict(self)


@dataclass(frozen=True)
class FinetuneOptions:
    """All options of a fine-tuning.

    Attributes:
        model: The base model: an MLflow model, a Hugging Face id or a checkpoint.
        data: The training data.
        format: One of FORMATS.
        images: The folder of the images; None for the folder of the data.
        val: The held-out data, in the same format; None to hold out a share of `data`.
        holdout: The share of the images of `data` that is held out.
        categories: Names of the categories to train on; empty for all.
        category_column: The column with the category, if the data is a table of predictions.
        output: The folder of the new MLflow model.
        work: The folder of the data split, the embeddings, the training state and the reports.
        plan: The options that determine the weights.
        epochs: Number of passes over the training images, from which the number of steps is computed; 0 if not set.
        minutes: Minutes for encoding and training, from which the number of steps is computed; 0 if not set.
        register: Name of the registered model; empty to register no model.
        alias: Alias for the registered version.
        promote: Alias that moves to the registered version if the verdict of the gate is `better`.
        figure: The kind of prompt whose IoU decides in the gate, one of FIGURES.
        margin: The gain in IoU that the model must exceed to be better.
        tolerance: The largest loss in IoU that is allowed for other kinds of prompts and for guards.
        guards: COCO files of images on which the model must not get worse.
        device: A torch device; empty for cuda if available, else cpu.
        log: Whether to log to the tracking server.

    Raises:
        BadParameter: The options contradict each other, or a number is not finite.
    """

    model: str
    data: str
    format: str = "auto"
    images: Path | None = None
    val: str = ""
    holdout: float = DEFAULT_HOLDOUT
    categories: tuple[str, ...] = ()
    category_column: str = ""
    output: Path = Path("build/finetuned")
    work: Path | None = None
    plan: Plan = Plan()
    epochs: float = 0
    minutes: float = 0
    register: str = ""
    alias: str = ""
    promote: str = ""
    figure: str = FIGURES[0]
    margin: float = 0.0
    tolerance: float = 0.01
    guards: tuple[Path, ...] = ()
    device: str = ""
    log: bool = True

    def __post_init__(self) -> None:
        plan = self.plan
        check_finite(self)
        for name, value in (("--alias", self.alias), ("--promote", self.promote)):
            if value and not self.register:
                raise BadParameter(f"{name} needs --register")
        if self.register and not self.log:
            raise BadParameter("--register needs a logged model; leave out --no-log")
        if not self.val and not 0 < self.holdout < 1:
            raise BadParameter(f"--holdout: expected a share between 0 and 1, got {self.holdout:g}")
        if sum(map(bool, (plan.steps, self.epochs, self.minutes))) > 1:
            raise BadParameter("--steps, --epochs and --minutes: expected only one of the three, got several")
        if min(plan.steps, self.epochs, self.minutes) < 0:
            raise BadParameter("--steps, --epochs and --minutes: expected a number above 0, got a negative number")
        if not 0 <= plan.stop_share < 1:
            raise BadParameter(f"--stop-share: expected a share from 0 to below 1, got {plan.stop_share:g}")
        for name in ("images", "masks", "accumulate", "warmup", "rank", "validate_every", "patience"):
            if getattr(plan, name) < 1:
                option = name.replace("_", "-")
                raise BadParameter(f"--{option}: expected a whole number of at least 1, got {getattr(plan, name)}")
        if plan.rate <= 0 or plan.decay < 0 or self.tolerance < 0:
            raise BadParameter(
                "expected --rate above 0, and --decay and --tolerance of at least 0, got "
                f"{plan.rate:g}, {plan.decay:g} and {self.tolerance:g}"
            )

    @property
    def work_folder(self) -> Path:
        """The folder of the data split, the embeddings, the training state and the reports. Default: `OUTPUT.work`."""
        return self.work or self.output.with_name(f"{self.output.name}.work")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a fine-tuning to a parser."""
    default = FinetuneOptions
    parser.add_argument("--model", required=True, help="base: MLflow model, Hugging Face id or checkpoint")
    data = parser.add_argument_group("data")
    data.add_argument("--data", required=True, help="labelled images to train on: a file or a folder")
    data.add_argument("--format", choices=FORMATS, default=default.format, help="(default: %(default)s)")
    data.add_argument("--images", type=Path, help="folder of the images (default: the folder of the data)")
    data.add_argument("--val", default="", help="held-out data in the same format, for the gate")
    data.add_argument(
        "--holdout", type=float, default=DEFAULT_HOLDOUT, help="without --val: share of images held out (%(default)s)"
    )
    data.add_argument("--category", action="append", default=[], help="train on this category only; may be repeated")
    data.add_argument("--category-column", default="", help="column with the category in a table of predictions")
    files = parser.add_argument_group("output")
    files.add_argument("--output", type=Path, default=default.output, help="folder of the model (default: %(default)s)")
    files.add_argument("--work", type=Path, help="folder of embeddings, state and reports (default: OUTPUT.work)")
    files.add_argument("--register", default="", metavar="NAME", help="register the model under this name")
    files.add_argument("--alias", default="", help="alias of the registered version; needs --register")
    files.add_argument("--no-log", action="store_true", help="do not log to a tracking server")
    gate = parser.add_argument_group("gate")
    gate.add_argument("--promote", default="", metavar="ALIAS", help="move this alias if the model is better")
    gate.add_argument(
        "--figure",
        choices=FIGURES,
        default=default.figure,
        help="kind of prompt whose IoU decides (default: %(default)s)",
    )
    gate.add_argument(
        "--margin",
        type=float,
        default=default.margin,
        help="gain in IoU that the model must exceed (default: %(default)s)",
    )
    gate.add_argument(
        "--tolerance",
        type=float,
        default=default.tolerance,
        help="largest loss in IoU for other prompts and for guards (default: %(default)s)",
    )
    gate.add_argument(
        "--guard",
        type=Path,
        action="append",
        default=[],
        help="COCO file of images on which the model must not get worse; may be repeated",
    )
    training = parser.add_argument_group("training")
    training.add_argument(
        "--mode", choices=MODES, default=Plan.mode, help="weights to train: mask decoder, adapters, or everything"
    )
    training.add_argument("--steps", type=int, default=0, help=f"number of steps (default: {DEFAULT_STEPS})")
    training.add_argument("--epochs", type=float, default=0, help="passes over the images, instead of --steps")
    training.add_argument("--minutes", type=float, default=0, help="minutes to encode and train, instead of --steps")
    training.add_argument("--device", default="", help="cpu, cuda, cuda:1 (default: cuda if there is one)")
    add_plan(training, Plan, {"images": "--batch-images", "masks": "--batch-masks"})


def read_options(arguments: argparse.Namespace) -> FinetuneOptions:
    """Return the options of a parsed command line. Raises BadParameter."""
    values = vars(arguments)
    names = {"images": "batch_images", "masks": "batch_masks"}
    plan = Plan(**{item.name: values[names.get(item.name, item.name)] for item in fields(Plan)})
    return FinetuneOptions(
        model=arguments.model,
        data=arguments.data,
        format=arguments.format,
        images=arguments.images,
        val=arguments.val,
        holdout=arguments.holdout,
        categories=tuple(arguments.category),
        category_column=arguments.category_column,
        output=arguments.output,
        work=arguments.work,
        plan=plan,
        epochs=arguments.epochs,
        minutes=arguments.minutes,
        register=arguments.register,
        alias=arguments.alias,
        promote=arguments.promote,
        figure=arguments.figure,
        margin=arguments.margin,
        tolerance=arguments.tolerance,
        guards=tuple(arguments.guard),
        device=arguments.device,
        log=not arguments.no_log,
    )
