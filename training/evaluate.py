"""How good a model's masks are, on drawn scenes or on a COCO file; given two models, how they differ.

python -m training.evaluate --model build/model --data scenes --count 20
python -m training.evaluate --model build/model --data instances_val2017.json --images val2017
python -m training.evaluate --model models:/sam@champion --model build/finetuned --data mine.json --boxes results.json
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from PIL import Image

from model.errors import Busy
from model.package import DEFAULT_OUTPUT, DEFAULT_TRACKING
from model.segmenter import Segmenter
from scoring.batch.annotate import scorer_of
from scoring.batch.sources import BadTable
from scoring.overlay import sheet
from training import detections, drawings, figures, report, runs
from training.coco import Coco
from training.detections import Detection, Found
from training.drawings import Case
from training.ground_truth import GroundTruth, Picture, Scenes
from training.judge import Judged, judge

SCENES = 200
AT_ONCE = 16  # things whose masks are held in memory together
WORST = 12
SHOWN = 8


class Evaluation:
    """One model by its name, and what has been found of it so far: rows of figures, the worst cases, the first
    pictures, masks of given boxes."""

    def __init__(self, name: str, segmenter: Segmenter) -> None:
        self.name = name
        self.segmenter = segmenter
        self.rows: list[dict[str, Any]] = []
        self.worst: list[Case] = []
        self.pictures: list[Image.Image] = []
        self.found: list[Found] = []

    def answers(self, picture: Picture, boxes: list[Detection]) -> tuple[list[Judged], list[Found]]:
        """What the model makes of a picture's things, and of given boxes. Raises Busy."""
        (embedding,) = self.segmenter.embed([picture.image])
        judged: list[Judged] = []
        for start in range(0, len(picture.things), AT_ONCE):
            some = [thing.mask for thing in picture.things[start : start + AT_ONCE]]
            judged += judge(self.segmenter, embedding, some)
        return judged, detections.segmented(self.segmenter, embedding, boxes) if boxes else []

    def add(self, picture: Picture, judged: Sequence[Judged], found: Sequence[Found]) -> None:
        self.found += found
        for thing, one in zip(picture.things, judged, strict=True):
            told = {"image": picture.name, "thing": thing.name, "size": thing.size}
            self.rows.append({**told, **figures.row(one)})
            if len(self.worst) < WORST or one.figures["box"].iou < self.worst[-1].iou:
                self.worst = sorted([*self.worst, drawings.case(picture, thing, one)], key=lambda case: case.iou)
                del self.worst[WORST:]
        if judged and len(self.pictures) < SHOWN:
            self.pictures.append(drawings.boxed(picture, judged))

    @property
    def things(self) -> pd.DataFrame:
        """A row an object: `image`, `thing`, `size` and the columns of `figures.row`."""
        return pd.DataFrame(self.rows)


def evaluate(
    models: Mapping[str, Segmenter], truth: GroundTruth, boxes: Mapping[object, list[Detection]] | None = None
) -> tuple[list[Evaluation], list[object]]:
    """Each model, by its name, on all things of the ground truth, and on given boxes by image; and the ids of the
    images gone through. Each picture is read once and judged by all, or, where memory is short for one, by none."""
    evaluations = [Evaluation(name, segmenter) for name, segmenter in models.items()]
    seen: list[object] = []
    for picture in truth:
        given = (boxes or {}).get(picture.id, [])
        if given and isinstance(truth, Coco):
            given = detections.within(given, (picture.image.shape[0], picture.image.shape[1]), truth)
        if picture.things or given:
            try:
                answers = [one.answers(picture, given) for one in evaluations]
            except Busy:
                truth.problems.add("images for which memory was short, left out", picture.name)
                continue
            for one, (judged, found) in zip(evaluations, answers, strict=True):
                one.add(picture, judged, found)
        seen.append(picture.id)
    return evaluations, seen


def names_of(models: Sequence[str]) -> list[str]:
    """What the models are called in tables: a folder's last name where that tells them apart, else all of it."""
    short = [Path(model).resolve().name if Path(model).exists() else model for model in models]
    if len(set(short)) == len(models):
        return short
    return list(models) if len(set(models)) == len(models) else [f"{model} ({n})" for n, model in enumerate(models, 1)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model",
        action="append",
        help=f"MLflow model, Hugging Face id or checkpoint; twice for two ({DEFAULT_OUTPUT})",
    )
    parser.add_argument("--data", default="scenes", help="COCO instances .json, or scenes (default: %(default)s)")
    parser.add_argument("--images", default="", help="folder of the COCO file's images (default: that of the file)")
    parser.add_argument(
        "--boxes", type=Path, help="COCO results .json: its boxes are segmented, and the masks' AP told"
    )
    parser.add_argument(
        "--count", type=int, default=0, help=f"most images (default: {SCENES} scenes, all of a COCO file)"
    )
    parser.add_argument("--device", default="", help="cpu, cuda, cuda:1 (default: cuda when there is one)")
    parser.add_argument("--output", type=Path, help="also write the figures into this .json")
    parser.add_argument("--sheet", type=Path, help="also draw the first images with their masks into this .png")
    parser.add_argument("--pictures", type=Path, help="also put curves and worst cases into this folder, as .png")
    parser.add_argument("--no-log", action="store_true", help="log to no tracking server")
    return parser


def _truth(chosen: argparse.Namespace) -> GroundTruth:
    if chosen.data == "scenes":
        return Scenes(chosen.count or SCENES)
    return Coco(Path(chosen.data), Path(chosen.images) if chosen.images else None, chosen.count)


def _told(chosen: argparse.Namespace, evaluations: list[Evaluation], truth: GroundTruth, seen: list[object]) -> None:
    """Prints, writes and logs all there is to say. Raises MlflowException and OSError."""
    reports = []
    for one in evaluations:
        found = {"model": one.name, **truth.settings, "sizes": truth.sizes, **figures.report(one.things)}
        if chosen.boxes and isinstance(truth, Coco):
            found["average precision"] = detections.average_precision(truth, seen, one.found)
        reports.append({**found, "problems": truth.problems.noted()})
    tables = [one.things for one in evaluations]
    change = figures.difference(*tables) if len(tables) == 2 else None
    print(f"{', '.join(one.name for one in evaluations)} on {truth.settings['data']}")
    print(truth.sizes, end="\n\n")
    if change is None:
        print(report.told(reports[0]))
    else:
        print(report.compared(evaluations[0].name, evaluations[1].name, change, figures.scalars(*reports)))
    if truth.problems.counts:
        print(f"\nwrong with the data:\n{truth.problems.told()}")

    curves = drawings.summary({one.name: table for one, table in zip(evaluations, tables, strict=True)})
    pictures = [{"curves": curves, "worst": drawings.worst(one.worst)} for one in evaluations]
    if chosen.output:
        both = {"models": reports, "difference": [] if change is None else json.loads(change.to_json(orient="records"))}
        chosen.output.parent.mkdir(parents=True, exist_ok=True)
        chosen.output.write_text(json.dumps(reports[0] if change is None else both, indent=2) + "\n")
    if chosen.sheet:
        chosen.sheet.parent.mkdir(parents=True, exist_ok=True)
        sheet(evaluations[0].pictures, columns=4).save(chosen.sheet)
    if chosen.pictures:
        chosen.pictures.mkdir(parents=True, exist_ok=True)
        curves.save(chosen.pictures / "curves.png")
        for number, drawn in enumerate(pictures, 1):
            drawn["worst"].save(chosen.pictures / ("worst.png" if len(pictures) == 1 else f"worst-{number}.png"))
    if not chosen.no_log:
        _logged(chosen, reports, tables, pictures, change)


def _logged(
    chosen: argparse.Namespace,
    reports: list[dict[str, Any]],
    tables: list[pd.DataFrame],
    pictures: list[dict[str, Image.Image]],
    change: pd.DataFrame | None,
) -> None:
    """A run each model; the second's also holds the difference, and names the first's."""
    tags: dict[str, str] = {}
    for model, found, things, drawn in zip(chosen.model, reports, tables, pictures, strict=True):
        settings: dict[str, Any] = {name: found[name] for name in ("data", "scenes", "seed", "images") if name in found}
        logged = {"things": things, "calibration": figures.bins(things), "encodings": figures.encodings(things)}
        if tags and change is not None:
            logged["difference"] = change
        run_id = runs.log(found["model"], {"model_uri": model} | settings, found, logged, drawn, tags)
        tags = {"compared_with": run_id}
        print(f"logged      run {run_id}  (tracking: {mlflow.get_tracking_uri()})")


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    chosen = parser.parse_args(arguments)
    chosen.model = chosen.model or [str(DEFAULT_OUTPUT)]
    if len(chosen.model) > 2:
        parser.error("--model: expected one or two")
    if chosen.boxes and chosen.data == "scenes":
        parser.error("--boxes needs a COCO file as --data")
    if chosen.count < 0:
        parser.error("--count: expected a whole number from 0 on")
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        mlflow.set_tracking_uri(DEFAULT_TRACKING)
    try:
        truth = _truth(chosen)
        boxes = detections.read(chosen.boxes, truth) if chosen.boxes and isinstance(truth, Coco) else None
        models = {
            name: scorer_of(model, chosen.device).segmenter
            for name, model in zip(names_of(chosen.model), chosen.model, strict=True)
        }
        if not chosen.no_log:
            mlflow.search_experiments(max_results=1)  # a server that is not there is better known before the work
        evaluations, seen = evaluate(models, truth, boxes)
    except (BadTable, MlflowException) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    if not evaluations[0].rows:
        print(f"error: nothing in {chosen.data} could be judged\n{truth.problems.told()}", file=sys.stderr)
        return 1
    try:
        _told(chosen, evaluations, truth, seen)
    except (OSError, MlflowException) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
