"""List files in folders, and print their names."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path


def files_in(folder: Path, endings: Collection[str], without: Path | None = None) -> list[Path]:
    """Return the files in a folder and its subfolders, in the order of their paths.

    Links are followed, each folder is visited once. Hidden files and folders, which file managers and notebooks leave
    behind, are skipped.

    Args:
        folder: the folder; no files are returned if it does not exist.
        endings: endings of the files, in lower case, such as `.jpg`.
        without: a folder that is skipped.

    Raises:
        OSError: a subfolder cannot be read.
    """
    visited = {os.path.realpath(without)} if without is not None else set()
    files = []
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=_raise):
        visited.add(os.path.realpath(parent))
        subfolders = {name: os.path.realpath(os.path.join(parent, name)) for name in folders if name[0] != "."}
        folders[:] = [name for name, real in subfolders.items() if real not in visited]
        visited.update(subfolders.values())
        files += [Path(parent, name) for name in names if name[0] != "." and Path(name).suffix.lower() in endings]
    return sorted(files)


def shown(name: str) -> str:
    """Return a name that can be printed, even if its bytes in the file system are not text."""
    return name.encode("utf-8", "backslashreplace").decode()


def _raise(error: OSError) -> None:
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise error
