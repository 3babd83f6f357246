"""The commands of `sam-endpoint`, one module per command.

The docstring of a module is the --help text of its command. `add_arguments(parser)` declares the options.
`run(options)` does the work and returns the exit code. `run` also imports heavy libraries, so that --help is quick.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

NAMES = ("package", "score", "serve", "annotate", "export", "embed", "show", "track", "evaluate", "train", "finetune")
DISTRIBUTION = "segment-anything-endpoint"
# The modules that each extra installs.
EXTRAS = {
    "server": ("fastapi", "uvicorn", "pydantic_settings", "python_multipart", "prometheus_client", "fastapi_offline"),
    "grpc": ("grpc", "grpc_tools"),
    "spark": ("pyspark",),
    "video": ("av",),
}
RESUMABLE = "the output so far is kept; run the same command again to continue"


class CommandError(Exception):
    """A failure that is shown to the user as one line, `error: ...`, without a traceback.

    Args:
        message: the line.
        exit_code: exit code of the command.
    """

    def __init__(self, message: str, exit_code: int = 2) -> None:
        self.exit_code = exit_code
        super().__init__(message)


class UsageError(CommandError):
    """An invalid combination of options. The user also sees the usage of the command."""


def require_extra(extra: str) -> None:
    """Check that the packages of an extra are installed.

    Args:
        extra: a key of EXTRAS.

    Raises:
        CommandError: a package is missing. The message names the extra to install.
    """
    for module in EXTRAS[extra]:
        try:
            missing = importlib.util.find_spec(module) is None
        except ImportError:
            missing = True
        if missing:
            raise CommandError(f"this command needs the extra '{extra}': pip install '{DISTRIBUTION}[{extra}]'")


def json_object(text: str) -> dict[str, Any]:
    """Parse the value of an option as a JSON object. For argparse's `type`.

    Example:
        >>> json_object('{"mask_encoding": "rle"}')
        {'mask_encoding': 'rle'}
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'expected a JSON object such as \'{{"mask_encoding": "rle"}}\', got {text!r}')
    return value


def positive(text: str) -> int:
    """Parse the value of an option as a whole number of at least 1. For argparse's `type`."""
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def check_file(option: str, file: Path, endings: tuple[str, ...] = ()) -> None:
    """Check that a file can be written, before the work that creates its content. Create its folder if necessary.

    Args:
        option: name of the option, for the error message.
        file: path of the file.
        endings: accepted file name endings; empty for any.

    Raises:
        CommandError: the name has another ending, the path is a folder, or the file cannot be written.
    """
    problem = ""
    if endings and file.suffix.lower() not in endings:
        problem = f"expected a file name that ends in {' or '.join(endings)}"
    elif file.is_dir():
        problem = "expected a file, got an existing folder"
    else:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = f"cannot create its folder: {error.strerror}"
        else:
            if not os.access(file if file.exists() else file.parent, os.W_OK):
                problem = "no permission to write the file"
    if problem:
        raise CommandError(f"{option} '{file}': {problem}")
