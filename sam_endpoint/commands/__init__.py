"""The commands of `sam-endpoint`, one module each.

The docstring of a command's module is its --help text. `add_arguments(parser)` declares the options and `run(options)`
does the work and returns the exit code. The modules import only the standard library at the top, so that --help is
quick; `run` imports what it needs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

NAMES = ("package", "score", "serve", "annotate", "export", "embed", "show", "evaluate", "train", "finetune")
DISTRIBUTION = "segment-anything-endpoint"
# The modules that each extra installs.
EXTRAS = {
    "server": ("fastapi", "uvicorn", "pydantic_settings", "python_multipart", "prometheus_client", "fastapi_offline"),
    "spark": ("pyspark",),
}
RESUMABLE = "the output so far is kept, and the same command goes on from there"


class CommandError(Exception):
    """A failure that the user sees as one line, `error: ...`, without a traceback."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        self.exit_code = exit_code
        super().__init__(message)


class UsageError(CommandError):
    """Options that do not go together. The user also sees the command's usage."""


def require_extra(extra: str) -> None:
    """Check that the packages of an extra are installed.

    Raises:
        CommandError: A package is missing. The message says which extra to install.
    """
    for module in EXTRAS[extra]:
        try:
            missing = importlib.util.find_spec(module) is None
        except ImportError:
            missing = True
        if missing:
            raise CommandError(f"this command needs the extra '{extra}': pip install '{DISTRIBUTION}[{extra}]'")


def json_object(text: str) -> dict[str, Any]:
    """Parse an option's value as a JSON object, as a `type` of argparse."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'expected a JSON object such as \'{{"mask_encoding": "rle"}}\', got {text!r}')
    return value


def positive(text: str) -> int:
    """Parse an option's value as a whole number of at least 1, as a `type` of argparse."""
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def check_file(option: str, file: Path, endings: tuple[str, ...] = ()) -> None:
    """Check that a file can be written, before the work that makes its content; its folder is made.

    Raises:
        CommandError: the file's name has another ending, a folder is there, or the folder cannot be written.
    """
    problem = ""
    if endings and file.suffix.lower() not in endings:
        problem = f"expected a name that ends in {' or '.join(endings)}"
    elif file.is_dir():
        problem = "a folder is there; expected the name of a file"
    else:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = f"its folder cannot be made: {error.strerror}"
        else:
            if not os.access(file if file.exists() else file.parent, os.W_OK):
                problem = "it cannot be written"
    if problem:
        raise CommandError(f"{option} '{file}': {problem}")
