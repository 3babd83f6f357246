"""Images: the forms in which they arrive, their formats and limits, and the errors for bad images."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
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
from PIL import ExifTags, Image, ImageFile, ImageOps

from benchmarks import memory
from sam_endpoint.model import images
from sam_endpoint.model.errors import BadInput
from sam_endpoint.model.images import ImageLimits, ImageReader, ImageRef
from sam_endpoint.model.images.decoding import FORMATS
from tests import pictures

LIMITS = ImageLimits(fetch_seconds=5, hosts=("127.0.0.1",))
PIXELS = pictures.clutter(30, 44)
PNG = pictures.to_bytes(Image.fromarray(PIXELS))


def read(source: object, limits: ImageLimits) -> bytes:
    """Read the bytes of an image from a cell of the `image` column."""
    reader = ImageReader(limits)
    return reader.read(reader.reference(source))


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """Run a web server on loopback with one image, and return its URL."""
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
        base64.urlsafe_b64encode(PNG).decode(),
        base64.urlsafe_b64encode(PNG).decode().rstrip("="),
        base64.b64encode(PNG).decode().rstrip("="),
        list(PNG),
        tuple(PNG),
        np.frombuffer(PNG, np.uint8),
        np.frombuffer(PNG, np.uint8).astype(np.int64),
        {"bytes": PNG, "path": "picture.png"},
        {"bytes": None, "path": "data:image/png;base64," + base64.b64encode(PNG).decode()},
    ],
    ids=[
        *("bytes", "bytearray", "base64", "base64 with line breaks", "data URL", "spaces around"),
        *("URL-safe base64", "unpadded URL-safe base64", "unpadded base64"),
        *("list of uint8", "tuple of uint8", "array of uint8", "array of int64"),
        *("struct of Hugging Face", "struct with a URL"),
    ],
)
def test_reads_the_same_image_from_every_form(source: object) -> None:
    assert np.array_equal(images.decode(read(source, LIMITS), LIMITS), PIXELS)


def test_fetches_urls_within_the_limits(web: str) -> None:
    assert read(f"{web}/picture.png", LIMITS) == PNG
    with pytest.raises(BadInput, match="HTTP status 404"):
        read(f"{web}/nothing.png", LIMITS)
    with pytest.raises(BadInput, match="at most 10 bytes"):
        read(f"{web}/picture.png", replace(LIMITS, max_bytes=10))
    with pytest.raises(BadInput, match="no response"):
        read("http://127.0.0.1:1/picture.png", LIMITS)


def test_rejects_urls_if_they_are_switched_off(web: str) -> None:
    with pytest.raises(BadInput, match="a URL, but fetching images from URLs is disabled"):
        read(f"{web}/picture.png", replace(LIMITS, urls=False))


def test_private_hosts_are_allowed_with_local_paths(web: str) -> None:
    with pytest.raises(BadInput, match="private"):
        read(f"{web}/picture.png", ImageLimits())
    assert read(f"{web}/picture.png", ImageLimits(local_paths=True)) == PNG


def test_reads_local_paths_only_if_they_are_switched_on(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(PNG)
    spaced = tmp_path / "a picture.png"
    spaced.write_bytes(PNG)
    escaped = str(spaced).replace(" ", "%20")
    names: list[object] = [str(path), f"file://{path}", f"file:{path}", {"bytes": None, "path": str(path)}]
    names += [f"file:{spaced}", f"file:{escaped}", f"file://{escaped}"]
    for name in names:
        with pytest.raises(BadInput, match="column 'image'"):
            read(name, LIMITS)
        assert read(name, replace(LIMITS, local_paths=True)) == PNG
    with pytest.raises(BadInput, match="not base64 and not a file"):
        read(str(tmp_path / "none.png"), replace(LIMITS, local_paths=True))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (7, "the number 7"),
        ([1, 2, 256], "a list of 3"),
        ([0.5], "a list of 1"),
        (np.zeros((4, 4, 3), np.uint8), "an array of shape (4, 4, 3)"),
        ({"bytes": None, "path": None}, "nothing"),
        ({"uri": "a.png"}, "nothing"),
        ("file:/etc/passwd", "scheme 'file'"),
        ("secretmarker://host/picture.png", "a URL with an unknown scheme"),
        ("", "an empty image"),
        (b"", "an empty image"),
        ("hello, world", "text of 12 characters that is not base64"),
        ("grüße", "not base64"),
        ("ftp://host/picture.png", "scheme 'ftp'"),
        ("file:///etc/passwd", "scheme 'file'"),
        ("data:image/png,abc", "a data: URL that is not base64"),
        ("http://[bad", "no response"),
        ("http://169.254.169.254/latest/meta-data", "not on the list"),
    ],
    ids=str,
)
def test_rejects_cells_that_hold_no_image(source: object, message: str) -> None:
    with pytest.raises(BadInput) as raised:
        read(source, LIMITS)
    assert message in str(raised.value) and raised.value.column == "image"


@pytest.mark.parametrize("data", [b"no image at all", PNG[:60], PNG[:-40], PNG[:200] + b"x" * 100], ids=len)
def test_rejects_bytes_that_are_no_image(data: bytes) -> None:
    with pytest.raises(BadInput, match="an image that Pillow can read"):
        images.decode(data, LIMITS)


def test_rejects_images_over_the_limit_of_pixels() -> None:
    with pytest.raises(BadInput, match=r"at most 1000 pixels, got 44 x 30 = 1320 pixels"):
        images.decode(PNG, replace(LIMITS, max_pixels=1000))
    bomb = pictures.to_bytes(Image.new("1", (20_000, 20_000)))
    with pytest.raises(BadInput, match="at most 100000000 pixels"):
        images.decode(bomb, LIMITS)


def test_rejects_images_over_the_limit_of_a_side() -> None:
    with pytest.raises(BadInput, match="at most 40 pixels a side, got 44 x 30 pixels"):
        images.decode(PNG, replace(LIMITS, max_side=40))
    for size in ((1, 1), (1, 20_000), (20_000, 1)):
        assert images.decode(pictures.to_bytes(Image.new("L", size)), LIMITS).shape == (*size[::-1], 3)


@pytest.mark.parametrize("name", FORMATS)
def test_decodes_every_supported_format(name: str) -> None:
    image = Image.fromarray(PIXELS)
    options: dict[str, dict[str, object]] = {
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 100, "subsampling": 0},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    }
    data = pictures.to_bytes(image.quantize(256) if name == "GIF" else image, name, **options.get(name, {}))
    decoded = images.decode(data, LIMITS)
    assert decoded.shape == PIXELS.shape and np.abs(decoded.astype(int) - PIXELS).mean() < 12


@pytest.mark.parametrize("name", ["EPS", "PDF", "ICO", "TGA", "PCX", "SGI", "ICNS", "DDS"])
def test_rejects_other_formats_that_pillow_can_read(name: str) -> None:
    with pytest.raises(BadInput, match="bytes of no known image format"):
        images.decode(pictures.to_bytes(Image.fromarray(PIXELS), name), LIMITS)


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", "TIFF"])
def test_decodes_the_first_frame_of_an_animation(name: str) -> None:
    first, second = Image.new("RGB", (20, 10), (250, 0, 0)), Image.new("RGB", (20, 10), (0, 0, 250))
    data = pictures.to_bytes(first, name, save_all=True, append_images=[second])
    assert (images.decode(data, LIMITS)[5, 5] > [200, -1, -1]).all() and images.decode(data, LIMITS)[5, 5, 2] < 50


def test_ignores_other_data_after_an_image() -> None:
    assert np.array_equal(images.decode(PNG + b"PK\x03\x04<script>alert(1)</script>%PDF-1.4", LIMITS), PIXELS)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_images_are_rotated_as_pillow_does_and_others_stay_as_stored(name: str, orientation: int) -> None:
    """The reference is Pillow's `exif_transpose`."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = pictures.to_bytes(Image.fromarray(PIXELS), name, exif=exif.tobytes())
    with Image.open(io.BytesIO(data)) as image:
        shown = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(images.decode(data, LIMITS, upright=True), shown)
    assert images.decode(data, LIMITS).shape == (30, 44, 3)
    stored, upright = (ImageReader(LIMITS).open(ImageRef.content(data, upright)) for upright in (False, True))
    assert (stored.key == upright.key) == (orientation == 1)
    assert stored.pixels().shape == (30, 44, 3) and np.array_equal(upright.pixels(), shown)


@pytest.mark.parametrize("upright", [False, True])
def test_a_tiff_is_always_upright_because_pillow_rotates_it(upright: bool) -> None:
    data = pictures.to_bytes(Image.fromarray(PIXELS), "TIFF", tiffinfo={ExifTags.Base.Orientation: 6})
    assert np.array_equal(images.decode(data, LIMITS, upright), np.rot90(PIXELS, -1))
    assert ImageReader(LIMITS).open(ImageRef.content(data, upright)).key == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0" + b"\xff" * 40], ids=len)
def test_ignores_broken_exif_data(exif: bytes) -> None:
    data = pictures.to_bytes(Image.fromarray(PIXELS), "JPEG", exif=exif)
    assert np.array_equal(images.decode(data, LIMITS, upright=True), images.decode(data, LIMITS))


RAMP = np.linspace(0.05, 0.95, 64 * 96, dtype=np.float32).reshape(64, 96)


def ramp_with(value: float, rows: int = 0) -> np.ndarray:
    """Return the ramp with another value in its first pixel, or in all pixels of its first rows."""
    values = RAMP.copy()
    values[0, 0] = value
    values[:rows] = value
    return values


@pytest.mark.parametrize(
    "values",
    [
        RAMP,
        ramp_with(1.02),
        ramp_with(np.inf),
        ramp_with(-np.inf),
        ramp_with(np.nan, 30),
        ramp_with(3.4e38, 30),
        ramp_with(-9999, 30),
        (RAMP * 0.01),
        (RAMP * 4095).astype(np.uint16),
        (RAMP * 3000).astype(np.uint16),
        (RAMP * 65535).astype(np.uint16),
        (RAMP * 65535).astype(">u2"),
        (RAMP * 4000 - 1000).astype(np.int32),
        (RAMP * 2e9).astype(np.int32),
    ],
    ids=[
        *("float", "little over 1", "inf", "-inf", "NaN", "nodata 3.4e38", "nodata -9999", "dark floats"),
        *("12 bits", "reflectance", "16 bits", "big-endian", "Hounsfield", "31 bits"),
    ],
)
def test_scales_deep_greys_to_the_range_of_their_values(values: np.ndarray) -> None:
    image = Image.frombytes("I;16B", (96, 64), values.tobytes()) if values.dtype == ">u2" else Image.fromarray(values)
    seen = images.decode(pictures.to_bytes(image, "TIFF"), LIMITS)
    assert (seen[..., 0] == seen[..., 1]).all() and (seen[..., 0] == seen[..., 2]).all()
    levels = seen[30:, :, 0].astype(int).ravel()
    assert (np.diff(levels) >= 0).all() and len(np.unique(levels)) > 100 and levels[-1] == 255


def test_nodata_pixels_are_black_and_do_not_affect_the_range() -> None:
    values = ramp_with(-7777, 30)
    data = pictures.to_bytes(Image.fromarray(values), "TIFF", tiffinfo={42113: "-7777"})
    seen = images.decode(data, LIMITS)[..., 0]
    assert (seen[:30] == 0).all() and len(np.unique(seen[30:])) > 100


@pytest.mark.parametrize(("value", "level"), [(0, 0), (700, 0)])
def test_a_deep_grey_of_a_single_value_is_black(value: int, level: int) -> None:
    data = pictures.to_bytes(Image.fromarray(np.full((8, 8), value, np.uint16)), "PNG")
    assert (images.decode(data, LIMITS) == level).all()


def test_a_few_bright_pixels_on_a_black_deep_grey_are_white() -> None:
    values = np.zeros((100, 100), np.uint16)
    values[50, 50:53] = 900
    assert images.decode(pictures.to_bytes(Image.fromarray(values), "PNG"), LIMITS)[50, 50:53].min() == 255


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
def test_rejects_a_bomb_of_every_format_before_decoding_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    large = Image.new("1" if name in ("PNG", "BMP", "TIFF", "PPM") else "L", (4000, 3000))
    data = pictures.to_bytes(large, name, **BOMBS[name])

    def load(self: ImageFile.ImageFile) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(BadInput, match=r"at most 1000000 pixels, got 4000 x 3000 = 12000000 pixels"):
        images.decode(data, replace(LIMITS, max_pixels=1_000_000))


@pytest.mark.parametrize("keyword", [b"zTXt", b"iTXt", b"iCCP"])
def test_does_not_decompress_huge_texts_and_profiles(keyword: bytes) -> None:
    """A PNG of 300 kB contains 300 MB of compressed text.

    The image is rejected or decoded, and the memory of the process does not grow by the text.
    """
    packed = zlib.compress(bytes(300_000_000), 9)
    body = b"a\0" + {b"zTXt": b"\0", b"iTXt": b"\1\0\0\0", b"iCCP": b"\0"}[keyword] + packed
    chunk = struct.pack(">I", len(body)) + keyword + body + struct.pack(">I", zlib.crc32(keyword + body))
    memory.reset_peak()
    before = memory.resident()
    with contextlib.suppress(BadInput):
        assert images.decode(PNG[:33] + chunk + PNG[33:], LIMITS).shape == PIXELS.shape
    assert memory.peak() - before < 100_000_000
