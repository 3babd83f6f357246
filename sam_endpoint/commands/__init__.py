"""The commands of `sam-endpoint`, one module each.

The docstring of a command's module is its --help text. `add_arguments(parser)` declares the options and `run(options)`
does the work and returns the exit code. The modules import only the standard library at the top, so that --help is
quick; `run` imports what it needs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from typing import Any

NAMES = ("package", "score", "serve", "annotate", "export", "embed", "show", "evaluate", "train")
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
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'expected a JSON object such as \'{{"mask_encoding": "rle"}}\', got {text!r}')
    return value
