"""Parse and write JSON without holding up other threads for longer than about a tenth of a second."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from sam_endpoint.model import json_text
from sam_endpoint.model.errors import BadRequest, kind

MAX_NODES = 100_000  # lists and objects: the prompts of ten rows
MAX_VALUES = 1_000_000  # numbers, strings and keys: 15 masks of 256 x 256, parsed in 0.05 s
SLICE = 2**20  # bytes
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse(body: bytes, expected: str) -> Any:
    """Parse a JSON body.

    Args:
        body: UTF-8 text.
        expected: description of the valid body, for the error message.

    Returns:
        The parsed value.

    Raises:
        BadRequest: the body has more than MAX_NODES lists and objects or more than MAX_VALUES values, is not UTF-8 or
            not JSON, is nested too deeply, or has an escape for an unpaired surrogate.

    Example:
        >>> parse(b'{"image": "a.png"}', "a JSON object")
        {'image': 'a.png'}
    """
    nodes = _count(body, b"[") + _count(body, b"{")
    if nodes > MAX_NODES:
        raise BadRequest(f"expected a JSON body of at most {MAX_NODES:,} lists and objects, got {nodes:,}")
    values = _count(body, b",") + nodes
    if values > MAX_VALUES:
        raise BadRequest(f"expected a JSON body of at most {MAX_VALUES:,} values, got {values:,}")
    try:
        value = json_text.loads(body)
        if _SURROGATE.search(body):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        raise BadRequest("expected a JSON body in UTF-8, got another encoding or an unpaired surrogate") from None
    except (ValueError, RecursionError):
        raise BadRequest(f"expected {expected}, got {kind(body)} that is not JSON") from None
    return value


def _count(body: bytes, character: bytes) -> int:
    """Count a character a mebibyte at a time, so that other threads run in between."""
    return sum(body.count(character, start, start + SLICE) for start in range(0, len(body), SLICE))


def dump(value: Any) -> bytes:
    """Return a value as UTF-8 JSON text, in the same form as Starlette's `JSONResponse`.

    Objects are written one at a time, because a single `json.dumps` call for a large response blocks all other threads
    until it ends.

    Example:
        >>> dump({"predictions": [{"iou_score": 0.5}]})
        b'{"predictions":[{"iou_score":0.5}]}'
    """
    return b"".join(_pieces(value))


def _pieces(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict) and any(isinstance(item, (list, dict)) for item in value.values()):
        opening = b"{"
        for name, item in value.items():
            yield opening + _dump(name) + b":"
            yield from _pieces(item)
            opening = b","
        yield b"}"
    elif isinstance(value, list) and value and isinstance(value[0], (dict, list)):
        opening = b"["
        for item in value:
            yield opening
            yield from _pieces(item) if isinstance(item, dict) else (_dump(item),)
            opening = b","
        yield b"]"
    else:
        yield _dump(value)


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
