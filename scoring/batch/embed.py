"""Encode a collection of images ahead of time, into the store that the endpoint reads."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tqdm import tqdm

from sam_endpoint.model.embeddings import EmbeddingCache, Store
from sam_endpoint.model.engine import Engine
from sam_endpoint.model.errors import BadData, BadInput
from sam_endpoint.model.images import ImageRef
from sam_endpoint.scoring.batch import sources
from sam_endpoint.scoring.runtime import open_model
from sam_endpoint.scoring.tenants import tenant_of

CACHE_BYTES = 2**28


def embed(model: str, images: Path, store_url: str, api_key: str = "") -> tuple[int, Counter[str]]:
    """Encode every image in a folder and its subfolders into a store, with its path there as its `image_id`.

    Args:
        model: URI of an MLflow model, or a checkpoint.
        images: the folder.
        store_url: the endpoint's --embedding-store: a folder or fsspec URL.
        api_key: the API key of the requests that may use the embeddings, if the endpoint has keys.

    Returns:
        The number of images, and the reasons why images failed.

    Raises:
        BadData: there are no images in the folder.
        BadModel: the model cannot be opened.
        OSError: the store cannot be written.
    """
    files = sorted(file for file in images.rglob("*") if file.suffix.lower() in sources.IMAGES)
    if not files:
        raise BadData(f"no images in {images}")
    opened = open_model(model, local_paths=True).engine
    store = Store(store_url)
    engine = Engine(opened.segmenter, opened.images, EmbeddingCache(CACHE_BYTES, store))
    engine = engine.for_tenant(tenant_of(api_key))
    failed: Counter[str] = Counter()
    for file in tqdm(files, unit="image", desc="embedding", disable=None):
        try:
            engine.name(file.relative_to(images).as_posix(), engine.embed(ImageRef.path(file)))
        except BadInput as error:
            failed[f"{file}: {error}"] += 1
    store.flush()
    return len(files), failed
