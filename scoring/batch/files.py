"""List files in folders, and make file names printable."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from sam_endpoint.model.errors import BadData


def files_in(folder: Path, endings: Collection[str], without: Path | None = None) -> list[Path]:
    """List the files with certain endings in a folder and its subfolders.

    Symbolic links are followed, but each folder is visited only once. Hidden files and folders are skipped, because
    file managers and notebooks create them.

    Args:
        folder: the folder. If it does not exist, the list is empty.
        endings: endings of the files in lower case, such as `.jpg`.
        without: a folder to skip.

    Returns:
        The files, sorted by path.

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


def printable_name(name: str) -> str:
    r"""Return a file name as printable text. Bytes that are not valid UTF-8 are escaped.

    Example:
        >>> printable_name("photo\udce9.jpg")
        'photo\\udce9.jpg'
    """
    return name.encode("utf-8", "backslashreplace").decode()


def check_name(name: str) -> None:
    """Check that a file name, or the path of a file, can be written to a table or an index. Raises BadData."""
    if (printable := printable_name(name)) != name:
        raise BadData(f"'{printable}': the file name is not valid UTF-8; rename the file")


def _raise(error: OSError) -> None:
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        try:
            raise error
        finally:
            del error  # it refers to this frame, and to those of `os.walk`
