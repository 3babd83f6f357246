"""Read text files, with or without a byte-order mark."""

from __future__ import annotations

import codecs
from pathlib import Path

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(file: Path) -> str:
    """Read a text file.

    Args:
        file: the file, in the encoding of its byte-order mark, or in UTF-8 if it has no mark.

    Returns:
        The text without the byte-order mark.

    Raises:
        OSError: the file cannot be read.
        ValueError: the content is not valid in that encoding.
    """
    data = file.read_bytes()
    encoding = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), "utf-8-sig")
    return data.decode(encoding)


def read_lines(file: Path) -> list[str]:
    """Read the lines of a text file. Only line feeds and carriage returns end a line. Raises as `read_text` does."""
    return read_text(file).replace("\r\n", "\n").replace("\r", "\n").split("\n")
