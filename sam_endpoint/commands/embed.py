"""Encode a collection of images ahead of time, into an embedding store that the endpoint reads.

Example:
  sam-endpoint embed --model build/model --images photos --store s3://bucket/embeddings
  sam-endpoint serve --model build/model --embedding-store s3://bucket/embeddings

An image's image_id is its path below the folder. If the endpoint seals its store with SAM_EMBEDDING_STORE_KEY, set that
variable here too.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from sam_endpoint.commands import CommandError
from sam_endpoint.scoring.process import configure_process

SECRET = "SAM_EMBEDDING_STORE_KEY"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="build/model", help="URI of an MLflow model (default: %(default)s)")
    parser.add_argument("--images", type=_folder, required=True, help="folder of images, with its subfolders")
    parser.add_argument("--store", required=True, help="folder or fsspec URL: the endpoint's --embedding-store")
    parser.add_argument(
        "--api-key", default="", help="API key of the requests that may use the embeddings, if the endpoint has keys"
    )
    parser.add_argument(
        "--orientation",
        choices=("upright", "stored"),
        default="upright",
        help="whether the images' EXIF orientation is applied (default: %(default)s, as labelling tools show images)",
    )


def _folder(text: str) -> Path:
    if not text.strip():  # which Path would take for the current folder
        raise argparse.ArgumentTypeError("expected the name of a folder")
    return Path(text)


def run(options: argparse.Namespace) -> int:
    configure_process()

    from sam_endpoint.scoring.batch.embed import embed

    try:
        secret, upright = os.environ.get(SECRET, ""), options.orientation == "upright"
        count, failed = embed(options.model, options.images, options.store, options.api_key, secret, upright)
    except OSError as error:
        raise CommandError(f"{options.store}: {error}; the embeddings so far are kept") from error
    print(f"images       {count} ({len(failed)} failed)")
    print(f"written      {options.store}; an image's image_id is its path below {options.images}")
    for reason in list(failed)[:5]:
        print(f"failed       {reason}")
    return 1 if len(failed) == count else 0
