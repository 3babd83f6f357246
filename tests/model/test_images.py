"""Where images may come from, what may be in them, and what is said of the wrong ones."""

from __future__ import annotations

import base64
import contextlib
import io
import resource
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from sam_endpoint.model import images
from sam_endpoint.model.errors import BadInput
from sam_endpoint.model.images import ImageLimits, ImageReader
from sam_endpoint.model.images.decoding import FORMATS
from tests import pictures

LIMITS = ImageLimits(fetch_seconds=5, hosts=("127.0.0.1",))
PIXELS = pictures.clutter(30, 44)
PNG = pictures.to_bytes(Image.fromarray(PIXELS))


def read(source: object, limits: ImageLimits) -> bytes:
    """Read the bytes of an image that came in a cell of the `image` column."""
    reader = ImageReader(limits)
    return reader.read(reader.reference(source))


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A real web server on loopback with one picture."""
    (tmp_path / "picture.png").write_bytes(PNG)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize(
    "source",
    [
        PNG,
        bytearray(PNG),
        base64.b64encode(PNG).decode(),
        base64.encodebytes(PNG).decode(),
        "data:image/png;base64," + base64.b64encode(PNG).decode(),
        "  " + base64.b64encode(PNG).decode() + "\n",
    ],
    ids=["bytes", "bytearray", "base64", "base64 with line breaks", "data URL", "spaces around"],
)
def test_the_same_picture_in_every_form(source: object) -> None:
    assert np.array_equal(images.decode(read(source, LIMITS), LIMITS), PIXELS)


def test_urls(web: str) -> None:
    assert read(f"{web}/picture.png", LIMITS) == PNG
    with pytest.raises(BadInput, match="HTTP status 404"):
        read(f"{web}/nothing.png", LIMITS)
    with pytest.raises(BadInput, match="at most 10 bytes"):
        read(f"{web}/picture.png", replace(LIMITS, max_bytes=10))
    with pytest.raises(BadInput, match="no answer"):
        read("http://127.0.0.1:1/picture.png", LIMITS)


def test_urls_switched_off(web: str) -> None:
    with pytest.raises(BadInput, match="a URL, and these are switched off here"):
        read(f"{web}/picture.png", replace(LIMITS, urls=False))


def test_hosts_of_the_operators_own_tables_may_be_private(web: str) -> None:
    with pytest.raises(BadInput, match="private"):
        read(f"{web}/picture.png", ImageLimits())
    assert read(f"{web}/picture.png", ImageLimits(local_paths=True)) == PNG


def test_paths_only_where_they_are_switched_on(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(PNG)
    for name in (str(path), f"file://{path}"):
        with pytest.raises(BadInput, match="column 'image'"):
            read(name, LIMITS)
        assert read(name, replace(LIMITS, local_paths=True)) == PNG
    with pytest.raises(BadInput, match="not base64 and not a file"):
        read(str(tmp_path / "none.png"), replace(LIMITS, local_paths=True))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (7, "the number 7"),
        ("", "an empty image"),
        (b"", "an empty image"),
        ("hello, world", "text of 12 characters that is not base64"),
        ("grüße", "not base64"),
        ("ftp://host/picture.png", "scheme 'ftp'"),
        ("file:///etc/passwd", "scheme 'file'"),
        ("data:image/png,abc", "a data: URL that is not base64"),
        ("http://[bad", "no answer"),
        ("http://169.254.169.254/latest/meta-data", "not on the list"),
    ],
    ids=str,
)
def test_what_is_refused_unread(source: object, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        read(source, LIMITS)
    assert said in str(caught.value) and caught.value.column == "image"


@pytest.mark.parametrize("data", [b"no image at all", PNG[:60], PNG[:-40], PNG[:200] + b"x" * 100], ids=len)
def test_what_is_no_image(data: bytes) -> None:
    with pytest.raises(BadInput, match="an image that Pillow can read"):
        images.decode(data, LIMITS)


def test_the_pixel_limit() -> None:
    with pytest.raises(BadInput, match=r"at most 1000 pixels, got 44 x 30 = 1320 pixels"):
        images.decode(PNG, replace(LIMITS, max_pixels=1000))
    bomb = pictures.to_bytes(Image.new("1", (20_000, 20_000)))
    with pytest.raises(BadInput, match="at most 100000000 pixels"):
        images.decode(bomb, LIMITS)


def test_the_side_limit() -> None:
    with pytest.raises(BadInput, match="at most 40 pixels a side, got 44 x 30 pixels"):
        images.decode(PNG, replace(LIMITS, max_side=40))
    for size in ((1, 1), (1, 20_000), (20_000, 1)):
        assert images.decode(pictures.to_bytes(Image.new("L", size)), LIMITS).shape == (*size[::-1], 3)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_that_is_read(name: str) -> None:
    image = Image.fromarray(PIXELS)
    best: dict[str, dict[str, object]] = {
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 100, "subsampling": 0},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    }
    data = pictures.to_bytes(image.quantize(256) if name == "GIF" else image, name, **best.get(name, {}))
    found = images.decode(data, LIMITS)
    assert found.shape == PIXELS.shape and np.abs(found.astype(int) - PIXELS).mean() < 12


@pytest.mark.parametrize("name", ["EPS", "PDF", "ICO", "TGA", "PCX", "SGI", "ICNS", "DDS"])
def test_formats_that_nobody_needs_are_not_read(name: str) -> None:
    with pytest.raises(BadInput, match="bytes of no known image format"):
        images.decode(pictures.to_bytes(Image.fromarray(PIXELS), name), LIMITS)


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_picture(name: str) -> None:
    first, second = Image.new("RGB", (20, 10), (250, 0, 0)), Image.new("RGB", (20, 10), (0, 0, 250))
    data = pictures.to_bytes(first, name, save_all=True, append_images=[second])
    assert (images.decode(data, LIMITS)[5, 5] > [200, -1, -1]).all() and images.decode(data, LIMITS)[5, 5, 2] < 50


def test_a_polyglot_is_the_image_it_begins_as() -> None:
    assert np.array_equal(images.decode(PNG + b"PK\x03\x04<script>alert(1)</script>%PDF-1.4", LIMITS), PIXELS)


def test_exif_orientation_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(PIXELS)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", exif=exif)
    assert images.decode(buffer.getvalue(), LIMITS).shape == (30, 44, 3)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_deep_greys_keep_their_order(mode: str) -> None:
    ramp = np.linspace(0, 60000, 50).reshape(1, 50)
    deep = Image.fromarray(ramp.astype(np.int32 if mode == "I" else np.float32), mode)
    decoded = images.decode(pictures.to_bytes(deep, "TIFF"), LIMITS)[0, :, 0]
    assert (np.diff(decoded.astype(int)) >= 0).all() and decoded[0] == 0 and 225 < decoded[-1] < 240


BOMBS: dict[str, dict[str, object]] = {
    "PNG": {},
    "GIF": {},
    "BMP": {},
    "TIFF": {"compression": "tiff_lzw"},
    "JPEG": {"quality": 1},
    "WEBP": {"quality": 1},
    "JPEG2000": {"quality_layers": [2000]},
    "AVIF": {"quality": 0, "speed": 10},
    "PPM": {},
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_bomb_of_every_format_is_refused_before_it_is_decoded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    large = Image.new("1" if name in ("PNG", "BMP", "TIFF", "PPM") else "L", (4000, 3000))
    data = pictures.to_bytes(large, name, **BOMBS[name])

    def load(self: ImageFile.ImageFile) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(BadInput, match=r"at most 1000000 pixels, got 4000 x 3000 = 12000000 pixels"):
        images.decode(data, replace(LIMITS, max_pixels=1_000_000))


@pytest.mark.parametrize("keyword", [b"zTXt", b"iTXt", b"iCCP"])
def test_texts_and_profiles_that_unpack_to_much_are_not_unpacked(keyword: bytes) -> None:
    """300 MB of text in 300 kB of a PNG: the image is refused or read, and the process has not grown by them."""
    packed = zlib.compress(bytes(300_000_000), 9)
    body = b"a\0" + {b"zTXt": b"\0", b"iTXt": b"\1\0\0\0", b"iCCP": b"\0"}[keyword] + packed
    chunk = struct.pack(">I", len(body)) + keyword + body + struct.pack(">I", zlib.crc32(keyword + body))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(BadInput):
        assert images.decode(PNG[:33] + chunk + PNG[33:], LIMITS).shape == PIXELS.shape
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes
