"""List the files of a batch job's input, without hidden files, other formats and the output of earlier jobs."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import glob_translate

from sam_endpoint.model.errors import BadData

TABLES = (".csv", ".parquet", ".jsonl", ".ndjson")
# Usual endings of the formats that `sam_endpoint.model.images.decode` reads.
IMAGES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".avif", ".avifs", ".gif", ".bmp", ".dib"),
    *(".tif", ".tiff", ".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
)
# Files and folders that Spark writes beside data.
SPARK_FILES = ("_temporary", "_SUCCESS", "_delta_log", "_spark_metadata")
JOB_FILE = "job.json"
PATTERN_CHARACTERS = re.compile(r"[*?[]")  # characters of a glob pattern


@dataclass
class Listing:
    """The files of an input by kind, sorted by path.

    Attributes:
        tables: paths of tables.
        images: paths of images.
        other_files: names of other files.
        jobs: names of folders with the output of earlier jobs. Their files are not in the listing.
    """

    tables: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    other_files: list[str] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)

    def notes(self, images_are_read: bool) -> list[str]:
        """Return sentences about the files that the job does not read.

        Args:
            images_are_read: whether the job reads the images rather than the tables.
        """
        notes = []
        if self.other_files:
            notes.append(_not_read(len(self.other_files), "other file", self.other_files[0]))
        if self.images and not images_are_read:
            notes.append(
                _not_read(len(self.images), "image", _name(self.images[0])) + "; only rows of tables are scored"
            )
        if self.jobs:
            notes.append(f"'{self.jobs[0]}' holds the output of an earlier job; it is not read")
        return notes


def list_input_files(fs: Any, where: str, path: str, exclude: Sequence[str] = ()) -> Listing:
    """List the files of an input: a file, a folder with its subfolders and links, or a glob pattern.

    A path that exists is used literally, even if it contains characters of a pattern. Hidden files and folders are left
    out, and so are the output folders of earlier jobs, which contain a `job.json`.

    Args:
        fs: the fsspec file system.
        where: the input as the user wrote it, for error messages.
        path: path of the input in the file system.
        exclude: files and folders to leave out.

    Raises:
        BadData: the path does not exist, or is neither a file nor a folder.
        OSError: a folder cannot be read.
    """
    if fs.exists(path) and not fs.isdir(path):
        if isinstance(fs, LocalFileSystem) and not os.path.isfile(path):
            raise BadData(f"'{where}' is neither a file nor a folder")
        return _group_by_kind([path], [])
    root, pattern = (path, "") if fs.isdir(path) else _split_pattern(fs, path)
    if not fs.isdir(path) and not PATTERN_CHARACTERS.search(pattern):
        raise BadData(f"'{where}': there is no such file")
    root = root.rstrip("/") if root.strip("/") else root
    start = len(root.rstrip("/")) + 1 if root else 0
    depth = None if not pattern or "**" in pattern else pattern.count("/") + 1
    hidden = any(part.startswith(".") for part in pattern.split("/"))
    if isinstance(fs, LocalFileSystem):
        files = list(_walk(root, depth, hidden, {os.path.realpath(root)}, os.path.realpath(root)))
    else:
        # Object stores mark a folder with an empty key that ends with a slash.
        paths = [path for path in fs.find(root, maxdepth=depth) if not path.endswith("/")]
        files = [file for file in paths if hidden or not is_hidden(file[start:])]
    jobs = [file.rpartition("/")[0] for file in files if file[start:].endswith(f"/{JOB_FILE}")]
    jobs = [folder for folder in jobs if _is_job_file(fs, f"{folder}/{JOB_FILE}")]
    if pattern:
        matches = re.compile(glob_translate(pattern)).match
        files = [file for file in files if matches(file[start:])]
    excluded_folders = tuple(f"{folder}/" for folder in [*jobs, *exclude])
    files = [file for file in files if file not in exclude and not file.startswith(excluded_folders)]
    earlier_jobs = [folder[start:] for folder in jobs if folder not in exclude]
    return _group_by_kind(sorted(files), sorted(earlier_jobs), start)


def image_files(
    folder: Path, exclude: Path | None = None, log: Callable[[str], object] = lambda note: print(note, file=sys.stderr)
) -> dict[str, Path]:
    """List the images in a folder, its subfolders and linked folders.

    Args:
        folder: the folder.
        exclude: a file or folder to leave out, such as the job's own output.
        log: function that receives sentences about files that are not read. By default it prints them to stderr.

    Returns:
        Paths of the images, by their path relative to the folder.

    Raises:
        BadData: the folder does not exist, cannot be read, or has no images.
    """
    expected = f"'{folder}': expected a folder of images ({', '.join(IMAGES)})"
    if not folder.is_dir():
        raise BadData(expected)
    root = os.path.abspath(folder)
    try:
        files = list_input_files(
            LocalFileSystem(), str(folder), root, [] if exclude is None else [os.path.abspath(exclude)]
        )
    except OSError as error:
        raise BadData(f"'{folder}' cannot be read: {error}") from None
    for note in files.notes(images_are_read=True):
        log(note)
    if not files.images:
        raise BadData(expected)
    names = [Path(file).relative_to(root).as_posix() for file in files.images]
    return {name: folder / name for name in names}


def is_hidden(path: str) -> bool:
    """Return whether a part of a relative path is hidden or is an auxiliary file or folder of Spark."""
    return any(part.startswith(".") or part in SPARK_FILES for part in path.split("/"))


def suffix(file: str) -> str:
    """Return the ending of a file's name in lower case, with its dot. Empty if the name has no dot."""
    name = _name(file).lower()
    return "." + name.rpartition(".")[2] if "." in name else ""


def _group_by_kind(files: list[str], jobs: list[str], start: int = 0) -> Listing:
    files_by_kind = Listing(jobs=jobs)
    for file in files:
        ending = suffix(file)
        if ending in TABLES:
            files_by_kind.tables.append(file)
        elif ending in IMAGES:
            files_by_kind.images.append(file)
        else:
            files_by_kind.other_files.append(file[start:])
    return files_by_kind


def _split_pattern(fs: Any, path: str) -> tuple[str, str]:
    """Split a pattern into the longest leading folder that exists by its literal name, and the remaining pattern."""
    parts = path.split("/")
    root: list[str] = []
    while len(parts) > 1 and (not PATTERN_CHARACTERS.search(parts[0]) or fs.isdir("/".join([*root, parts[0]]))):
        root.append(parts.pop(0))
    folder = "/".join(root) or ("/" if path.startswith("/") else "")
    return (folder, "/".join(parts)) if fs.isdir(folder) else (folder, "")


def _walk(folder: str, depth: int | None, hidden: bool, visited: set[str], top: str) -> Iterator[str]:
    """Yield the files below a local folder. Raises OSError.

    Links are followed, but each folder is visited only once. A link into the same tree is not followed, because its
    target is visited anyway.
    """
    with os.scandir(folder or ".") as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if is_hidden(entry.name) and not hidden:
                continue
            path = f"{folder.rstrip('/')}/{entry.name}" if folder else entry.name
            if not os.path.isdir(path):
                if os.path.isfile(path) or entry.is_symlink():  # a broken link becomes a row with an error
                    yield path
            elif depth is None or depth > 1:
                real = os.path.realpath(path)
                inside = os.path.relpath(real, top)
                if real in visited or (entry.is_symlink() and not inside.startswith("..") and not is_hidden(inside)):
                    continue
                visited.add(real)
                yield from _walk(path, None if depth is None else depth - 1, hidden, visited, top)


def _is_job_file(fs: Any, file: str) -> bool:
    """Return whether a batch job or annotation job of this project wrote a job.json."""
    try:
        job = json.loads(fs.cat_file(file))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(job, dict) and "params" in job and ("weights" in job or "model" in job)


def _not_read(count: int, noun: str, example: str) -> str:
    if count == 1:
        return f"1 {noun} was not read: '{example}'"
    return f"{count} {noun}s were not read, such as '{example}'"


def _name(file: str) -> str:
    return file.rpartition("/")[2]
