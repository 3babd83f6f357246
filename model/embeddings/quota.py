"""Limit the size of an embedding store. A full store deletes old files, first those of the largest tenant."""

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
# The paths of the files that the store writes. All other files in its folder are neither counted nor deleted.
_FILE = re.compile(r"(?:(?P<tenant>[0-9a-f]{64})/)?[0-9a-f]{2}/[0-9a-f]{62}\.(?:safetensors|name)")
PART_SECONDS = 3600.0  # a `.part` file that is older was left by a killed process
BLOCK = 4096  # minimum bytes that each file is counted with
MAX_RESERVE = 2**30  # maximum number of bytes that a store leaves free on its disk
# Listing the files is slow. A full store therefore frees more than the next file needs: this share of its limit or, if
# only the disk limits it, of its size. A store with a limit lists its files each time it has written this share.
SLACK = 0.1


class StoredFile(NamedTuple):
    """A file of the store.

    Attributes:
        path: its path in the file system.
        nbytes: its size in bytes, at least BLOCK.
        modified: time of its last use, in seconds since the epoch. On a disk, each read is a use; elsewhere, only the
            write.
    """

    path: str
    nbytes: int
    modified: float


class Quota:
    """Deletes files of a full store.

    The next file to delete is the least recently used file of the tenant that has the most bytes. Several processes may
    share a store. Each process lists the files before it deletes any. Not safe to share between threads.

    Args:
        fs: the fsspec file system.
        root: the store's folder.
        max_bytes: maximum size of all files together; `math.inf` for no limit. If it is None, a store on a disk leaves
            a twentieth of the disk free, but at most MAX_RESERVE; a store elsewhere has no limit.
    """

    def __init__(self, fs: Any, root: str, max_bytes: float | None = None) -> None:
        self.fs, self.root = fs, root
        self.is_local = isinstance(fs, LocalFileSystem)
        self.max_bytes = math.inf if max_bytes is None and not self.is_local else max_bytes
        self._parts_removed = False
        # The size of the store: the files that were listed last and the files written since. It starts infinite, so the
        # first call of `make_room` lists the files.
        self._nbytes = math.inf
        self._written = 0  # bytes written since the files were listed

    def make_room(self, nbytes: int) -> None:
        """Delete files if a new file of `nbytes` bytes does not fit. Raises the exceptions of the file system."""
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
            # Other processes write to the store too. The files are therefore listed from time to time.
            if self._nbytes > self.max_bytes or self._written > SLACK * self.max_bytes:
                by_tenant = self._files()
                self._nbytes = nbytes + sum(file.nbytes for files in by_tenant.values() for file in files)
                self._written = 0
                if self._nbytes > self.max_bytes:
                    self._nbytes -= self._delete(by_tenant, self._nbytes - (1 - SLACK) * self.max_bytes)

    def _delete(self, by_tenant: dict[str, deque[StoredFile]], nbytes: float) -> int:
        """Delete files until their sizes add up to `nbytes`, or all files. Return the sum of their sizes."""
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
        """Delete the unfinished files that killed processes left."""
        with suppress(FileNotFoundError):
            for info in self.fs.ls(self.root, detail=True):
                name = str(info["name"]).rpartition("/")[2]
                if _PART.fullmatch(name) and time.time() - _modified(info) > PART_SECONDS:
                    with suppress(FileNotFoundError):
                        self.fs.rm_file(info["name"])


def _modified(info: dict[str, Any]) -> float:
    """Return the time at which a file was modified. Each fsspec file system gives this time another name."""
    names = ("mtime", "LastModified", "last_modified", "updated", "created")
    value = next((info[name] for name in names if info.get(name) is not None), 0.0)
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return value.timestamp() if isinstance(value, datetime) else float(value)
