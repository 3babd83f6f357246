"""Export predictions as label files: COCO, YOLO segmentation, or Label Studio.

Examples:
  sam-endpoint export --predictions out/predictions.parquet --format coco --output out/coco.json --category what
  sam-endpoint export --predictions out/predictions.parquet --format yolo --output out/yolo

Each prompt's mask with the best score becomes one object.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sam_endpoint.commands import CommandError

FORMATS = ("coco", "coco-polygons", "yolo", "label-studio")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--predictions", required=True, help="output of `score`: a file, or a folder of parts")
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--output", type=Path, required=True, help=".json file to write; a folder for yolo")
    parser.add_argument(
        "--category", metavar="COLUMN", help="column with each object's category (default: all are 'object')"
    )


def run(options: argparse.Namespace) -> int:
    import pyarrow as pa

    from sam_endpoint.model.errors import BadInput
    from sam_endpoint.scoring.batch import export

    try:
        labelled, names = export.read(options.predictions, options.category)
        export.write(labelled, names, options.format, options.output)
    except (BadInput, OSError, KeyError, pa.ArrowException) as error:
        raise CommandError(f"{options.predictions} cannot be exported: {error}") from error
    print(f"images       {len(labelled)}")
    print(f"objects      {sum(len(image.things) for image in labelled)} of {len(names)} categories")
    print(f"written      {options.output}")
    return 0
