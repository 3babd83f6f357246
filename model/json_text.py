"""Parse JSON text fast."""

from __future__ import annotations

import json
from typing import Any

import msgspec

# While JSON is parsed, no other thread runs. `json.loads` takes twice as long as msgspec.
MAX_LENIENT = 2**24  # bytes


def loads(text: str | bytes) -> Any:
    """Parse JSON text.

    msgspec parses the text. `json.loads` parses the few texts that msgspec rejects, although clients send them: those
    with NaN or Infinity, which Python's own JSON writer produces, and those with a byte-order mark. Such a text may
    have at most MAX_LENIENT bytes.

    Args:
        text: JSON text, or its UTF-8 bytes.

    Raises:
        ValueError: the text is not JSON, or not UTF-8 (then a UnicodeDecodeError).
        RecursionError: lists or objects are nested too deeply.

    Example:
        >>> loads('{"points": [[1, 2.5]]}'), loads(b"[NaN]")
        ({'points': [[1, 2.5]]}, [nan])
    """
    try:
        return msgspec.json.decode(text)
    except msgspec.MsgspecError:
        if len(text) > MAX_LENIENT:
            raise
        return json.loads(text if isinstance(text, str) else text.decode("utf-8-sig"))
