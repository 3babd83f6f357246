"""The limit on the bytes of an embedding store, shared fairly between tenants."""

from __future__ import annotations

import math
import re
import shutil
import time
from collections import deque
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

from fsspec.implementations.local import LocalFileSystem

PART = ".part"  # ending of a file that is being written
_PART = re.compile(r"[0-9a-f]{32}\.part")
# The files that the store writes; others in its folder are not its own.
_FILE = re.compile(r"(?:(?P<tenant>[0-9a-f]{64})/)?[0-9a-f]{2}/[0-9a-f]{62}\.(?:safetensors|name)")
PART_SECONDS = 3600.0  # after which such a file is one that a killed process left
BLOCK = 4096  # bytes that the smallest file takes
MAX_RESERVE = 2**30  # bytes that stay free on a disk
SLACK = 0.1  # share of the limit that is freed at once, so that files are listed seldom


class StoredFile(NamedTuple):
    """A file of the store.

    Attributes:
        path: where it is.
        nbytes: bytes that it takes.
        modified: seconds since the epoch when it was written or, on a disk, read last.
    """

    path: str
    nbytes: int
    modified: float


class Quota:
    """Deletes files of a store that is full: the least recently used of the tenant that has most bytes.

    Several processes may share a store; each lists the files before it deletes any. Not safe to share between threads.

    Args:
        fs: the fsspec file system.
        root: the store's folder.
        max_bytes: limit on the bytes of all files, which may be infinite. None on a disk: all but a reserve of a
            twentieth, at most MAX_RESERVE; None elsewhere: no limit.
    """

    def __init__(self, fs: Any, root: str, max_bytes: float | None = None) -> None:
        self.fs, self.root = fs, root
        self.is_local = isinstance(fs, LocalFileSystem)
        self.max_bytes = math.inf if max_bytes is None and not self.is_local else max_bytes
        self._parts_removed = False
        # Bytes of the files that were listed last and of those written since. Before the first list, nothing fits.
        self._nbytes = math.inf
        self._written = 0  # bytes written since the files were listed

    def make_room(self, nbytes: int) -> None:
        """Delete files if there is no room for a further one of `nbytes` bytes. Raises as the file system does."""
        nbytes = max(nbytes, BLOCK)
        if not self._parts_removed:
            self._remove_parts()
            self._parts_removed = True
        if self.max_bytes is None:
            usage = shutil.disk_usage(self.root)
            reserve = min(usage.total // 20, MAX_RESERVE)
            if usage.free - nbytes < reserve:
                by_tenant = self._files()
                slack = SLACK * sum(file.nbytes for files in by_tenant.values() for file in files)
                self._delete(by_tenant, reserve - usage.free + nbytes + slack)
        elif math.isfinite(self.max_bytes):
            self._nbytes += nbytes
            self._written += nbytes
            # Other processes write to the store too, so that the files are listed from time to time.
            if self._nbytes > self.max_bytes or self._written > SLACK * self.max_bytes:
                by_tenant = self._files()
                self._nbytes = nbytes + sum(file.nbytes for files in by_tenant.values() for file in files)
                self._written = 0
                if self._nbytes > self.max_bytes:
                    self._nbytes -= self._delete(by_tenant, self._nbytes - (1 - SLACK) * self.max_bytes)

    def _delete(self, by_tenant: dict[str, deque[StoredFile]], nbytes: float) -> int:
        """Delete files until `nbytes` bytes are free or none is left; return the bytes of the deleted files."""
        total = {tenant: sum(file.nbytes for file in files) for tenant, files in by_tenant.items()}
        deleted = 0
        while deleted < nbytes and total:
            largest = max(total, key=total.__getitem__)
            file = by_tenant[largest].popleft()
            with suppress(FileNotFoundError):
                self.fs.rm_file(file.path)
            deleted += file.nbytes
            total[largest] -= file.nbytes
            if not by_tenant[largest]:
                del total[largest]
        return deleted

    def _files(self) -> dict[str, deque[StoredFile]]:
        """Return the files of each tenant's folder, the least recently used first."""
        self.fs.invalidate_cache(self.root)
        by_tenant: dict[str, list[StoredFile]] = {}
        for path, info in self.fs.find(self.root, detail=True).items():
            if match := _FILE.fullmatch(path.removeprefix(self.root).lstrip("/")):
                file = StoredFile(path, max(BLOCK, int(info["size"] or 0)), _modified(info))
                by_tenant.setdefault(match["tenant"] or "", []).append(file)
        return {name: deque(sorted(files, key=lambda file: file.modified)) for name, files in by_tenant.items()}

    def _remove_parts(self) -> None:
        """Delete what killed processes left unfinished."""
        with suppress(FileNotFoundError):
            for info in self.fs.ls(self.root, detail=True):
                name = str(info["name"]).rpartition("/")[2]
                if _PART.fullmatch(name) and time.time() - _modified(info) > PART_SECONDS:
                    with suppress(FileNotFoundError):
                        self.fs.rm_file(info["name"])


def _modified(info: dict[str, Any]) -> float:
    """Return when a file was modified. Each fsspec file system has a name of its own for it."""
    names = ("mtime", "LastModified", "last_modified", "updated", "created")
    value = next((info[name] for name in names if info.get(name) is not None), 0.0)
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return value.timestamp() if isinstance(value, datetime) else float(value)
