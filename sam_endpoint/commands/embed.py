"""Encode a folder of images in advance and write the embeddings to an embedding store for the endpoint.

Example:
  sam-endpoint embed --model build/model --images photos --store s3://bucket/embeddings
  sam-endpoint serve --model build/model --embedding-store s3://bucket/embeddings

The image_id of an image is its path relative to the folder. If the endpoint uses SAM_EMBEDDING_STORE_KEY, set this
variable to the same value here.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from sam_endpoint.commands import CommandError
from sam_endpoint.scoring.process import configure_process

SECRET = "SAM_EMBEDDING_STORE_KEY"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("--model", default="build/model", help="URI of an MLflow model (default: %(default)s)")
    parser.add_argument("--images", type=_folder, required=True, help="folder of images, with its subfolders")
    parser.add_argument(
        "--store", required=True, help="folder or fsspec URL, the same as the endpoint's --embedding-store"
    )
    parser.add_argument(
        "--api-key", default="", help="API key whose requests may use the embeddings, if the endpoint has API keys"
    )
    parser.add_argument(
        "--orientation",
        choices=("upright", "stored"),
        default="upright",
        help="upright applies the EXIF orientation, as labelling tools do; stored does not (default: %(default)s)",
    )


def _folder(text: str) -> Path:
    if not text.strip():  # Path would read this as the current folder
        raise argparse.ArgumentTypeError("expected the name of a folder, got an empty text")
    return Path(text)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    configure_process()

    from sam_endpoint.scoring.batch.embed import embed

    try:
        secret, upright = os.environ.get(SECRET, ""), options.orientation == "upright"
        count, failed = embed(options.model, options.images, options.store, options.api_key, secret, upright)
    except OSError as error:
        raise CommandError(f"{options.store}: {error}; the embeddings so far are kept") from error
    print(f"images       {count} ({len(failed)} failed)")
    print(f"written      {options.store}; the image_id of an image is its path relative to {options.images}")
    for reason in list(failed)[:5]:
        print(f"failed       {reason}")
    return 1 if len(failed) == count else 0
