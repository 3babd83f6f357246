"""Encode a collection of images ahead of time, into the store that the endpoint reads."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

from sam_endpoint.model.embeddings import EmbeddingCache, Store
from sam_endpoint.model.engine import Engine
from sam_endpoint.model.errors import BadData, BadInput
from sam_endpoint.model.images import ImageRef
from sam_endpoint.scoring.batch import sources
from sam_endpoint.scoring.batch.progress import tracked
from sam_endpoint.scoring.runtime import open_model
from sam_endpoint.scoring.tenants import tenant_of

CACHE_BYTES = 2**28
IMAGES_AT_ONCE = 4  # whose writes may wait; the store leaves out what its queue does not hold


class _StrictStore(Store):
    """A store whose failures end the command, which has no other purpose; the endpoint does without its store."""

    problem: str | None = None

    def report_invalid(self) -> None:
        """Do nothing: files that are broken are written anew."""

    def _report(self, message: str) -> None:
        self.problem = message

    def check(self) -> None:
        """Wait until everything is written. Raises OSError if the store could not be read or written."""
        self.flush()
        if self.problem is not None:
            raise OSError(self.problem)


def embed(
    model: str, images: Path, store_url: str, api_key: str = "", secret: str = "", upright: bool = True
) -> tuple[int, Counter[str]]:
    """Encode every image in a folder and its subfolders into a store, with its path there as its `image_id`.

    Args:
        model: URI of an MLflow model, or a checkpoint.
        images: the folder.
        store_url: the endpoint's --embedding-store: a folder or fsspec URL.
        api_key: the API key of the requests that may use the embeddings, if the endpoint has keys.
        secret: the endpoint's --embedding-store-key, if it has one.
        upright: whether the images' EXIF orientation is applied.

    Returns:
        The number of images, and the reasons why images failed.

    Raises:
        BadData: there are no images in the folder, or the store's URL is of an unknown kind.
        BadModel: the model cannot be opened.
        OSError: the store cannot be read or written.
    """
    files = sources.image_files(images)
    try:
        # Without a limit, since the command must not delete what it wrote before: it fails when the disk is full.
        store = _StrictStore(store_url, secret=secret.encode(), max_bytes=math.inf)
    except (ValueError, ImportError) as error:
        raise BadData(f"'{store_url}' cannot be written: {error}") from None
    opened = open_model(model, local_paths=True).engine
    engine = Engine(opened.segmenter, opened.images, EmbeddingCache(CACHE_BYTES, store))
    engine = engine.for_tenant(tenant_of(api_key))
    failed: Counter[str] = Counter()
    for number, (name, file) in enumerate(tracked(files.items(), "embedding", "image"), 1):
        try:
            engine.name(name, engine.embed(ImageRef.path(file, upright)))
        except BadInput as error:
            failed[f"{file}: {error}"] += 1
        if number % IMAGES_AT_ONCE == 0:
            store.check()
    store.check()
    return len(files), failed
