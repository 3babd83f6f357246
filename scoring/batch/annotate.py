"""Auto-annotation: a folder of images in, label files with masks out.

python -m scoring.batch annotate --data photos --detector PekingU/rtdetr_r18vd --output out/labels
python -m scoring.batch annotate --data photos --detector IDEA-Research/grounding-dino-tiny --classes "cup, spoon" ...
python -m scoring.batch annotate --data photos --boxes photos/labels --output out/labels
python -m scoring.batch annotate --data photos --output out/labels
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.exceptions import MlflowException
from tqdm import tqdm

from model.contract import Params, Row
from model.embeddings import Embeddings
from model.errors import BadInput, BadParameter
from model.images import ImageLimits
from model.package import json_object
from model.prompts import Prompt
from model.scorer import Scorer
from model.segmenter import Segmenter
from scoring import models
from scoring.batch import boxes, detectors, labels, sources
from scoring.batch.ahead import Ahead
from scoring.batch.boxes import Boxes, Detection
from scoring.batch.detectors import Detector
from scoring.batch.label_folder import LabelFolder, beside, write
from scoring.batch.labels import Labelled, Thing
from scoring.batch.parts import OtherJob
from scoring.batch.sources import BadTable

# An image's name and its pixels (h, w, 3), read when asked for, to its boxes; None asks for everything in it.
Finder = Callable[[str, Callable[[], np.ndarray]], list[Detection] | None]
ULTRALYTICS_SIZES = {"t": "tiny", "s": "small", "b": "base-plus", "l": "large"}
ULTRALYTICS = {
    "sam_b.pt": "facebook/sam-vit-base",
    "sam_l.pt": "facebook/sam-vit-large",
    "sam_h.pt": "facebook/sam-vit-huge",
    **{f"sam2_{letter}.pt": f"facebook/sam2-hiera-{size}" for letter, size in ULTRALYTICS_SIZES.items()},
    **{f"sam2.1_{letter}.pt": f"facebook/sam2.1-hiera-{size}" for letter, size in ULTRALYTICS_SIZES.items()},
}


def auto_annotate(
    data: str | Path,
    det_model: str | None = None,
    sam_model: str = "build/model",
    device: str = "",
    conf: float = 0.25,
    iou: float = 0.45,
    imgsz: int = 640,
    max_det: int = 300,
    classes: Sequence[int | str] | None = None,
    output_dir: str | Path | None = None,
    params: Mapping[str, Any] | None = None,
) -> None:
    """Ultralytics' function of this name: a YOLO segmentation file for each image in the folder `data`.

    det_model: a detector (`detectors.load`), None for everything in the image as class 0. sam_model: an MLflow model, a
    checkpoint, or Ultralytics' name of one. output_dir: by default a folder `labels` beside `data`; images that have
    their file there already are left out. imgsz changes nothing: detectors here know their own size. params: of
    everything in an image, such as `pred_iou_thresh`, where they are not to be the model's own.
    Raises BadTable, BadParameter.
    """
    rules = detectors.Rules(conf, iou, max_det, None if classes is None else tuple(classes))
    find = from_detector(detectors.load(det_model, rules, device)) if det_model else everything
    folder = Path(output_dir) if output_dir is not None else Path(data).absolute().parent / "labels"
    left = {name: path for name, path in images_in(Path(data)).items() if not beside(folder, name, ".txt").exists()}
    for name, found in annotated(scorer_of(sam_model, device), left, find, params):
        if isinstance(found, Labelled):
            write(beside(folder, name, ".txt"), labels.yolo(found).encode())
        else:
            tqdm.write(f"failed       {name}: {found}", file=sys.stderr)


def annotated(
    scorer: Scorer, images: Mapping[str, Path], find: Finder, given: Mapping[str, Any] | None = None
) -> Iterator[tuple[str, Labelled | Exception]]:
    """Each image's name with its objects, or with what was wrong with it. `given`: params of everything in an image
    that are not to be the model's own. Raises BadParameter."""
    params = Params.read({**asdict(scorer.params), **(given or {})})
    params = replace(params, mask_encoding="rle", on_error="raise", response_format="model_card")
    ahead = Ahead(scorer.open)
    ahead.want(map(str, images.values()))
    scorer.open = lru_cache(maxsize=1)(ahead.open)  # type: ignore[method-assign]
    for name, path in tqdm(images.items(), unit="image", desc="annotating", disable=None):
        try:
            found = find(name, scorer.open(str(path))[1])
            things: list[Thing] = []
            size = scorer.open(str(path))[1]().shape[:2]
            asked = [Prompt(box=_within(one.box, size)) for one in found or []]
            if found is None or asked:
                (answer,) = scorer.score([Row(name, str(path), None, asked, False)], params)
                best = [prediction["mask_per_prediction"][0] for prediction in answer["predictions"]]
                numbers = [one.category for one in found] if found is not None else [0] * len(best)
                things = [labels.thing(number, one) for number, one in zip(numbers, best, strict=True)]
            yield name, Labelled(name, (size[0], size[1]), [thing for thing in things if thing.area])
        except (BadInput, OSError) as error:
            yield name, error


def everything(name: str, pixels: Callable[[], np.ndarray]) -> None:
    """Asks for every object in an image, whatever it is."""


def from_detector(detector: Detector) -> Finder:
    return lambda name, pixels: detector(pixels())


def from_boxes(given: Boxes) -> Finder:
    def find(name: str, pixels: Callable[[], np.ndarray]) -> list[Detection]:
        height, width = pixels().shape[:2]
        return given.of(name, (height, width))

    return find


def images_in(data: Path) -> dict[str, Path]:
    """The images in a folder and those below it, by their names there. Raises BadTable."""
    files = sorted(file for file in data.rglob("*") if file.suffix.lower() in sources.IMAGES)
    if not files:
        raise BadTable(f"'{data}': expected a folder of images ({', '.join(sources.IMAGES)})")
    found = {file.relative_to(data).as_posix(): file for file in files}
    stems = Counter(Path(name).with_suffix("") for name in found)
    double = [name for name in found if stems[Path(name).with_suffix("")] > 1]
    if double:
        raise BadTable(f"'{data}': {' and '.join(double[:2])} would have the same label file; rename one")
    return found


def scorer_of(model: str, device: str = "") -> Scorer:
    """From the URI of an MLflow model, or from a checkpoint (also by Ultralytics' name). Raises BadTable."""
    model = ULTRALYTICS.get(model, model) if not Path(model).exists() else model
    try:
        if "://" in model or ":/" in model or (Path(model) / "MLmodel").exists():
            config = {"local_paths": True, **({"device": device} if device else {})}
            return models.load(model, **config).unwrap_python_model().scorer
        return Scorer(Segmenter.load(model, device or None), Embeddings(2**28), ImageLimits(local_paths=True))
    except (MlflowException, OSError, ValueError) as error:
        raise BadTable(f"no model can be loaded from '{model}': {str(error).splitlines()[0]}") from None


def _within(box: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """A box cut at the image's edges; detectors look a little over them."""
    height, width = size[:2]
    x1, y1, x2, y2 = np.clip(box, 0, (width, height, width, height))
    if x2 <= x1 or y2 <= y1:
        raise BadInput("box", "x1 < x2 and y1 < y2 within the image", ",".join(f"{side:g}" for side in box))
    return np.array([x1, y1, x2, y2], np.float32)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scoring.batch annotate", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of images, with the folders below it")
    parser.add_argument("--output", type=Path, required=True, help="folder for the label files")
    parser.add_argument(
        "--model", default="build/model", help="URI of an MLflow model, or a checkpoint (default: %(default)s)"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--detector", help="transformers detector (id or folder) whose boxes become masks")
    what.add_argument("--boxes", type=Path, help="boxes that exist: COCO .json, folder of YOLO .txt or VOC .xml")
    parser.add_argument("--classes", default="", help='words to look for, or the classes to keep: "cup, spoon"')
    parser.add_argument("--conf", type=float, default=0.25, help="least score of a box (default: %(default)s)")
    parser.add_argument("--iou", type=float, default=0.45, help="most overlap of two of a class (default: %(default)s)")
    parser.add_argument("--max-det", type=int, default=300, help="most boxes an image (default: %(default)s)")
    parser.add_argument("--params", type=json_object, default={}, help="of everything in an image, as JSON")
    parser.add_argument("--polygons", action="store_true", help="polygons instead of run lengths in annotations.json")
    parser.add_argument("--device", default="", help="cpu, cuda, cuda:1 (default: cuda when there is one)")
    parser.add_argument("--overwrite", action="store_true", help="start anew where another job's labels are")
    return parser


def main(arguments: list[str] | None = None) -> int:
    chosen = _parser().parse_args(arguments)
    words = tuple(word.strip() for word in chosen.classes.split(",") if word.strip())
    rules = detectors.Rules(chosen.conf, chosen.iou, chosen.max_det, words or None)
    try:
        images = images_in(chosen.data)
        Params.read(chosen.params)
        find: Finder = everything
        names = {0: "object"}
        if chosen.detector:
            detector = detectors.load(chosen.detector, rules, chosen.device)
            find, names = from_detector(detector), detector.names
        elif chosen.boxes:
            given = boxes.read(chosen.boxes)
            find, names = from_boxes(given), given.names
        given_names = ("data", "model", "detector", "boxes", "classes", "conf", "iou", "max_det", "params")
        output = LabelFolder(
            chosen.output, {name: _plain(getattr(chosen, name)) for name in given_names}, chosen.overwrite
        )
        left = {name: path for name, path in images.items() if not output.done(name)}
        failed = {}
        for name, found in annotated(scorer_of(chosen.model, chosen.device), left, find, chosen.params) if left else ():
            if isinstance(found, Labelled):
                output.put(found)
            else:
                failed[name] = str(found)
        counts = output.finish(images, names, chosen.polygons)
    except (BadTable, BadParameter, OtherJob) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}; what is written stays, and the same command goes on from there", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    print(f"images       {len(images)} ({len(images) - len(left)} done before, {len(failed)} failed)")
    for kind, count in counts.most_common():
        print(f"objects      {count} {kind}")
    print(f"written      {chosen.output}")
    for name, reason in list(failed.items())[:5]:
        print(f"failed       {name}: {reason}")
    return 1 if len(failed) == len(images) else 0


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value
