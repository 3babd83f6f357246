"""Draw predictions over their images, in one picture.

Example:
  sam-endpoint show --predictions out/predictions.parquet --output out/overlay.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sam_endpoint.commands import CommandError, check_file, positive

PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("--predictions", required=True, help="output of `score`: a file, or a folder of parts")
    parser.add_argument("--output", type=Path, required=True, help=".png, .jpg or .webp file to write")
    parser.add_argument("--images", type=positive, default=6, help="maximum number of images (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    import pyarrow as pa

    from sam_endpoint.model.errors import BadInput
    from sam_endpoint.scoring.batch import show

    check_file("--output", options.output, PICTURES)
    try:
        show.picture(options.predictions, options.images).save(options.output)
    except (BadInput, OSError, KeyError, ValueError, TypeError, ImportError, pa.ArrowException) as error:
        problem = (
            f"it is not an output of `score` ({error})" if isinstance(error, (KeyError, TypeError)) else str(error)
        )
        raise CommandError(f"{options.predictions} cannot be shown: {problem}") from error
    print(f"drawn        {options.output}")
    return 0
