"""Compute the embeddings of a folder of images in advance, and save them in the endpoint's embedding store."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

from sam_endpoint.model.embeddings import EmbeddingCache, Store
from sam_endpoint.model.embeddings.store import UNUSABLE
from sam_endpoint.model.engine import Engine
from sam_endpoint.model.errors import BadData, BadInput
from sam_endpoint.model.images import ImageRef
from sam_endpoint.scoring.batch import sources
from sam_endpoint.scoring.batch.files import check_name
from sam_endpoint.scoring.batch.progress import tracked
from sam_endpoint.scoring.runtime import open_model
from sam_endpoint.scoring.tenants import tenant_of

CACHE_BYTES = 2**28
IMAGES_AT_ONCE = 4  # images between waits for the store, which drops writes when its queue is full


class _StrictStore(Store):
    """A store that reports its failures to the command. In the endpoint, a failed store is only logged."""

    problem: str | None = None

    def report_invalid(self) -> None:
        """Do nothing, because the command overwrites damaged files."""

    def report_unusable(self, error: Exception) -> None:
        """Keep the failure for `check`. The command does not continue without its store."""
        self.problem = UNUSABLE.format(type(error).__name__)

    def _report(self, message: str) -> None:
        self.problem = message

    def check(self) -> None:
        """Wait until all embeddings are written. Raises OSError if the store cannot be read or written."""
        self.flush()
        if self.problem is not None:
            raise OSError(self.problem)


def embed(
    model: str, images: Path, store_url: str, api_key: str = "", secret: str = "", upright: bool = True
) -> tuple[int, Counter[str]]:
    """Compute the embedding of every image in a folder and its subfolders, and save it in a store.

    The `image_id` of an image is its path relative to the folder.

    Args:
        model: MLflow model (URI or folder) or checkpoint.
        images: the folder.
        store_url: folder or fsspec URL of the store, the same as the endpoint's --embedding-store.
        api_key: API key of the requests that may use the embeddings; empty if the endpoint has no keys.
        secret: the endpoint's --embedding-store-key; empty if it has none.
        upright: whether to rotate images according to their EXIF orientation.

    Returns:
        The number of images, and the failures as a Counter of messages.

    Raises:
        BadData: the folder has no images, a file name is not valid UTF-8, or the store's URL has an unknown protocol.
        BadModel: the model cannot be opened.
        OSError: the store cannot be read or written.
    """
    files = sources.image_files(images)
    for file in files.values():
        check_name(str(file))
    try:
        # Without a limit, since the command must not delete what it wrote before: it fails when the disk is full.
        store = _StrictStore(store_url, secret=secret.encode(), max_bytes=math.inf)
    except (ValueError, ImportError) as error:
        raise BadData(f"the embedding store '{store_url}' cannot be opened: {error}") from None
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
