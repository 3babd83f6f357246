"""Attacks: functions that send harmful requests to an endpoint until the attack ends."""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import json
import socket
import struct
import time
import zlib
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import requests
from PIL import Image

from tests import pictures
from tests.reliability import attacks_files, attacks_http, attacks_tools
from tests.reliability.target import KEY, LOOSE, Target, in_threads, once, scored

__all__ = ["ATTACKS", "KEY", "Target"]


def everything_unfiltered(target: Target) -> None:
    """Segment everything with a grid of 48 x 48 points, without filters and with logits."""
    body = scored({**LOOSE, "points_per_side": 48, "return_logits": True})
    in_threads(4, lambda: target.post("/score", body))


def points_in_crops(target: Target) -> None:
    """Segment everything with a grid of 128 x 128 points in each of 85 crops."""
    target.post("/score", scored({"points_per_side": 128, "crop_n_layers": 3}))


def sixteen_expensive_requests(target: Target) -> None:
    """Send the most expensive allowed request from 16 threads at the same time."""
    body = scored({**LOOSE, "points_per_side": 128, "points_per_batch": 1024}, (256, 256))
    in_threads(16, lambda: target.post("/score", body))


def many_boxes(target: Target) -> None:
    """Send 300 boxes in a row, and request the logits of their masks."""
    boxes = [[1, 1, 60, 60]] * 300
    body = scored({"return_logits": True, "mask_encoding": "rle"}, rows=1, input_boxes=boxes)
    in_threads(4, lambda: target.post("/score", body))


def hang_up(target: Target) -> None:
    """Send expensive requests, and disconnect at once."""
    body = scored({**LOOSE, "points_per_side": 128}, (256, 256))
    while not target.over:
        with contextlib.suppress(requests.RequestException):
            requests.post(f"{target.url}/score", data=body, headers={"x-api-key": KEY}, timeout=0.2)


def dribble(target: Target) -> None:
    """Send 64 bodies without a key, byte by byte."""

    def send() -> None:
        while not target.over:
            with contextlib.suppress(OSError), socket.create_connection(target.address, 5) as connection:
                connection.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 60000000\r\n\r\n")
                while not target.over:
                    connection.sendall(b"x")
                    time.sleep(0.2)

    in_threads(64, send)


def half_headers(target: Target) -> None:
    """Open 300 connections, and never complete the headers of a request."""
    connections: list[socket.socket] = []
    while not target.over:
        for _ in range(20):
            with contextlib.suppress(OSError):
                connection = socket.create_connection(target.address, 2)
                connection.sendall(b"GET /health HTTP/1.1\r\nHost: ")
                connections.append(connection)
        if len(connections) > 300:
            connections.pop(0).close()
        time.sleep(0.05)
    for connection in connections:
        connection.close()


def lists_as_text(target: Target) -> None:
    """Send millions of lists as plain text, as JSON with two content types, and in the JSON text of a cell."""
    lists = b'{"input_data": [' + b"[]," * 3_000_000 + b"[]]}"
    cell = json.dumps({"input_data": [{"image": "x", "input_points": "[" + "[]," * 3_000_000 + "[]]"}]}).encode()
    while not target.over:
        for kind in ("text/plain", "application/vnd.api+json", "application/json"):
            once(target, "/invocations", lists, kind)
        once(target, "/score", cell)
        once(target, "/score", cell.replace(b"[", b"\\u005b").replace(b'{"input_data": \\u005b', b'{"input_data": ['))


def lists_without_a_key(target: Target) -> None:
    """Send 60 MB of lists without a valid key."""
    body = b'{"api_key": "wrong", "input_data": [' + b"[]," * 20_000_000 + b"[]]}"
    while not target.over:
        once(target, "/sam2/segment_image", body, key="")


def small_parquet(target: Target) -> None:
    """Send a few kilobytes of Parquet that expand to gigabytes."""
    buffer = io.BytesIO()
    text = "[" + "[1,2]," * 200_000 + "[1,2]]"
    table = pa.table({"image": ["x"] * 200, "input_points": [text] * 200})
    pq.write_table(table, buffer, compression="zstd", store_schema=False)
    target.post("/invocations", buffer.getvalue(), "application/vnd.apache.parquet")


def wide_and_long_tables(target: Target) -> None:
    """Send CSV tables of 300,000 columns and of two million rows, and JSON tables with many rows."""
    wide = ",".join(["image", *(f"c{i}" for i in range(300_000))]).encode() + b"\n"
    long = b"image\n" + b"x\n" * 2_000_000
    inputs = json.dumps({"inputs": {"image": ["x"] * 1_000_000}}).encode()
    split = json.dumps({"dataframe_split": {"columns": ["image"], "data": [["x"]] * 90_000}}).encode()
    while not target.over:
        once(target, "/invocations", wide, "text/csv")
        once(target, "/invocations", long, "text/csv")
        once(target, "/invocations", inputs)
        once(target, "/invocations", split)


def large_mask_input(target: Target) -> None:
    """Send a mask input of a wrong size with a thousand prompts."""
    points = [{"points": [{"x": 1, "y": 1, "positive": True}]}] * 1000
    image = {"type": "base64", "value": pictures.to_text(pictures.disc()[0])}
    body: dict[str, Any] = {"image": image, "prompts": points, "mask_input": [[0.5] * 1000] * 1000}
    target.post("/sam2/segment_image", json.dumps(body).encode())


def unread_answers(target: Target) -> None:
    """Request large responses, and never read them."""
    body = scored({"return_logits": True}, rows=1, input_boxes=[[1, 1, 60, 60]] * 60)
    head = f"POST /score HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nContent-Type: application/json\r\n"
    connections = []
    while not target.over:
        with contextlib.suppress(OSError):
            connection = socket.create_connection(target.address, 5)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            connections.append(connection)
        time.sleep(0.1)
    for connection in connections:
        connection.close()


def bombs(target: Target) -> None:
    """Send small image files that have many pixels or large tiles."""
    files = [pictures.to_bytes(Image.new("L", (12_000, 12_000)), "PNG"), tiled_tiff(12_000), tiled_tiff(2_100)]
    files += [pictures.to_bytes(Image.new("L", (9_900, 9_900)), kind) for kind in ("PNG", "GIF", "WEBP", "JPEG")]
    files.append(b"P3\n1000 700\n255\n" + b"255 255 255 " * 700_000)
    while not target.over:
        for data in files:
            image = base64.b64encode(data).decode()
            body = {"input_data": [{"image": image, "input_points": [[[1, 1]]]}]}
            once(target, "/score", json.dumps(body).encode())


def tiled_tiff(side: int) -> bytes:
    """Return a TIFF of one pixel in a tile of side x side pixels."""
    data = zlib.compress(bytes(side * side), 9)
    entries = [(256, 3, 1), (257, 3, 1), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1)]
    entries += [(322, 4, side), (323, 4, side), (324, 4, 8 + 2 + 12 * 10 + 4), (325, 4, len(data))]
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(entries)) + directory + bytes(4) + data


def forms(target: Target) -> None:
    """Send forms with thousands of parts, and forms with a large part."""
    part = b'--x\r\nContent-Disposition: form-data; name="f%d"\r\n\r\nv\r\n'
    many = b"".join(part % i for i in range(100_000)) + b"--x--\r\n"
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    large = head + bytes(30_000_000) + b"\r\n--x--\r\n"
    while not target.over:
        for body in (many, large):
            once(target, "/segment-anything-2", body, "multipart/form-data; boundary=x")


def gzip_bombs(target: Target) -> None:
    """Send a compressed body of a quarter of a megabyte that expands to a quarter of a gigabyte."""
    packed = gzip.compress(bytes(2**28), 6)
    while not target.over:
        once(target, "/score", packed, content_encoding="gzip")


def many_names(target: Target) -> None:
    """Send a new image with a new name in every request, so that names and embeddings accumulate."""
    number = 0
    while not target.over:
        number += 1
        body = json.loads(scored({"mask_encoding": "rle"}, (64 + number % 200, 64), input_points=[[[5, 5]]]))
        body["input_data"][0]["image_id"] = f"{number}" * 80
        once(target, "/score", json.dumps(body).encode())


def noise_polygons(target: Target) -> None:
    """Request the masks of a noisy image as polygons, which have millions of corners."""
    body = scored({**LOOSE, "mask_encoding": "polygon", "points_per_side": 4}, (3000, 3000))
    target.post("/score", body)


ATTACKS: tuple[Callable[[Target], None], ...] = (
    everything_unfiltered,
    points_in_crops,
    sixteen_expensive_requests,
    many_boxes,
    hang_up,
    dribble,
    half_headers,
    lists_as_text,
    lists_without_a_key,
    small_parquet,
    wide_and_long_tables,
    large_mask_input,
    unread_answers,
    bombs,
    forms,
    gzip_bombs,
    many_names,
    noise_polygons,
    *attacks_http.ATTACKS,
    *attacks_files.ATTACKS,
    *attacks_tools.ATTACKS,
)
