"""Persistent store of embeddings in a folder or object store, shared by replicas and retained across restarts."""

from __future__ import annotations

import hashlib
import logging
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fsspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from ..segmenter import Embedding

logger = logging.getLogger(__name__)


class Store:
    """Embeddings and their alternative names, as files below a URL.

    Writes happen in one background thread. If the store cannot be read or written, the failure is logged once and the
    caller continues without it.

    Args:
        url: a folder or any URL that fsspec supports, such as `s3://...`.
        device: the device to which loaded embeddings are moved.
    """

    def __init__(self, url: str, device: str = "cpu") -> None:
        self.device = device
        self.fs, self.root = fsspec.core.url_to_fs(url)
        self._writer = ThreadPoolExecutor(1, "store")
        self._complained = False

    def load(self, key: str) -> Embedding | None:
        """Return the embedding stored under a key, or None if there is none or it cannot be read."""
        data = self._read(f"{_name(key)}.safetensors")
        if data is None:
            return None
        try:
            tensors = load(data)
            height, width = tensors.pop("size").tolist()
            model = bytes(tensors.pop("model").tolist()).decode()
            return Embedding(tuple(tensors[str(i)] for i in range(len(tensors))), (height, width), model).to(
                self.device
            )
        except (SafetensorError, KeyError, ValueError) as error:
            self._complain("read", error)
            return None

    def save(self, key: str, embedding: Embedding) -> None:
        """Store an embedding under a key, in the background."""
        self._writer.submit(self._write, f"{_name(key)}.safetensors", lambda: _packed(embedding))

    def load_name(self, name: str) -> str | None:
        """Return the key to which a name refers, or None."""
        data = self._read(f"{_name(name)}.name")
        return None if data is None else data.decode("utf-8", "replace")

    def save_name(self, name: str, key: str) -> None:
        """Let a name refer to a key, in the background."""
        self._writer.submit(self._write, f"{_name(name)}.name", lambda: key.encode())

    def flush(self) -> None:
        """Wait until every earlier write has finished."""
        self._writer.submit(lambda: None).result()

    def _read(self, name: str) -> bytes | None:
        try:
            content: bytes = self.fs.cat_file(f"{self.root}/{name}")
            return content
        except FileNotFoundError:
            return None
        except Exception as error:  # every fsspec file system raises its own exceptions
            self._complain("read", error)
            return None

    def _write(self, name: str, content: Any) -> None:
        path, part = f"{self.root}/{name}", f"{self.root}/{uuid.uuid4().hex}.part"
        try:
            self.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            self.fs.pipe_file(part, content())
            self.fs.mv(part, path)  # readers never see a partially written file
        except Exception as error:
            self._complain("written", error)

    def _complain(self, action: str, error: Exception) -> None:
        if not self._complained:
            logger.warning(
                "the store of embeddings cannot be %s, and is done without: %s", action, type(error).__name__
            )
        self._complained = True


def _name(key: str) -> str:
    """Return a hashed file name, which does not reveal the key, in one of 256 folders."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    return f"{digest[:2]}/{digest[2:]}"


def _packed(embedding: Embedding) -> bytes:
    """Serialise an embedding in safetensors format."""
    tensors = {str(i): feature.cpu().contiguous() for i, feature in enumerate(embedding.features)}
    tensors["size"] = torch.tensor(embedding.size, dtype=torch.int64)
    tensors["model"] = torch.tensor(list(embedding.model.encode()), dtype=torch.uint8)
    return save(tensors)
