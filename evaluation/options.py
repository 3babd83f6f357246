"""Define the options of an evaluation and parse them from the command line. This module imports no slow libraries."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from sam_endpoint.model.errors import BadParameter

SCENES = "scenes"
CLIPS = "clips"
DEFAULT_SCENES = 200
DEFAULT_CLIPS = 50
DEFAULT_MODEL = "build/model"


@dataclass(frozen=True)
class EvaluationOptions:
    """The models and data to evaluate, and the destinations of the results.

    Attributes:
        models: One or two MLflow models, Hugging Face ids or checkpoint folders.
        data: `scenes` for synthetic scenes, `clips` for synthetic videos, the path of a COCO instances file, or that
            of a DAVIS folder.
        images: The folder of the COCO file's images; None for the folder of the file.
        boxes: A COCO results file, whose boxes are segmented as well; None for no such file.
        count: The number of images; 0 for DEFAULT_SCENES scenes, DEFAULT_CLIPS clips, or all images or videos of
            the data.
        device: A torch device; empty for `cuda` if available, else `cpu`.
        output: A JSON file for all metrics; None writes no file.
        sheet: A PNG file for the first images with their masks; None writes no file.
        pictures: A folder for plots and the objects with the lowest IoU; None writes no files.
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
            raise BadParameter(f"--model: expected one or two models, got {len(self.models)}")
        if self.boxes and self.data in (SCENES, CLIPS):
            raise BadParameter("--boxes needs a COCO instances file as --data")
        if self.count < 0:
            raise BadParameter(f"--count: expected a whole number of at least 0, got {self.count}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command `evaluate` to its parser."""
    parser.add_argument(
        "--model",
        action="append",
        help=f"MLflow model, Hugging Face id or checkpoint; give two to compare them (default: {DEFAULT_MODEL})",
    )
    parser.add_argument(
        "--data",
        default=SCENES,
        help="COCO instances .json file, the word scenes for synthetic images, the word clips for synthetic videos, or "
        "a folder of videos in the layout of DAVIS (default: %(default)s)",
    )
    parser.add_argument("--images", default="", help="folder of the COCO file's images (default: folder of the file)")
    parser.add_argument(
        "--boxes",
        type=Path,
        help="COCO results .json file of a detector: segment its boxes and print COCO's AP of the masks",
    )
    parser.add_argument(
        "--count",
        type=int,
        default=0,
        help=f"number of images or videos (default: {DEFAULT_SCENES} scenes, {DEFAULT_CLIPS} clips, otherwise all)",
    )
    parser.add_argument("--device", default="", help="cpu, cuda or cuda:1 (default: cuda if available)")
    parser.add_argument("--output", type=Path, help="write all metrics to this .json file")
    parser.add_argument("--sheet", type=Path, help="draw the first images with their masks to this .png file")
    parser.add_argument(
        "--pictures", type=Path, help="draw plots and the objects with the lowest IoU to .png files in this folder"
    )
    parser.add_argument("--no-log", action="store_true", help="do not log an MLflow run")


def read_options(arguments: argparse.Namespace) -> EvaluationOptions:
    """Convert parsed arguments to options. Raises BadParameter if options contradict each other."""
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
