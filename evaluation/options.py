"""The options of an evaluation, and how a command line gives them. Imports nothing heavy."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from sam_endpoint.model.errors import BadParameter

SCENES = "scenes"
DEFAULT_SCENES = 200
DEFAULT_MODEL = "build/model"


@dataclass(frozen=True)
class EvaluationOptions:
    """What to evaluate, and where the results go.

    Attributes:
        models: One or two MLflow models, Hugging Face ids or checkpoint folders.
        data: `scenes`, or a COCO instances file.
        images: The folder of the COCO file's images; None for the file's own.
        boxes: A COCO results file whose boxes are segmented as well.
        count: The number of images; 0 for DEFAULT_SCENES scenes, or all images of a COCO file.
        device: A torch device; empty for cuda if there is one, else cpu.
        output: A JSON file for all metrics.
        sheet: A PNG file for the first images with their masks.
        pictures: A folder for curves and worst cases.
        log: Whether to log an MLflow run for each model.

    Raises:
        BadParameter: The options contradict each other.
    """

    models: tuple[str, ...] = (DEFAULT_MODEL,)
    data: str = SCENES
    images: Path | None = None
    boxes: Path | None = None
    count: int = 0
    device: str = ""
    output: Path | None = None
    sheet: Path | None = None
    pictures: Path | None = None
    log: bool = True

    def __post_init__(self) -> None:
        if not 1 <= len(self.models) <= 2:
            raise BadParameter(f"--model: expected one or two, got {len(self.models)}")
        if self.boxes and self.data == SCENES:
            raise BadParameter("--boxes needs a COCO file as --data")
        if self.count < 0:
            raise BadParameter(f"--count: expected a whole number from 0 on, got {self.count}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of an evaluation to a parser."""
    parser.add_argument(
        "--model",
        action="append",
        help=f"MLflow model, Hugging Face id or checkpoint; twice to compare two (default: {DEFAULT_MODEL})",
    )
    parser.add_argument("--data", default=SCENES, help="COCO instances .json, or scenes (default: %(default)s)")
    parser.add_argument("--images", default="", help="folder of the COCO file's images (default: that of the file)")
    parser.add_argument(
        "--boxes", type=Path, help="COCO results .json: segment its boxes and print the average precision of the masks"
    )
    parser.add_argument(
        "--count", type=int, default=0, help=f"number of images (default: {DEFAULT_SCENES} scenes, all of a COCO file)"
    )
    parser.add_argument("--device", default="", help="cpu, cuda, cuda:1 (default: cuda if there is one)")
    parser.add_argument("--output", type=Path, help="write all metrics to this .json")
    parser.add_argument("--sheet", type=Path, help="draw the first images with their masks into this .png")
    parser.add_argument("--pictures", type=Path, help="draw curves and worst cases into this folder, as .png")
    parser.add_argument("--no-log", action="store_true", help="do not log to a tracking server")


def read_options(arguments: argparse.Namespace) -> EvaluationOptions:
    """Return the options of a parsed command line. Raises BadParameter."""
    return EvaluationOptions(
        models=tuple(arguments.model or [DEFAULT_MODEL]),
        data=arguments.data,
        images=Path(arguments.images) if arguments.images else None,
        boxes=arguments.boxes,
        count=arguments.count,
        device=arguments.device,
        output=arguments.output,
        sheet=arguments.sheet,
        pictures=arguments.pictures,
        log=not arguments.no_log,
    )
