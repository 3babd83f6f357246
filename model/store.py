"""Embeddings in a folder or object store: shared by replicas, there after a restart, filled ahead of time."""

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

from model.segmenter import Embedding

logger = logging.getLogger(__name__)


class Store:
    """Embeddings and names for them, as files below `url` (a folder, `s3://...`, whatever fsspec knows).

    What is written is written behind the back of who asked, in one thread. A store that cannot be read or written is
    done without, which is logged once. `device`: where embeddings are put that are read.
    """

    def __init__(self, url: str, device: str = "cpu") -> None:
        self.device = device
        self.fs, self.root = fsspec.core.url_to_fs(url)
        self._writer = ThreadPoolExecutor(1, "store")
        self._complained = False

    def load(self, key: str) -> Embedding | None:
        """The embedding kept under a key; None when there is none that can be read."""
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
        """Keeps an embedding under a key, soon."""
        self._writer.submit(self._write, f"{_name(key)}.safetensors", lambda: _packed(embedding))

    def load_name(self, name: str) -> str | None:
        """The key that a name was given to."""
        data = self._read(f"{_name(name)}.name")
        return None if data is None else data.decode("utf-8", "replace")

    def save_name(self, name: str, key: str) -> None:
        """Gives a name to a key, soon."""
        self._writer.submit(self._write, f"{_name(name)}.name", lambda: key.encode())

    def flush(self) -> None:
        """Returns once all that was saved before is written."""
        self._writer.submit(lambda: None).result()

    def _read(self, name: str) -> bytes | None:
        try:
            return self.fs.cat_file(f"{self.root}/{name}")
        except FileNotFoundError:
            return None
        except Exception as error:  # each of fsspec's file systems has errors of its own
            self._complain("read", error)
            return None

    def _write(self, name: str, content: Any) -> None:
        path, part = f"{self.root}/{name}", f"{self.root}/{uuid.uuid4().hex}.part"
        try:
            self.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            self.fs.pipe_file(part, content())
            self.fs.mv(part, path)  # so that nobody reads a half of it
        except Exception as error:
            self._complain("written", error)

    def _complain(self, what: str, error: Exception) -> None:
        if not self._complained:
            logger.warning("the store of embeddings cannot be %s, and is done without: %s", what, type(error).__name__)
        self._complained = True


def _name(key: str) -> str:
    """A file name that says nothing of the key, in one of 256 folders."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    return f"{digest[:2]}/{digest[2:]}"


def _packed(embedding: Embedding) -> bytes:
    tensors = {str(i): feature.cpu().contiguous() for i, feature in enumerate(embedding.features)}
    tensors["size"] = torch.tensor(embedding.size, dtype=torch.int64)
    tensors["model"] = torch.tensor(list(embedding.model.encode()), dtype=torch.uint8)
    return save(tensors)
