"""Encodes a collection of images ahead of time, into the store that an endpoint reads.

python -m scoring.batch embed --model build/model --images photos --store s3://bucket/embeddings
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from mlflow.exceptions import MlflowException
from tqdm import tqdm

from model.embeddings import Embeddings, tenant
from model.errors import BadInput
from model.images import ImageLimits
from model.scorer import Scorer
from model.store import Store
from scoring import models
from scoring.batch import sources
from scoring.tenants import tenant_of


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m scoring.batch embed", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="build/model", help="URI of an MLflow model (default: %(default)s)")
    parser.add_argument("--images", type=Path, required=True, help="folder of images, with the folders below it")
    parser.add_argument("--store", required=True, help="folder or fsspec URL, the endpoint's --embedding-store")
    parser.add_argument(
        "--api-key", default="", help="the key whose requests are to find them, where keys are asked for"
    )
    chosen = parser.parse_args(arguments)
    files = sorted(file for file in chosen.images.rglob("*") if file.suffix.lower() in sources.IMAGES)
    if not files:
        print(f"error: no images in {chosen.images}", file=sys.stderr)
        return 2
    try:
        plain = models.load(chosen.model).unwrap_python_model().scorer.segmenter
    except (MlflowException, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    store = Store(chosen.store)
    embeddings = Embeddings(2**28, store).scoped(plain.family.fingerprint())
    scorer = Scorer(plain, embeddings, ImageLimits(local_paths=True))
    tenant.set(tenant_of(chosen.api_key))
    failed: Counter[str] = Counter()
    for file in tqdm(files, unit="image", desc="embedding", disable=None):
        try:
            kept = scorer.keep(str(file))
            embeddings.name(file.relative_to(chosen.images).as_posix(), kept.key)
        except BadInput as error:
            failed[f"{file}: {error}"] += 1
    store.flush()
    print(f"images       {len(files)} ({len(failed)} failed)")
    print(f"written      {chosen.store}; an image's image_id is its path below {chosen.images}")
    for reason in list(failed)[:5]:
        print(f"failed       {reason}")
    return 1 if len(failed) == len(files) else 0
