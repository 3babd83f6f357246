"""Requests with known responses, and an endpoint to which tests send them."""

from __future__ import annotations

import base64
import contextlib
import json
import random
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco

from sam_endpoint.model.images import ImageRef
from sam_endpoint.model.mlflow import package
from sam_endpoint.model.params import Params
from sam_endpoint.model.prompts import parse_prompts
from sam_endpoint.model.rows import Row
from sam_endpoint.model.segmenter import Segmenter
from tests import pictures
from tests.conftest import ROOT, free_port
from tests.engines import scorer_of


@dataclass(frozen=True)
class Question:
    """A request and its expected response.

    The image of each question has a different size, so that a response to another question is recognised.

    Attributes:
        path: path of the URL.
        body: body of the request.
        status: expected HTTP status.
        truth: expected mask as COCO run lengths, or None if the response has no mask.
    """

    path: str
    body: bytes
    status: int
    truth: dict[str, Any] | None

    def wrong(self, status: int, body: bytes) -> str | None:
        """Return a description of what is wrong with a response, or None."""
        if status != self.status:
            return f"{self.path}: expected status {self.status}, got {status}: {body[:200]!r}"
        if self.truth is None:
            return None
        answer = json.loads(body)
        if self.path == "/sam/segment_image":
            mask = coco.frPyObjects([np.ravel(answer["masks"][0]).tolist()], *self.truth["size"])[0]
            min_iou = 0.9  # not 1, because the response is a polygon with integer coordinates
        else:
            row = (answer["predictions"] if self.path == "/invocations" else answer)[0]
            item = row["predictions"][0]["mask_per_prediction"][0]
            if item["size"] != self.truth["size"]:
                return f"{self.path}: expected a mask of size {self.truth['size']}, got {item['size']}"
            mask = {"size": item["size"], "counts": item["encoded_binary_mask"].encode()}
            min_iou = 0.98  # not 1, because the rounding of sums depends on the size of the batch
        iou = float(coco.iou([mask], [self.truth], [0])[0, 0])
        return None if iou >= min_iou else f"{self.path}: expected a mask with an IoU of {min_iou}, got {iou:.3f}"


@cache
def questions(count: int) -> tuple[Question, ...]:
    """Return questions in three dialects. One in eight is an invalid request."""
    scorer = scorer_of(Segmenter.load(str(package.EMBEDDED), "cpu"), 2**20)
    rng, result = random.Random(0), []
    for i in range(count):
        size = (220 + 2 * i, 160 + 3 * i)
        x, y, radius = (rng.randint(60, 120) for _ in range(3))
        radius //= 3
        box = [x - radius, y - radius, x + radius, y + radius]
        picture = Image.new("RGB", size, tuple(rng.randint(150, 255) for _ in range(3)))
        ImageDraw.Draw(picture).ellipse(box, fill=tuple(rng.randint(0, 90) for _ in range(3)))
        data = pictures.to_bytes(picture)
        text = base64.b64encode(data).decode()
        point = parse_prompts([[[x, y]]], None, None, None)
        (answer,) = scorer.score([Row(i, ImageRef.content(data), None, point, False)], Params(mask_encoding="rle"))
        mask = answer["predictions"][0]["mask_per_prediction"][0]
        truth = {"size": mask["size"], "counts": mask["encoded_binary_mask"].encode()}
        row = {"image": text, "input_points": [[[x, y]]], "multimask_output": False}
        params = {"mask_encoding": "rle"}
        bodies: dict[str, Any] = {
            "/score": {"input_data": [row], "params": params},
            "/invocations": {"dataframe_records": [row], "params": params},
            "/sam/segment_image": {
                "image": {"type": "base64", "value": text},
                "point_coords": [[x, y]],
                "point_labels": [1],
            },
        }
        path = list(bodies)[i % 3]
        if i % 8 == 7:
            bad = {"input_data": [{**row, "input_points": [[[x, "here"]]]}]}
            result.append(Question("/score", json.dumps(bad).encode(), 400, None))
        else:
            result.append(Question(path, json.dumps(bodies[path]).encode(), 200, truth))
    return tuple(result)


@contextlib.contextmanager
def endpoint(log: Path, *options: str) -> Iterator[tuple[str, int, subprocess.Popen[bytes]]]:
    """Run the endpoint with the starter models until the block ends.

    Args:
        log: file for the output of the endpoint.
        *options: options of `serve`.

    Yields:
        The host, the port, and the process of the endpoint.
    """
    port = free_port()
    command = [sys.executable, "-m", "sam_endpoint", "serve", "--port", str(port), *options]
    with log.open("w") as stream, subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=stream) as process:
        try:
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5).close()
                    break
                except OSError:
                    assert process.poll() is None, log.read_text()[-2000:]
                    time.sleep(0.2)
            yield "127.0.0.1", port, process
        finally:
            process.kill()
