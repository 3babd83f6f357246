"""Attacks on the routes of annotation tools, on those for videos, and on the Open Inference Protocol."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from urllib3 import encode_multipart_formdata

from tests import pictures
from tests.reliability.attacks_files import FORM
from tests.reliability.target import Target, in_threads
from tests.videos import write_video

INFER = "/v2/models/sam-tiny/infer"
CONCEPTS = "/sam3/concept_segment"


@cache
def _image() -> str:
    return pictures.to_text(pictures.disc()[0])


@cache
def _video() -> bytes:
    """Return a video of 64 frames of noise."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "noise.mp4"
        write_video(path, np.random.default_rng(0).integers(0, 255, (64, 480, 640, 3), dtype=np.uint8))
        return path.read_bytes()


def _form(**fields: str) -> bytes:
    """Return a form with the video and with other fields."""
    body, _ = encode_multipart_formdata({**fields, "video": ("a", _video())}, boundary="x")
    return body


def _track(target: Target, model: str) -> None:
    prompts = [{"frame": 0, "object": i, "points": [[50 + 5 * i, 60]]} for i in range(32)]
    form = _form(prompts=json.dumps(prompts), model=model)
    in_threads(8, lambda: target.post("/track", form, FORM))


def track_without_memory(target: Target) -> None:
    """Track 32 objects in videos of 64 frames, with a model without a memory."""
    _track(target, "sam-tiny")


def track_with_memory(target: Target) -> None:
    """Track 32 objects in videos of 64 frames, with a SAM 2."""
    _track(target, "sam2-tiny")


def frames_of_videos(target: Target) -> None:
    """Request the frames of videos as JPEG files."""
    form = _form()
    in_threads(8, lambda: target.post("/frames", form, FORM))


def sessions_of_videos(target: Target) -> None:
    """Open sessions for videos of 200 images, and never close them."""
    body = json.dumps({"model": "sam-tiny", "frames": [_image()] * 200}).encode()
    in_threads(4, lambda: target.post("/v1/video/init", body))


def long_tensors(target: Target) -> None:
    """Send tensors of 20,000 rows whose images are not images."""
    rows = 20_000
    cells = {"image": _image()[:40], "input_points": "[[[9,9]]]"}
    inputs = [
        {"name": name, "shape": [rows, 1], "datatype": "BYTES", "data": [cell] * rows} for name, cell in cells.items()
    ]
    body = json.dumps({"inputs": inputs}).encode()
    in_threads(4, lambda: target.post(INFER, body))


def many_tensors(target: Target) -> None:
    """Send 30,000 tensors in a request."""
    tensor = json.dumps({"name": "a", "shape": [1], "datatype": "FP32", "data": [1]})
    body = f'{{"inputs": [{",".join([tensor] * 30_000)}]}}'.encode()
    in_threads(4, lambda: target.post(INFER, body))


def _concepts(target: Target, prompts: list[dict[str, Any]]) -> None:
    body = json.dumps({"image": {"type": "base64", "value": _image()}, "prompts": prompts}).encode()
    in_threads(4, lambda: target.post(CONCEPTS, body))


def many_examples(target: Target) -> None:
    """Send 16 examples of objects to find."""
    _concepts(target, [{"type": "visual", "boxes": [[110, 80, 40, 40]], "box_labels": [1]}] * 16)


def long_texts(target: Target) -> None:
    """Send 16 texts of 300,000 characters that describe objects."""
    _concepts(target, [{"type": "text", "text": "x" * 300_000}] * 16)


ATTACKS: tuple[Callable[[Target], None], ...] = (
    track_without_memory,
    track_with_memory,
    frames_of_videos,
    sessions_of_videos,
    long_tensors,
    many_tensors,
    many_examples,
    long_texts,
)
