"""Embeddings in a folder: there after a restart, done without when the folder is no good."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from sam_endpoint.model.embeddings import EmbeddingCache, Store
from sam_endpoint.model.segmenter import Embedding

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


@pytest.mark.parametrize("content", [b"", b"rubbish", b"\xff" * 100])
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
    assert len([one for one in caplog.records if "done without" in one.message]) == 1


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
    assert len([one for one in caplog.records if "done without" in one.message]) == 1
