"""Annotate a folder of images: write label files with a mask for each object.

Examples:
  sam-endpoint annotate --data photos --output out/labels
  sam-endpoint annotate --data photos --boxes photos/labels --output out/labels
  sam-endpoint annotate --data photos --detector PekingU/rtdetr_r18vd --output out/labels
  sam-endpoint annotate --data photos --detector IDEA-Research/grounding-dino-tiny --classes "cup, spoon" --output out
  sam-endpoint annotate --data photos --model models:/sam3@champion --text "cup, spoon" --output out/labels

The EXIF orientation of images is applied. Invalid boxes are skipped and counted.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from sam_endpoint.commands import RESUMABLE, CommandError, UsageError, json_object
from sam_endpoint.scoring.process import configure_process

STOPPED = "stopped; run the same command again to continue"
JOB_OPTIONS = ("data", "detector", "boxes", "classes", "conf", "iou", "max_det")
DETECTOR_OPTIONS = {"classes": "", "conf": 0.25, "iou": 0.45, "max_det": 300}  # with their defaults
SHOWN = 5  # maximum number of skipped boxes and of failures that are printed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("--data", type=Path, required=True, help="folder of images, with its subfolders")
    parser.add_argument("--output", type=Path, required=True, help="folder for the label files")
    parser.add_argument(
        "--model", default="build/model", help="URI of an MLflow model, or a checkpoint (default: %(default)s)"
    )
    boxes = parser.add_mutually_exclusive_group()
    boxes.add_argument("--detector", help="find the boxes with this transformers detector (Hugging Face id or folder)")
    boxes.add_argument(
        "--text",
        help='find every instance of these texts, as in "cup, spoon", with a model that takes text; each is a class',
    )
    boxes.add_argument(
        "--boxes",
        type=Path,
        help="read the boxes from a COCO .json file, or from a folder of YOLO .txt or VOC .xml files",
    )
    parser.add_argument(
        "--classes",
        default=DETECTOR_OPTIONS["classes"],
        help='classes to detect, or to keep from a detector with fixed classes, as in "cup, spoon"',
    )
    parser.add_argument(
        "--conf", type=float, default=DETECTOR_OPTIONS["conf"], help="minimum score of a box (default: %(default)s)"
    )
    parser.add_argument(
        "--iou",
        type=float,
        default=DETECTOR_OPTIONS["iou"],
        help="maximum IoU of two boxes of one class (default: %(default)s)",
    )
    parser.add_argument(
        "--max-det",
        type=int,
        default=DETECTOR_OPTIONS["max_det"],
        help="maximum number of boxes per image (default: %(default)s)",
    )
    parser.add_argument(
        "--params",
        type=json_object,
        default={},
        help="parameters of automatic mask generation and of --text, such as concept_thresh, as a JSON object",
    )
    parser.add_argument(
        "--polygons", action="store_true", help="write polygons instead of run lengths to annotations.json"
    )
    parser.add_argument("--device", default="", help="cpu, cuda or cuda:1 (default: cuda if available)")
    parser.add_argument("--overwrite", action="store_true", help="replace the labels of another job")


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    ignored = [name for name, default in DETECTOR_OPTIONS.items() if getattr(options, name) != default]
    if options.text is not None and ignored:
        raise UsageError(
            f"--{ignored[0].replace('_', '-')} has no effect on --text; the minimum score of --text is "
            "--params '{\"concept_thresh\": 0.5}'"
        )
    configure_process()

    from sam_endpoint.model.concepts import Concept
    from sam_endpoint.model.params import Params
    from sam_endpoint.scoring.batch import annotate, boxes, concepts, detectors
    from sam_endpoint.scoring.batch.label_folder import LabelFolder
    from sam_endpoint.scoring.batch.labels import LabelledImage

    words = tuple(word.strip() for word in options.classes.split(",") if word.strip())
    box_filter = detectors.BoxFilter(options.conf, options.iou, options.max_det, words or None)
    notes: list[str] = []
    skipped: list[str] = []
    try:
        images = annotate.list_images(options.data, without=options.output)
        Params.read(options.params)
        find: annotate.BoxFinder | list[Concept] = annotate.segment_everything
        names = annotate.EVERYTHING
        identities: dict[str, str] = {}
        inputs = [options.data]
        described = {name: _plain(getattr(options, name)) for name in JOB_OPTIONS}
        if options.detector:
            detector = detectors.load(options.detector, box_filter, options.device)
            find, names = annotate.finder_from_detector(detector), detector.names
            described["detector"] = detectors.identify(options.detector)
        elif options.boxes:
            label_files = boxes.read(options.boxes, without=options.output)
            matched = label_files.match(images, options.data)
            find, names = annotate.finder_from_labels(matched), label_files.names
            notes, skipped = matched.describe(options.boxes, options.data), [*label_files.skipped]
            inputs.append(options.boxes)
            identities = {name: matched.identity(name) for name in images}
        elif options.text is not None:
            find = concepts.read_texts(options.text)
            names = {number: concept.text or "" for number, concept in enumerate(find)}
            described["text"] = list(names.values())
        model = annotate.open_sam(options.model, options.device)
        if isinstance(find, list):
            concepts.check_texts(model.engine, find)  # before the output folder belongs to this job
        described["weights"] = model.weights
        described["params"] = vars(annotate.read_params(model, options.params))
        output = LabelFolder(options.output, {**described, "orientation": "upright"}, names, options.overwrite, inputs)
        pending = {name: path for name, path in images.items() if not output.done(name, identities.get(name, ""))}
        failed = {}
        for name, result in annotate.annotate_images(model, pending, find, options.params) if pending else ():
            if isinstance(result, LabelledImage):
                output.put(result, identities.get(name, ""))
            else:
                failed[name] = str(result)
        done = output.finish(images, options.polygons)
    except OSError as error:
        raise CommandError(f"{error}; {RESUMABLE}") from error
    print(f"images       {len(images)} ({len(images) - len(pending)} done before, {len(failed)} failed)")
    counts = Counter(names[thing.category] for labelled in done for thing in labelled.objects)
    for kind, count in counts.most_common():
        print(f"objects      {count} {kind}")
    print(f"written      {options.output}")
    for note in notes:
        print(note)
    skipped += [f"{labelled.name} {reason}" for labelled in done for reason in labelled.skipped]
    if skipped:
        print(f"skipped {len(skipped)} box{'es' * (len(skipped) > 1)}: {'; '.join(skipped[:SHOWN])}")
    for name, reason in list(failed.items())[:SHOWN]:
        print(f"failed       {name}: {reason}")
    return 1 if len(failed) == len(images) else 0


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value
