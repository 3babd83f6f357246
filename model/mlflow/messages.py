"""Texts about errors that leave the process: they hold no data of a request, whoever wrote the error."""

from __future__ import annotations

import traceback

from ..errors import EndpointError

WITHHELD = "text withheld, because it may hold data of a request"


def trace(error: BaseException) -> str:
    """Return the traceback of an exception and of those that led to it, for the log.

    Only errors of this project are shown with their messages. Those of other libraries may repeat the values they
    failed on, so of these only the type and the places in the code are shown.
    """
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.insert(0, cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    lines: list[str] = []
    for member in chain:
        lines.append("Traceback (most recent call last):")
        lines += [part.rstrip() for part in traceback.format_tb(member.__traceback__)]
        text = str(member) if isinstance(member, EndpointError) else f"({WITHHELD})"
        lines.append(f"{type(member).__module__}.{type(member).__qualname__}: {text}")
    for member in getattr(error, "exceptions", ()):  # of an exception group
        lines.append(trace(member))
    return "\n".join(lines)
