"""Export predictions as label files: COCO, YOLO segmentation, or Label Studio.

Examples:
  sam-endpoint export --predictions out/predictions.parquet --format coco --output out/coco.json --category what
  sam-endpoint export --predictions out/predictions.parquet --format yolo --output out/yolo

For each prompt, the mask with the best score becomes one object. Images without masks are exported too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sam_endpoint.commands import CommandError

FORMATS = ("coco", "coco-polygons", "yolo", "label-studio")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("--predictions", required=True, help="output of `score`: a file, or a folder of parts")
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument(
        "--output", type=Path, required=True, help="file to write (.json), or folder for the format yolo"
    )
    parser.add_argument(
        "--category",
        metavar="COLUMN",
        help="column with the category of each object (default: the category of all objects is 'object')",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    import pyarrow as pa

    from sam_endpoint.scoring.batch import export

    try:
        predictions = export.read(options.predictions, options.category)
        images, names = predictions.images, predictions.names
        if options.format.startswith("coco"):
            images = export.add_sizes(images, options.predictions)
        export.write(images, names, options.format, options.output)
        is_unfinished = export.is_unfinished(options.predictions)
    except (ValueError, OSError, ImportError, pa.ArrowException) as error:
        raise CommandError(f"{options.predictions} cannot be exported: {error}") from error
    print(f"images       {len(images)}")
    print(f"objects      {sum(len(image.objects) for image in images)} of {len(names)} categories")
    print(f"written      {options.output}")
    for line in predictions.describe():
        print(line)
    if is_unfinished:
        print(f"the job that writes {options.predictions} has not ended; the export has its rows so far")
    unsized = [image.name for image in images if not image.size[0]]
    if options.format.startswith("coco") and unsized:
        print(f"images without a size: {len(unsized)}, for example '{unsized[0]}'")
    turned = export.find_turned_images(images, options.predictions)
    if turned:
        print(
            f"images with an EXIF orientation: {len(turned)}, for example '{turned[0]}'. Their masks are for the "
            "stored pixels; for tools that apply the EXIF orientation, score again with the param orientation=upright"
        )
    return 0
