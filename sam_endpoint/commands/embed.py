"""Encode a collection of images ahead of time, into an embedding store that the endpoint reads.

Example:
  sam-endpoint embed --model build/model --images photos --store s3://bucket/embeddings
  sam-endpoint serve --model build/model --embedding-store s3://bucket/embeddings

An image's image_id is its path below the folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sam_endpoint.scoring.process import configure_process


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="build/model", help="URI of an MLflow model (default: %(default)s)")
    parser.add_argument("--images", type=Path, required=True, help="folder of images, with its subfolders")
    parser.add_argument("--store", required=True, help="folder or fsspec URL: the endpoint's --embedding-store")
    parser.add_argument(
        "--api-key", default="", help="API key of the requests that may use the embeddings, if the endpoint has keys"
    )


def run(options: argparse.Namespace) -> int:
    configure_process()

    from sam_endpoint.scoring.batch.embed import embed

    count, failed = embed(options.model, options.images, options.store, options.api_key)
    print(f"images       {count} ({len(failed)} failed)")
    print(f"written      {options.store}; an image's image_id is its path below {options.images}")
    for reason in list(failed)[:5]:
        print(f"failed       {reason}")
    return 1 if len(failed) == count else 0
