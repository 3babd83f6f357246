"""Where the output of a batch job may lie, and which files there --overwrite may delete."""

from __future__ import annotations

import os
import re
from glob import has_magic
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from sam_endpoint.model.errors import OutputConflict
from sam_endpoint.model.rows import OUTPUT_COLUMNS

# Endings of other file formats. An output path with such an ending is rejected, because it would become a folder.
OTHER_FORMATS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xlsx", ".txt", ".arrow", ".feather", ".pq", ".zip")
# Names of the files that jobs write to a folder: the parts of `Parts` and of Spark, and the files beside them.
OUTPUT_FILE = re.compile(
    r"(job\.json|whole|_SUCCESS|_(started|committed)_\d+|part-\d{6,}\.parquet"
    r"|part-\d{5,}-(tid-\d+-)?[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}[-.\w]*\.parquet)"
    r"|\.(part-[-.\w]+\.(piece|sha256|crc)|_SUCCESS\.crc|state-\d{6,}\.safetensors|\.?[-.\w]+\.unfinished)"
)
SPARK_FOLDER = "_temporary"  # Spark's unfinished parts


def parse_location(where: str) -> tuple[Any, str, bool]:
    """Find the file system of an output.

    Args:
        where: path or fsspec URL of a folder or of a `.parquet` file.

    Returns:
        The fsspec file system, the path in it, and whether the output is a single file.

    Raises:
        OutputConflict: the path is empty, has the ending of another format, or is a pattern on another file system than
            this machine's; or the URL's protocol is unknown.

    Example:
        >>> _, path, is_single_file = parse_location("memory://out/predictions.parquet")
        >>> path, is_single_file
        ('/out/predictions.parquet', True)
    """
    try:
        fs, path = fsspec.core.url_to_fs(where)
    except (ValueError, ImportError, OSError) as error:
        raise OutputConflict(f"'{where}' cannot be written: {error}") from None
    if not where.strip():
        raise OutputConflict("the output path is empty; expected a .parquet file or a folder")
    if path.lower().endswith(OTHER_FORMATS):
        stem = where.rpartition(".")[0]
        raise OutputConflict(f"'{where}': the output format is Parquet; choose '{stem}.parquet' or a folder")
    if has_magic(path) and not isinstance(fs, LocalFileSystem):  # fsspec would move and delete all files that match
        raise OutputConflict(f"'{where}': expected an output without the characters *, ? and [ of a pattern")
    return fs, path.rstrip("/"), path.lower().endswith(".parquet")


def check_input_outside(source: str, output: str) -> None:
    """Check that the input is not inside the output, where --overwrite would delete it.

    Args:
        source: path or URL of the input.
        output: path or URL of the output.

    Raises:
        OutputConflict: the input is inside the output.
    """
    try:
        paths = [fsspec.core.url_to_fs(where)[1].rstrip("/") for where in (source, output)]
    except (ValueError, ImportError, OSError):
        return  # the error is reported when the input or output is opened
    inner, outer = (os.path.realpath(path) if os.path.exists(path) else path for path in paths)
    if f"{inner}/".startswith(f"{outer}/"):
        raise OutputConflict(f"the input is inside the output '{output}'; choose another --output")


def entries(fs: Any, folder: str) -> list[dict[str, Any]]:
    """List a folder. The empty key `folder/`, with which object stores mark a folder, is left out. Raises OSError."""
    return [entry for entry in fs.ls(folder, detail=True) if str(entry["name"]).rstrip("/") != folder]


def not_a_job(folder: str, reason: str = "") -> OutputConflict:
    """Return the error for an output that holds other files than those of a job."""
    return OutputConflict(
        f"'{folder}' exists and is not the output of a job{reason}; choose another --output "
        "(--overwrite replaces only the output of jobs)"
    )


def check_replaceable(fs: Any, folder: str) -> None:
    """Check that --overwrite may replace what a folder holds.

    Args:
        fs: the fsspec file system.
        folder: path of the folder. It may be missing.

    Raises:
        OutputConflict: the folder holds a file or folder that no job has written.
        OSError: the folder cannot be read.
    """
    job_paths, foreign = _split(fs, folder)
    if not foreign and f"{folder}/job.json" not in job_paths:  # then Spark has written the parts, or another program
        parts = [path for path in job_paths if path.endswith(".parquet")]
        foreign = [path for path in parts[:1] if not _has_predictions(fs, path)]
    if foreign:
        raise not_a_job(folder, f", because it holds '{_name(min(foreign))}'")


def remove_output(fs: Any, folder: str) -> None:
    """Delete the files that a job has written to a folder. The folder, other files and other folders stay.

    Args:
        fs: the fsspec file system.
        folder: path of the folder. It may be missing.

    Raises:
        OSError: a file cannot be deleted.
    """
    job_paths, _ = _split(fs, folder)
    if files := [path for path in job_paths if _name(path) != SPARK_FOLDER]:
        fs.rm(files)
    if len(files) < len(job_paths):
        fs.rm(f"{folder}/{SPARK_FOLDER}", recursive=True)


def _split(fs: Any, folder: str) -> tuple[list[str], list[str]]:
    """Return the paths in a folder that belong to a job's output, and the other paths. Raises OSError."""
    job_paths: list[str] = []
    foreign: list[str] = []
    for entry in entries(fs, folder) if fs.isdir(folder) else ():
        path = str(entry["name"]).rstrip("/")
        if entry["type"] == "directory":
            is_of_job = _name(path) == SPARK_FOLDER and all(map(_is_output, fs.find(path)))
        else:
            is_of_job = _is_output(path)
        (job_paths if is_of_job else foreign).append(path)
    return job_paths, foreign


def _is_output(file: str) -> bool:
    return OUTPUT_FILE.fullmatch(_name(file)) is not None


def _has_predictions(fs: Any, file: str) -> bool:
    """Return whether a Parquet file has the columns of a job's output. Raises OSError."""
    try:
        with fs.open(file, "rb") as stream:
            return set(OUTPUT_COLUMNS) <= set(pq.read_schema(stream).names)
    except pa.ArrowException:
        return False


def _name(path: str) -> str:
    return path.rpartition("/")[2]
