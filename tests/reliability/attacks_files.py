"""Attacks with the content of bodies: forms, images, and Parquet tables, which a separate process reads."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import signal
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests import pictures
from tests.reliability.target import Target, in_threads, once

FORM = "multipart/form-data; boundary=x"
PARQUET = "application/vnd.apache.parquet"


def multipart_floods(target: Target) -> None:
    """Send malformed forms: with parts without names, huge headers, many headers, nested forms, or no end.

    Others have millions of boundaries that do not end their lines, or megabytes of spaces after a boundary.
    """
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n'
    end = b"\r\n--x--\r\n"
    forms = [
        b"--x\r\n\r\nv\r\n" * 500_000 + b"--x--\r\n",
        head + b"a: " + b"b" * 10**7 + b"\r\n\r\nv" + end,
        head + b"a: b\r\n" * 10**6 + b"\r\nv" + end,
        b'--x\r\nContent-Disposition: form-data; name="' + b"n" * 10**7 + b'"\r\n\r\nv' + end,
        b'--x\r\nContent-Disposition: form-data; name="a"' + b'; a="\\"' * 10**6 + b"\r\n\r\nv" + end,
        b"".join(head + b"\r\n" + bytes(9000) + b"\r\n" for _ in range(2000)) + b"--x--\r\n",
        head + b"Content-Type: multipart/mixed; boundary=y\r\n\r\n" + b"--y\r\n\r\n" * 500_000 + end,
        head + b"\r\n" + b"\r\n--" * 5_000_000,
        head + b"\r\n" + b"\r\n--x-" * 5_000_000,
        head + b"v\r\n--x" + b" " * 30_000_000 + b"\r\n",
        b"\r\n" * 10_000_000 + head + end,
        b'--x\r\nContent-Disposition: form-data; name="mask_input"\r\n\r\n' + b"[" * 900_000 + end,
    ]
    others = ["multipart/form-data", "multipart/form-data; boundary=" + "y" * 50_000, FORM + "; charset=" + "utf-16"]
    while not target.over:
        for form in forms:
            once(target, "/segment-anything-2", form, FORM)
        for kind in others:
            once(target, "/segment-anything-2", forms[0][: 10**6], kind)


@cache
def _bombs() -> list[bytes]:
    """Return small files of large images and long animations."""
    large = Image.new("L", (6000, 6000))
    files = [
        pictures.to_bytes(large.convert("RGB"), kind, **more) for kind, more in (("AVIF", {"speed": 10}), ("WEBP", {}))
    ]
    files += [pictures.to_bytes(Image.new("L", (4000, 4000)), "JPEG2000")]
    frames = [Image.new("P", (4000, 4000), i) for i in range(8)]
    files += [pictures.to_bytes(frames[0], kind, save_all=True, append_images=frames[1:]) for kind in ("GIF", "WEBP")]
    return files


def picture_bombs(target: Target) -> None:
    """Send AVIF, WebP, JPEG 2000 and GIF files with many pixels or frames, false sizes in headers, or no end."""
    files = list(_bombs())
    gif = bytearray(files[3])
    gif[6:10] = b"\xff\xff\xff\xff"  # a screen of 65,535 x 65,535
    jpeg2000 = files[2].replace((4000).to_bytes(4, "big"), (65_000).to_bytes(4, "big"))
    files += [bytes(gif), jpeg2000, *(file[: len(file) // 2] for file in files)]

    def ask() -> None:
        while not target.over:
            for data in files:
                row = {"image": base64.b64encode(data).decode(), "input_points": [[[1, 1]]]}
                once(target, "/score", json.dumps({"input_data": [row]}).encode())

    in_threads(4, ask)


def killed_helpers(target: Target) -> None:
    """Kill all processes that read Parquet, while clients send Parquet."""
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": [pictures.disc()[0]], "input_points": ["[[[110, 80]]]"]}), buffer)
    port = str(target.address[1]).encode()

    def ask() -> None:
        while not target.over:
            once(target, "/invocations", buffer.getvalue(), PARQUET)

    def kill() -> None:
        while not target.over:
            for folder in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError, ValueError):
                    if b"parquet_reader" in (folder / "cmdline").read_bytes():
                        parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                        if port in Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0"):
                            os.kill(int(folder.name), signal.SIGKILL)
            time.sleep(0.02)

    actions = iter((kill, ask, ask))
    in_threads(3, lambda: next(actions)())


ATTACKS: tuple[Callable[[Target], None], ...] = (multipart_floods, picture_bombs, killed_helpers)
