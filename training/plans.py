"""Plans: dataclasses whose fields are the options of a training. Imports no large package."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field, fields
from typing import Any

from sam_endpoint.model.errors import BadParameter


def option(default: Any, text: str) -> Any:
    """Return a field of a plan with a default value, and with a help text in its metadata."""
    return field(default=default, metadata={"help": text})


def check_finite(options: Any) -> None:
    """Raise BadParameter if a field of a dataclass of options is infinite or not a number."""
    for item in fields(options):
        value = getattr(options, item.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise BadParameter(f"--{item.name.replace('_', '-')}: expected a finite number, got {value:g}")


def add_plan(parser: Any, plan: type[Any], names: Mapping[str, str] | None = None) -> None:
    """Add the options of a plan to a parser, or to a group of its arguments.

    Args:
        parser: The parser or the group.
        plan: The dataclass. Fields without a help text have no option.
        names: The options of fields whose option has another name than the field.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Plan:
        ...     save_every: int = option(100, "steps between two saved states")
        >>> parser = argparse.ArgumentParser()
        >>> add_plan(parser, Plan)
        >>> parser.parse_args(["--save-every", "5"]).save_every
        5
    """
    for item in fields(plan):
        if not (text := item.metadata.get("help")):
            continue
        name, kind = (names or {}).get(item.name) or f"--{item.name.replace('_', '-')}", type(item.default)
        if kind is bool:
            parser.add_argument(name, action="store_true", help=text)
        else:
            text = f"{text} (default: %(default)s)"
            parser.add_argument(name, type=kind, default=item.default, help=text, metavar=kind.__name__.upper())
