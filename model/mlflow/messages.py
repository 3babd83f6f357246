"""Format errors for logs and responses without request data."""

from __future__ import annotations

import traceback

from ..errors import EndpointError

WITHHELD = "text withheld, because it may hold data of a request"


def trace(error: BaseException) -> str:
    """Format the traceback of an exception and of its causes for the log.

    Messages of this project's own errors are included. Messages of other exceptions are withheld, because they may
    repeat request data; the type and the lines of code are shown instead.

    Args:
        error: the exception.
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
