"""The store of embeddings in a folder: reading after a restart, broken files, and folders that cannot be used."""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from sam_endpoint.model.embeddings import EmbeddingCache, Store
from sam_endpoint.model.embeddings.store import MAX_QUEUE
from sam_endpoint.model.engine import Engine
from sam_endpoint.model.images import ImageReader, ImageRef
from sam_endpoint.model.prompts import Prompt
from sam_endpoint.model.segmenter import Embedding, Segmenter
from tests import pictures

EMBEDDING = Embedding(
    (torch.arange(24.0).view(1, 2, 3, 4), torch.ones(1, 1, 2, 2, dtype=torch.float16)), (480, 640), "m"
)


def never() -> Embedding:
    """Fail, because the embedding should be in the cache."""
    raise AssertionError("made again")


def test_another_cache_on_the_same_folder_finds_an_embedding(tmp_path: Path) -> None:
    first = EmbeddingCache(2**20, Store(str(tmp_path))).for_model("weights")
    first.get("key", lambda: EMBEDDING)
    first.name("cup", "key")
    assert first._store is not None
    first._store.flush()
    second = EmbeddingCache(2**20, Store(str(tmp_path))).for_model("weights")
    for embedding in (second.find("cup"), second.get("key", never)):
        assert embedding is not None and embedding.size == (480, 640) and embedding.model == "m"
        assert all(
            torch.equal(a, b) and a.dtype == b.dtype
            for a, b in zip(embedding.features, EMBEDDING.features, strict=True)
        )
    assert second.key("cup") == "key"
    assert EmbeddingCache(2**20, Store(str(tmp_path))).for_model("other weights").find("cup") is None
    assert second.for_tenant("another tenant").find("cup") is None
    assert not [file for file in tmp_path.rglob("*") if "cup" in file.name or "key" in file.name]


def test_replicas_follow_a_name_that_moves(tmp_path: Path) -> None:
    """The last image of a name counts on every replica, at the latest after some seconds."""
    now = 0.0
    stores = [Store(str(tmp_path)) for _ in range(3)]
    first, second, later = (EmbeddingCache(2**20, store, clock=lambda: now).for_model("weights") for store in stores)
    for cache, store, key, seconds in ((first, 0, "a", 0.0), (second, 1, "b", 1.0), (first, 0, "a", 9.0)):
        now = seconds
        cache.name("cup", key)
        stores[store].flush()
    assert first.key("cup") == "a" and later.key("cup") == "a"
    now += 9
    assert second.key("cup") == "a"


def test_a_name_that_waits_to_be_written_is_not_replaced_by_the_old_one(tmp_path: Path) -> None:
    now, store, released = 0.0, Store(str(tmp_path)), Event()
    cache = EmbeddingCache(2**20, store, clock=lambda: now).for_model("weights")
    cache.name("cup", "old")
    store.flush()
    store._submit("", "first", lambda: (released.wait(60), b"")[1])
    cache.name("cup", "newer")
    cache.name("cup", "new")
    now = 60.0
    assert cache.key("cup") == "new"
    released.set()
    store.flush()
    assert cache.key("cup") == "new"


def test_a_store_can_be_on_a_file_system_of_fsspec() -> None:
    store = Store("memory://embeddings")
    store.save("a", EMBEDDING)
    store.flush()
    embedding = store.load("a")
    assert (
        embedding is not None and torch.equal(embedding.features[0], EMBEDDING.features[0]) and store.load("b") is None
    )


def stored_file(**changes: torch.Tensor) -> bytes:
    """Return the content of a stored file with some tensors changed."""
    tensors = {"0": EMBEDDING.features[0], "1": EMBEDDING.features[1], "size": torch.tensor([480, 640])}
    return save({**tensors, "model": torch.tensor([109], dtype=torch.uint8), **changes})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"rubbish",
        b"\xff" * 100,
        stored_file()[:-5],
        stored_file(size=torch.tensor([480])),
        stored_file(size=torch.ones(2, 2)),
        stored_file(model=torch.ones(3)),
        stored_file(model=torch.full((3,), 255, dtype=torch.uint8)),
        stored_file(other=torch.ones(1)),
    ],
    ids=[
        "empty",
        "text",
        "bytes",
        "cut",
        "one side",
        "matrix as size",
        "floats as name",
        "no text as name",
        "one more",
    ],
)
def test_a_broken_file_is_replaced(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(str(tmp_path))
    store.save("\0\0key", EMBEDDING)
    store.flush()
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        cache = EmbeddingCache(2**20, store)
        assert cache.get("key", lambda: EMBEDDING) is EMBEDDING
        assert EmbeddingCache(2**20, store).get("key", lambda: EMBEDDING).size == (480, 640)
    store.flush()
    assert store.load("\0\0key") is not None  # the store has written the file again
    assert (
        len([record for record in caplog.records if "broken files, or files of another model" in record.message]) == 1
    )


def stored_for(engine: Engine, folder: Path, image: bytes) -> Path:
    """Embed an image with an engine, and return the file in its store."""
    engine.embed(ImageRef.content(image))
    assert engine.cache._store is not None
    engine.cache._store.flush()
    (file,) = folder.rglob("*.safetensors")
    return file


@pytest.mark.parametrize("tampering", ["shape", "missing map", "NaN", "infinite", "integers", "no pixels", "huge size"])
def test_a_valid_file_with_a_wrong_embedding_is_replaced(
    tiny: Segmenter, disc: tuple[bytes, np.ndarray], tmp_path: Path, tampering: str
) -> None:
    """Somebody who can write to the store can neither break an image permanently nor crash the decoder."""

    def engine() -> Engine:
        return Engine(tiny, ImageReader(), EmbeddingCache(2**26, Store(str(tmp_path))))

    file = stored_for(engine(), tmp_path, disc[0])
    tensors = load(file.read_bytes())
    features = tensors["0"].clone()
    if tampering == "shape":
        tensors["0"] = features[..., :-1].contiguous()
    elif tampering == "missing map":
        del tensors["0"]
    elif tampering in ("NaN", "infinite"):
        features[0, 0, 0, 0] = float(tampering[:3])
        tensors["0"] = features
    elif tampering == "integers":
        tensors["0"] = features.to(torch.int32)
    else:
        tensors["size"] = torch.tensor([0, 5] if tampering == "no pixels" else [10**6, 10**6])
    file.write_bytes(save(tensors))
    second_engine = engine()
    image = second_engine.embed(ImageRef.content(disc[0]))
    assert image.size == (160, 240)
    (segmentation,) = second_engine.segment(image, [Prompt(box=np.array([68, 38, 153, 123], np.float32))], False)
    assert pictures.iou(second_engine.masks(segmentation)[0], disc[1]) > 0.85
    assert second_engine.cache._store is not None
    second_engine.cache._store.flush()
    assert load(file.read_bytes())["size"].tolist() == [160, 240]  # the store has written the file again
    assert engine().find(image.key).size == (160, 240)


def test_a_sealed_store_reads_only_files_with_its_seal(tmp_path: Path) -> None:
    for key in ("a", "b"):
        sealed = EmbeddingCache(2**20, Store(str(tmp_path), secret=b"secret")).for_model("weights")
        sealed.get(key, lambda: EMBEDDING)
        sealed.name(f"name of {key}", key)
        assert sealed._store is not None
        sealed._store.flush()

    def keys(secret: bytes) -> list[str]:
        cache = EmbeddingCache(2**20, Store(str(tmp_path), secret=secret)).for_model("weights")
        return [name for name in ("a", "name of a", "b", "name of b") if cache.find(name) is not None]

    assert len(keys(b"secret")) == 4 and keys(b"other secret") == [] and keys(b"") == []
    first, second = tmp_path.rglob("*.safetensors")
    first.write_bytes(second.read_bytes())  # the seal is valid, but for another file
    assert len(keys(b"secret")) == 2


def test_a_slow_store_drops_embeddings_when_its_queue_is_full(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store, started, released = Store(str(tmp_path)), Event(), Event()
    store._submit("", "first", lambda: (started.set(), released.wait(60), b"")[2])  # type: ignore[func-returns-value]
    assert started.wait(60)
    with caplog.at_level(logging.WARNING):
        for i in range(MAX_QUEUE + 10):
            store.save(str(i), EMBEDDING)
    released.set()
    store.flush()
    assert len(list(tmp_path.rglob("*.safetensors"))) == MAX_QUEUE - 1
    assert len([record for record in caplog.records if "slower than the encoder" in record.message]) == 1


def test_a_folder_that_cannot_be_written_is_reported_once_and_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    cache = EmbeddingCache(2**20, Store(str(blocked / "store")))
    with caplog.at_level(logging.WARNING):
        for key in ("a", "b"):
            assert cache.get(key, lambda: EMBEDDING) is EMBEDDING
            cache.name(f"name of {key}", key)
        assert cache._store is not None
        cache._store.flush()
    assert cache.find("name of a") is EMBEDDING
    assert (
        len([record for record in caplog.records if "cannot read or write the embedding store" in record.message]) == 1
    )
