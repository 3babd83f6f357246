"""JSON text that Python's own writer and other clients produce is read like `json.loads` reads it."""

from __future__ import annotations

import json

import pytest

from sam_endpoint.model import json_text

TEXTS = [
    b'{"a": [1, -0, 2.5, 1E5, true, null, "\\u00e9\\ud83d\\ude00", "\xc3\xa9"], "a ": {}}',
    b'{"a": 1, "a": 2}',
    b"123456789012345678901234567890",
    b"[NaN, Infinity, -Infinity]",
    b'{"input_points": NaN}',
    b"[1e400]",
    b"\xef\xbb\xbf{}",
]


@pytest.mark.parametrize("text", TEXTS)
def test_equals_the_standard_parser(text: bytes) -> None:
    expected = json.loads(text)
    assert repr(json_text.loads(text)) == repr(expected)
    assert repr(json_text.loads(text.removeprefix(b"\xef\xbb\xbf").decode())) == repr(expected)


@pytest.mark.parametrize("text", [b"", b"[1,]", b"01", b"[1] x", b'"a\tb"', b'["\xff"]', b"'a'", b"[" * 10**5])
def test_rejects_what_is_not_json(text: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        json_text.loads(text)
