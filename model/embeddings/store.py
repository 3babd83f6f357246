"""A persistent store of embeddings in a folder or an object store. Replicas share the store."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Lock

import fsspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from ..segmenter import Embedding
from .quota import PART, Quota

logger = logging.getLogger(__name__)

MAX_QUEUE = 64  # maximum number of queued writes; the store skips further writes, so that memory does not fill up
MAX_UNWRITTEN = 100_000  # files of names that wait, or that could not be written
MAX_QUEUE_BYTES = 2**28  # maximum size of all embeddings in the queue, in bytes
MAX_FILE = 2**28  # bytes; a read of a larger file stops here
UNUSABLE = "cannot read or write the embedding store ({})"
SEAL = 32  # bytes of an HMAC-SHA256


class Store:
    """Stores embeddings as files in a folder.

    Each embedding has a key. An embedding may also have names, which are image ids that clients chose. The store saves
    the key of each name. A background thread writes the files. If reading or writing fails, the store logs the failure
    once, and its methods raise no exception. A broken file counts as missing, and the next write replaces it.

    A tenant is the holder of one API key. The part of a key before its first NUL character is the id of the tenant. A
    key without a NUL character has no tenant. Each tenant has its own folder. A full store deletes the least recently
    used files of the tenant with the most bytes. A tenant can use at most half of the queue of writes.

    Args:
        url: the folder: a local path or any URL that fsspec supports, such as `s3://...`.
        device: the device to which loaded embeddings are moved.
        secret: secret key. If it is not empty, every file ends with a seal. The seal is the HMAC of the file's name and
            content. A file without a valid seal counts as missing.
        max_bytes: maximum size of all files together, as in `Quota`.
    """

    def __init__(self, url: str, device: str = "cpu", secret: bytes = b"", max_bytes: float | None = None) -> None:
        self.device = device
        self.fs, self.root = fsspec.core.url_to_fs(url)
        self._secret = secret
        self._quota = Quota(self.fs, self.root, max_bytes)
        self._writer = ThreadPoolExecutor(1, "store")
        self._lock = Lock()
        self._unwritten: dict[str, bytes] = {}  # the latest content of files of names
        self._waiting: Counter[str] = Counter()  # writes in the queue, by tenant
        self._waiting_bytes: Counter[str] = Counter()
        self._reported: set[str] = set()

    def load(self, key: str) -> Embedding | None:
        """Return the embedding of a key, or None if its file is missing, broken or unreadable."""
        data = self._read(f"{self._name(key)}.safetensors")
        if data is None:
            return None
        try:
            tensors = load(data)
            height, width = tensors.pop("size").tolist()
            model = bytes(tensors.pop("model").tolist()).decode()
            features = tuple(tensors[str(i)] for i in range(len(tensors)))
            return Embedding(features, (int(height), int(width)), model).to(self.device)
        except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError):
            self.report_invalid()
            return None

    def save(self, key: str, embedding: Embedding) -> None:
        """Write the embedding of a key in the background."""
        name = f"{self._name(key)}.safetensors"
        self._submit(_tenant(key), name, lambda: _packed(embedding), embedding.nbytes)

    def load_name(self, name: str) -> str | None:
        """Return the key that `save_name` saved for a name, or None if its file is missing, broken or unreadable.

        The function also returns None if the latest key of this process is not written yet, or cannot be written.
        """
        file = f"{self._name(name)}.name"
        data = None if file in self._unwritten else self._read(file)
        try:
            return None if data is None else data.decode("ascii")
        except UnicodeDecodeError:
            self.report_invalid()
            return None

    def save_name(self, name: str, key: str) -> None:
        """Assign a name to a key in the background."""
        file = f"{self._name(name)}.name"
        with self._lock:
            if len(self._unwritten) < MAX_UNWRITTEN:
                self._unwritten[file] = key.encode()
        self._submit(_tenant(name), file, key.encode)

    def report_invalid(self) -> None:
        """Log once that a file is broken or belongs to another model."""
        self._report("the embedding store has broken files, or files of another model; these files are written again")

    def report_unusable(self, error: Exception) -> None:
        """Log once that the store cannot be read or written."""
        self._report(f"{UNUSABLE.format(type(error).__name__)}; the program continues without the store")

    def flush(self) -> None:
        """Wait until every earlier write has finished."""
        self._writer.submit(lambda: None).result()

    def _read(self, name: str) -> bytes | None:
        try:
            path = f"{self.root}/{name}"
            content: bytes = self.fs.cat_file(path, start=0, end=MAX_FILE)
            if self._quota.is_local:
                with suppress(OSError):  # the store may be read-only
                    os.utime(path)
        except FileNotFoundError:
            return None
        except Exception as error:  # every fsspec file system raises its own exceptions
            self.report_unusable(error)
            return None
        if not self._secret:
            return content
        content, seal = content[:-SEAL], content[-SEAL:]
        if hmac.compare_digest(seal, self._seal(name, content)):
            return content
        self.report_invalid()
        return None

    def _submit(self, tenant: str, name: str, content: Callable[[], bytes], nbytes: int = 0) -> None:
        """Queue a write, unless the queue, or the tenant's share of it, is full."""
        with self._lock:
            share = 2 if tenant else 1  # without API keys, all writes are of one tenant, which may fill the queue
            count, waiting = self._waiting[tenant], self._waiting_bytes[tenant]
            full = self._waiting.total() >= MAX_QUEUE or count >= MAX_QUEUE // share
            if full or (count and waiting + nbytes > MAX_QUEUE_BYTES // share):
                self._report("the embedding store is slower than the encoder; some embeddings are not stored")
                return
            self._waiting[tenant] += 1
            self._waiting_bytes[tenant] += nbytes
        self._writer.submit(self._write, tenant, name, content, nbytes)

    def _write(self, tenant: str, name: str, content: Callable[[], bytes], nbytes: int) -> None:
        path, part = f"{self.root}/{name}", f"{self.root}/{uuid.uuid4().hex}{PART}"
        try:
            data = content()
            self.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._quota.make_room(len(data) + SEAL)
            self.fs.pipe_file(part, data + self._seal(name, data))
            self.fs.mv(part, path)  # readers never see a partially written file
            with self._lock:
                if self._unwritten.get(name) == data:  # else a later key waits
                    del self._unwritten[name]
        except Exception as error:
            self.report_unusable(error)
            with suppress(Exception):
                self.fs.rm_file(part)
        finally:
            with self._lock:
                self._waiting[tenant] -= 1
                self._waiting_bytes[tenant] -= nbytes
                if not self._waiting[tenant]:
                    del self._waiting[tenant], self._waiting_bytes[tenant]

    def _name(self, key: str) -> str:
        """Return the file name of a key, without its ending.

        The name is a hash, so that it does not reveal the key. Each tenant has 256 folders for its files.
        """
        digest = hashlib.sha256(key.encode()).hexdigest()
        folder = f"{digest[:2]}/{digest[2:]}"
        tenant = _tenant(key)
        return f"{hmac.digest(self._secret, tenant.encode(), 'sha256').hex()}/{folder}" if tenant else folder

    def _seal(self, name: str, content: bytes) -> bytes:
        """Return the HMAC of a file's name and content. So the seal is wrong if somebody renames the file."""
        return hmac.digest(self._secret, name.encode() + b"\0" + content, "sha256") if self._secret else b""

    def _report(self, message: str) -> None:
        if message not in self._reported:
            logger.warning(message)
        self._reported.add(message)


def _tenant(key: str) -> str:
    """Return the tenant of a key, or an empty text if the key has no tenant."""
    tenant, separator, _ = key.partition("\0")
    return tenant if separator else ""


def _packed(embedding: Embedding) -> bytes:
    """Serialise an embedding in safetensors format."""
    tensors = {str(i): feature.cpu().contiguous() for i, feature in enumerate(embedding.features)}
    tensors["size"] = torch.tensor(embedding.size, dtype=torch.int64)
    tensors["model"] = torch.tensor(list(embedding.model.encode()), dtype=torch.uint8)
    return save(tensors)
