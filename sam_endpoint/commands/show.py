"""Draw predictions over their images, as one picture.

Example:
  sam-endpoint show --predictions out/predictions.parquet --output out/overlay.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sam_endpoint.commands import CommandError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--predictions", required=True, help="output of `score`: a file, or a folder of parts")
    parser.add_argument("--output", type=Path, required=True, help=".png file to write")
    parser.add_argument("--images", type=int, default=6, help="maximum number of images (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    import pyarrow as pa

    from sam_endpoint.model.errors import BadInput
    from sam_endpoint.scoring.batch import show

    try:
        picture = show.picture(options.predictions, options.images)
    except (BadInput, OSError, KeyError, pa.ArrowException) as error:
        raise CommandError(f"{options.predictions} cannot be shown: {error}") from error
    options.output.parent.mkdir(parents=True, exist_ok=True)
    picture.save(options.output)
    print(f"drawn        {options.output}")
    return 0
