"""Encode masks as PNG files, faster than a general encoder."""

from __future__ import annotations

import struct
import zlib
from functools import cache

import numpy as np

BLANK = 2**18  # bytes of the block of zeros that is deflated once and reused


def encode(inside: np.ndarray, top: int, left: int, size: tuple[int, int]) -> bytes:
    """Encode a mask as an 8-bit greyscale PNG with the values 0 and 255.

    The encoder follows the PNG specification, sections 9 and 11. It uses deflate's run-length strategy and no row
    filters, which do not help with two values. Rows above and below the mask are not compressed again, so a small mask
    of a large image is encoded several times as fast.

    Args:
        inside: (rows, columns) bool, the mask inside a box; outside the box, the mask is empty.
        top: first row of the box in the image.
        left: first column of the box in the image.
        size: (height, width) of the image in pixels.

    Returns:
        The PNG file.
    """
    height, width = size
    rows, columns = inside.shape
    lines = np.zeros((rows, 1 + width), np.uint8)  # the first byte of a line is its filter type, 0
    np.multiply(inside, np.uint8(255), out=lines[:, 1 + left : 1 + left + columns])
    data = _deflated(top * (1 + width), lines, (height - top - rows) * (1 + width))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def _deflated(above: int, lines: np.ndarray, below: int) -> bytes:
    """Return a zlib stream (RFC 1950) of `above` zeros, the bytes of `lines`, and `below` zeros.

    A block of BLANK zeros is deflated once and reused. Deflate (RFC 1951) allows this for blocks that hold no reference
    to earlier data and end at a byte boundary. The checksum of zeros is computed by formula.
    """
    deflate = _compressor()
    data = _blank() * (above // BLANK) + deflate.compress(bytes(above % BLANK))
    data += deflate.compress(lines.data) + deflate.compress(bytes(below % BLANK))
    if below < BLANK:
        data += deflate.flush()
    else:
        data += deflate.flush(zlib.Z_FULL_FLUSH) + _blank() * (below // BLANK) + b"\x03\x00"  # an empty last block
    checksum = zlib.adler32(lines.data, above % 65521 << 16 | 1)
    low, high = checksum & 0xFFFF, checksum >> 16
    high = (high + below * low) % 65521
    return b"\x78\x01" + data + struct.pack(">HH", high, low)


@cache
def _blank() -> bytes:
    """Return the deflated block of BLANK zeros."""
    deflate = _compressor()
    return deflate.compress(bytes(BLANK)) + deflate.flush(zlib.Z_FULL_FLUSH)


def _compressor() -> zlib._Compress:
    """Return a compressor that uses deflate's run-length strategy and writes neither zlib header nor checksum."""
    return zlib.compressobj(1, zlib.DEFLATED, -15, 9, zlib.Z_RLE)
