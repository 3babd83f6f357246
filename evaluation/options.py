"""Define the options of an evaluation and parse them from the command line. This module imports no slow libraries."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from sam_endpoint.model.errors import BadParameter

SCENES = "scenes"
CLIPS = "clips"
TEXT, EXAMPLE = "text", "example"
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
        concepts: TEXT to search for the names of categories, EXAMPLE to search for objects like an example; empty to
            segment objects from boxes and clicks.
        negatives: The maximum number of absent categories per image that are searched for; None for all.
        min_score: The minimum score of an instance of a concept; None for the default of the model.
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
    concepts: str = ""
    negatives: int | None = None
    min_score: float | None = None
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
        if self.concepts and (self.data in (SCENES, CLIPS) or Path(self.data).is_dir() or self.boxes):
            raise BadParameter("--concepts needs a COCO instances file as --data, and no --boxes")
        if not self.concepts and (self.negatives is not None or self.min_score is not None):
            raise BadParameter("--negatives and --min-score need --concepts")
        if self.negatives is not None and (self.negatives < 0 or self.concepts == EXAMPLE):
            raise BadParameter("--negatives: expected a whole number of at least 0, with --concepts text")
        if self.min_score is not None and not 0 <= self.min_score <= 1:
            raise BadParameter(f"--min-score: expected a number from 0 to 1, got {self.min_score:g}")
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
        "--concepts",
        choices=(TEXT, EXAMPLE),
        default="",
        help="search for the names of the categories (text), or for objects like the first one of each category "
        "(example), and print cgF1 and AP",
    )
    parser.add_argument(
        "--negatives", type=int, help="maximum number of absent categories per image that --concepts text searches for"
    )
    parser.add_argument(
        "--min-score", type=float, help="minimum score of an instance of a concept (default: that of the model)"
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
        concepts=arguments.concepts,
        negatives=arguments.negatives,
        min_score=arguments.min_score,
        count=arguments.count,
        device=arguments.device,
        output=arguments.output,
        sheet=arguments.sheet,
        pictures=arguments.pictures,
        log=not arguments.no_log,
    )
