"""Limit the size of an embedding store.

A full store deletes files of the tenant that has the most bytes. A tenant is the owner of one API key.
"""

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
# The paths of the files that the store writes. The quota neither counts nor deletes other files in the store's folder.
_FILE = re.compile(r"(?:(?P<tenant>[0-9a-f]{64})/)?[0-9a-f]{2}/[0-9a-f]{62}\.(?:safetensors|name)")
PART_SECONDS = 3600.0  # an older `.part` file belongs to a killed process
BLOCK = 4096  # bytes; a smaller file counts as a file of this size
MAX_RESERVE = 2**30  # maximum number of bytes that a store leaves free on its disk
# Listing the files is slow, so a store rarely lists them. A full store lists its files, and deletes more bytes than the
# next file needs. With `max_bytes`, it deletes this share of `max_bytes` in addition. If only the disk limits the
# store, it deletes this share of the store's size in addition. A store with `max_bytes` also lists its files after it
# has written this share of `max_bytes`.
SLACK = 0.1


class StoredFile(NamedTuple):
    """A file of the store.

    Attributes:
        path: its path in the file system.
        nbytes: its size in bytes, at least BLOCK.
        modified: time of the last use, in seconds since the epoch. On a local disk, reading and writing are uses. On
            other file systems, only writing is a use.
    """

    path: str
    nbytes: int
    modified: float


class Quota:
    """Deletes files of a full store.

    The next file to delete is the least recently used file of the tenant that has the most bytes. Several processes can
    share a store, because each process lists the files before it deletes files. Threads must not share a quota.

    Args:
        fs: the fsspec file system.
        root: the store's folder.
        max_bytes: maximum size of all files together; `math.inf` for no limit. None: a store on a local disk leaves a
            twentieth of the disk free, but at most MAX_RESERVE. A store on another file system has no limit.
    """

    def __init__(self, fs: Any, root: str, max_bytes: float | None = None) -> None:
        self.fs, self.root = fs, root
        self.is_local = isinstance(fs, LocalFileSystem)
        self.max_bytes = math.inf if max_bytes is None and not self.is_local else max_bytes
        self._parts_removed = False
        # The size of the store in bytes: the size at the last listing, plus the bytes written since. The first value is
        # infinite, so the first call of `make_room` lists the files.
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
            # Other processes write to the store too, so this process lists the files from time to time.
            if self._nbytes > self.max_bytes or self._written > SLACK * self.max_bytes:
                by_tenant = self._files()
                self._nbytes = nbytes + sum(file.nbytes for files in by_tenant.values() for file in files)
                self._written = 0
                if self._nbytes > self.max_bytes:
                    self._nbytes -= self._delete(by_tenant, self._nbytes - (1 - SLACK) * self.max_bytes)

    def _delete(self, by_tenant: dict[str, deque[StoredFile]], nbytes: float) -> int:
        """Delete files until their total size reaches `nbytes`, or until no file is left. Return their total size."""
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
        """Return the files of each tenant, sorted from the least to the most recently used."""
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
    """Return the time at which a file was modified. The name of this value depends on the fsspec file system."""
    names = ("mtime", "LastModified", "last_modified", "updated", "created")
    value = next((info[name] for name in names if info.get(name) is not None), 0.0)
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return value.timestamp() if isinstance(value, datetime) else float(value)
