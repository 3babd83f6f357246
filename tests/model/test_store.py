"""Embeddings in a folder: there after a restart, done without when the folder is no good."""

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

MADE = Embedding((torch.arange(24.0).view(1, 2, 3, 4), torch.ones(1, 1, 2, 2, dtype=torch.float16)), (480, 640), "m")


def never() -> Embedding:
    raise AssertionError("made again")


def test_what_one_process_made_another_finds(tmp_path: Path) -> None:
    first = EmbeddingCache(2**20, Store(str(tmp_path))).for_model("weights")
    first.get("key", lambda: MADE)
    first.name("cup", "key")
    assert first._store is not None
    first._store.flush()
    second = EmbeddingCache(2**20, Store(str(tmp_path))).for_model("weights")
    for found in (second.find("cup"), second.get("key", never)):
        assert found is not None and found.size == (480, 640) and found.model == "m"
        assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(found.features, MADE.features, strict=True))
    assert second.key("cup") == "key"
    assert EmbeddingCache(2**20, Store(str(tmp_path))).for_model("other weights").find("cup") is None
    assert second.for_tenant("another tenant").find("cup") is None
    assert not [file for file in tmp_path.rglob("*") if "cup" in file.name or "key" in file.name]


def test_a_store_in_memory_as_fsspec_has_them() -> None:
    store = Store("memory://embeddings")
    store.save("a", MADE)
    store.flush()
    found = store.load("a")
    assert found is not None and torch.equal(found.features[0], MADE.features[0]) and store.load("b") is None


def packed(**changes: torch.Tensor) -> bytes:
    """Return a stored file with other tensors than the embedding's."""
    tensors = {"0": MADE.features[0], "1": MADE.features[1], "size": torch.tensor([480, 640])}
    return save({**tensors, "model": torch.tensor([109], dtype=torch.uint8), **changes})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"rubbish",
        b"\xff" * 100,
        packed()[:-5],
        packed(size=torch.tensor([480])),
        packed(size=torch.ones(2, 2)),
        packed(model=torch.ones(3)),
        packed(model=torch.full((3,), 255, dtype=torch.uint8)),
        packed(other=torch.ones(1)),
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
def test_a_broken_file_is_made_again(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(str(tmp_path))
    store.save("\0\0key", MADE)
    store.flush()
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        kept = EmbeddingCache(2**20, store)
        assert kept.get("key", lambda: MADE) is MADE
        assert EmbeddingCache(2**20, store).get("key", lambda: MADE).size == (480, 640)
    store.flush()
    assert store.load("\0\0key") is not None  # written anew
    assert len([one for one in caplog.records if "broken files, or files of another model" in one.message]) == 1


def stored_for(engine: Engine, folder: Path, image: bytes) -> Path:
    """Return the file that an engine's store has of an image."""
    engine.embed(ImageRef.content(image))
    assert engine.cache._store is not None
    engine.cache._store.flush()
    (file,) = folder.rglob("*.safetensors")
    return file


@pytest.mark.parametrize("tampering", ["shape", "missing map", "NaN", "infinite", "integers", "no pixels", "huge size"])
def test_a_valid_file_of_something_else_is_made_again(
    tiny: Segmenter, disc: tuple[bytes, np.ndarray], tmp_path: Path, tampering: str
) -> None:
    """Whoever can write to the store cannot break an image for ever, nor crash the decoder."""

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
    again = engine()
    image = again.embed(ImageRef.content(disc[0]))
    assert image.size == (160, 240)
    (segmentation,) = again.segment(image, [Prompt(box=np.array([68, 38, 153, 123], np.float32))], False)
    assert pictures.iou(again.masks(segmentation)[0], disc[1]) > 0.85
    assert again.cache._store is not None
    again.cache._store.flush()
    assert load(file.read_bytes())["size"].tolist() == [160, 240]  # written anew
    assert engine().find(image.key).size == (160, 240)


def test_a_sealed_store_reads_its_own_files_only(tmp_path: Path) -> None:
    for key in ("a", "b"):
        sealed = EmbeddingCache(2**20, Store(str(tmp_path), secret=b"secret")).for_model("weights")
        sealed.get(key, lambda: MADE)
        sealed.name(f"name of {key}", key)
        assert sealed._store is not None
        sealed._store.flush()

    def keys(secret: bytes) -> list[str]:
        cache = EmbeddingCache(2**20, Store(str(tmp_path), secret=secret)).for_model("weights")
        return [name for name in ("a", "name of a", "b", "name of b") if cache.find(name) is not None]

    assert len(keys(b"secret")) == 4 and keys(b"other secret") == [] and keys(b"") == []
    first, second = tmp_path.rglob("*.safetensors")
    first.write_bytes(second.read_bytes())  # a valid seal, of another file
    assert len(keys(b"secret")) == 2


def test_a_slow_store_does_not_fill_the_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store, begun, going_on = Store(str(tmp_path)), Event(), Event()
    store._submit("", "first", lambda: (begun.set(), going_on.wait(60), b"")[2])  # type: ignore[func-returns-value]
    assert begun.wait(60)
    with caplog.at_level(logging.WARNING):
        for i in range(MAX_QUEUE + 10):
            store.save(str(i), MADE)
    going_on.set()
    store.flush()
    assert len(list(tmp_path.rglob("*.safetensors"))) == MAX_QUEUE - 1
    assert len([one for one in caplog.records if "slower than the encoder" in one.message]) == 1


def test_a_folder_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    kept = EmbeddingCache(2**20, Store(str(blocked / "store")))
    with caplog.at_level(logging.WARNING):
        for key in ("a", "b"):
            assert kept.get(key, lambda: MADE) is MADE
            kept.name(f"name of {key}", key)
        assert kept._store is not None
        kept._store.flush()
    assert kept.find("name of a") is MADE
    assert len([one for one in caplog.records if "cannot read or write the embedding store" in one.message]) == 1
