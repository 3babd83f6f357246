"""Where the output of a batch job may lie."""

from __future__ import annotations

import os
from typing import Any

import fsspec

from sam_endpoint.model.errors import OutputConflict

# Endings of other file formats. An output path with such an ending is rejected, because it would become a folder.
OTHER_FORMATS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xlsx", ".txt", ".arrow", ".feather", ".pq", ".zip")


def parse_location(where: str) -> tuple[Any, str, bool]:
    """Find the file system of an output.

    Args:
        where: path or fsspec URL of a folder or of a `.parquet` file.

    Returns:
        The fsspec file system, the path in it, and whether the output is a single file.

    Raises:
        OutputConflict: the path is empty or has the ending of another format, or the URL's protocol is unknown.

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


def holds_only_parts(fs: Any, folder: str) -> bool:
    """Return whether a folder holds only files of a job's output, so that --overwrite may delete it."""
    names = [str(file).rpartition("/")[2] for file in fs.ls(folder, detail=False)]
    return all(name.startswith(("part-", ".", "_")) or name in ("job.json", "whole") for name in names)
