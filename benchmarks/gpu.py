"""Benchmark cases on a GPU: images a second, prompts on a cached image, everything, and JPEG to run lengths.

`python -m benchmarks gpu-encode gpu-click gpu-everything gpu-jpeg` runs them. With `--device cpu --on sam-tiny`, the
same code runs on a CPU, which only shows that it works.
"""

from __future__ import annotations

import base64
import importlib.util
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from pycocotools import mask as coco
from transformers import pipeline

from benchmarks import subjects
from benchmarks.batch import packaged
from benchmarks.endpoint import CACHED, new_image, post, running_server
from benchmarks.limits import flops
from benchmarks.measure import OURS, Cases, Result, Ways, measure_alternately
from benchmarks.plain import Plain
from benchmarks.subjects import SIZE
from sam_endpoint.model.params import Params
from sam_endpoint.model.scorer import Scorer
from sam_endpoint.model.segmenter import Segmenter

BATCHES = (1, 2, 4, 8, 16, 32)  # images encoded together
CLIENTS = 32
REQUESTS = 50  # of each client
JPEGS = 32  # images of a table
PIPELINE = "transformers, pipeline"
FLOAT, HALF = "transformers, float32 (default)", "transformers, bfloat16, sdpa"


class OnDevice(Plain):
    """Plain transformers on a device.

    Args:
        checkpoint: folder of the checkpoint.
        device: the torch device.
        dtype: of the weights and the inputs.
    """

    def __init__(self, checkpoint: Path, device: str, dtype: torch.dtype) -> None:
        super().__init__(checkpoint)
        self.model.to(device, dtype)

    def _move(self, values: torch.Tensor) -> torch.Tensor:
        return values.to(self.model.device, self.model.dtype)

    def embed(self, pixels: torch.Tensor) -> Any:
        """Return the features of (n, 3, side, side) inputs."""
        return super().embed(self._move(pixels))

    def decode(self, embedding: Any, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode (1, p, 4) boxes to logits and scores on the CPU, float32."""
        logits, scores = super().decode(embedding, self._move(boxes))
        return logits.float().cpu(), scores.float().cpu()


def finished(run: Callable[[], Any], device: str) -> Callable[[], Any]:
    """Return a function that calls another one, and waits until the GPU has finished."""

    def wait() -> Any:
        result = run()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return result

    return wait


def matrix_rate(device: str) -> float:
    """Return the floating point operations per second of a large bfloat16 matrix product: the best of five."""
    first, second = (torch.randn(4096, 4096, dtype=torch.bfloat16, device=device) for _ in range(2))
    return 2 * 4096**3 / min(measure_alternately({"": finished(lambda: first @ second, device)}, 5)[""])


def encode(device: str, name: str, turns: int) -> Iterator[Result]:
    """Encode images at the best batch of each implementation. The values are seconds per image."""
    checkpoint = subjects.checkpoint(name)
    plain = {way: OnDevice(checkpoint, device, kind) for way, kind in ((FLOAT, torch.float32), (HALF, torch.bfloat16))}
    ours = Segmenter.load(str(checkpoint), device, "bfloat16")
    pixels = ours.family.preprocess(subjects.picture(*SIZE))[None]

    @torch.inference_mode()
    def run_ours(batch: torch.Tensor) -> Any:
        return ours.family.embed(batch.to(device))

    runs: dict[str, Callable[[torch.Tensor], Any]] = {way: model.embed for way, model in plain.items()}
    runs[OURS] = run_ours
    ways, batches = {}, {}
    for way, run in runs.items():
        seconds = {}
        for count in BATCHES:
            once = finished(partial(run, pixels.expand(count, -1, -1, -1)), device)
            try:
                seconds[count] = min(measure_alternately({way: once}, 2)[way]) / count
            except torch.OutOfMemoryError:
                break
        batches[way] = min(seconds, key=seconds.__getitem__)
        ways[way] = finished(partial(run, pixels.expand(batches[way], -1, -1, -1)), device)
    times = measure_alternately(ways, turns)
    each = {way: [value / batches[way] for value in values] for way, values in times.items()}
    note = "batches: " + ", ".join(f"{way} {count}" for way, count in batches.items())
    yield Result("encode, seconds per image", name, each, floor=flops(name)[0] / matrix_rate(device), note=note)


def click(device: str, name: str, turns: int) -> Iterator[Result]:
    """Send boxes on a cached image to the endpoint, from one client, and from 32 clients at the same time."""
    boxes = subjects.boxes(64, *SIZE)
    command = ["sam_endpoint", "serve", "--model", str(packaged(name)), "--device", device, "--port", "PORT"]
    with running_server(command, "/ready") as url, ThreadPoolExecutor(CLIENTS) as pool:

        def ask(number: int, **image: str) -> None:
            row = {**(image or {"image_id": CACHED}), "input_boxes": [boxes[number % len(boxes)]]}
            post(url, "/score", {"input_data": [row], "params": {"mask_encoding": "rle"}})

        def time_requests(client: int) -> list[float]:
            seconds = []
            for number in range(REQUESTS):
                started = perf_counter()
                ask(client + number)
                seconds.append(perf_counter() - started)
            return seconds

        ask(0, image=new_image(0), image_id=CACHED)
        alone = time_requests(0)
        together = [value for values in pool.map(time_requests, range(CLIENTS)) for value in values]
    for title, values in (("one client", alone), (f"{CLIENTS} clients", together)):
        tail = f"99th percentile: {1000 * np.percentile(values, 99):.1f} ms"
        yield Result(f"prompt on a cached image, {title}", name, {OURS: values}, note=tail)


def everything(device: str, name: str, turns: int) -> Iterator[Result]:
    """Segment everything in a 1-megapixel image with 32 x 32 points, and compare with transformers' pipeline.

    The pipeline needs torchvision, which this project does not need.
    """
    checkpoint = subjects.checkpoint(name)
    has_pipeline = importlib.util.find_spec("torchvision") is not None
    theirs = pipeline("mask-generation", model=str(checkpoint), device=device) if has_pipeline else None
    segmenter = Segmenter.load(str(checkpoint), device)
    image = subjects.photograph(*SIZE)
    picture, data = Image.fromarray(image), base64.b64encode(subjects.jpeg(image)).decode()
    params = Params(points_per_side=32, pred_iou_thresh=0.7, stability_score_thresh=0.85, mask_encoding="rle")

    def run_theirs() -> int:
        assert theirs is not None
        options = {"points_per_batch": 64, "pred_iou_thresh": 0.7, "stability_score_thresh": 0.85}
        return len(theirs(picture, **options)["masks"])

    def run_ours() -> int:
        ours = Scorer(subjects.engine_of(segmenter))  # with an empty cache
        (row,) = ours.score_frame(pd.DataFrame({"image": [data]}), params)["predictions"]
        return len(row)

    ways: Ways = {**({PIPELINE: run_theirs} if has_pipeline else {}), OURS: run_ours}
    note = ", ".join(f"{way}: {run()} masks" for way, run in ways.items())
    times = measure_alternately(ways, turns, warm=False)
    missing = [] if has_pipeline else [PIPELINE]
    yield Result("everything, 32 x 32 points", name, times, note=note, missing=missing)


def jpeg(device: str, name: str, turns: int) -> Iterator[Result]:
    """Score a table of JPEGs, each with one box, to run lengths. The values are seconds per image."""
    checkpoint = subjects.checkpoint(name)
    plain = OnDevice(checkpoint, device, torch.bfloat16)
    segmenter = Segmenter.load(str(checkpoint), device)
    texts = [new_image(number) for number in range(JPEGS)]
    (box,) = subjects.boxes(1, *SIZE)
    rows = pd.DataFrame({"image": texts, "input_boxes": [json.dumps([box])] * JPEGS})
    side = plain.model.config.prompt_encoder_config.image_size
    scaled = torch.tensor(box).mul(side / max(SIZE))[None, None]

    def run_plain() -> list[Any]:
        answers = []
        for text in texts:
            features = plain.embed(plain.pixels(plain.read(base64.b64decode(text))))
            masks = plain.masks(plain.decode(features, scaled)[0], SIZE)[0]
            answers += [coco.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
        return answers

    def run_ours() -> Any:
        return Scorer(subjects.engine_of(segmenter)).score_frame(rows, Params(mask_encoding="rle"))

    times = measure_alternately({HALF: run_plain, OURS: run_ours}, turns)
    each = {way: [value / JPEGS for value in values] for way, values in times.items()}
    yield Result("JPEG to run lengths, seconds per image", name, each)


def cases(device: str) -> Cases:
    """Return the cases on a device."""
    return {
        "gpu-encode": (partial(encode, device), ("vit-l", "sam2-large")),
        "gpu-click": (partial(click, device), ("vit-b",)),
        "gpu-everything": (partial(everything, device), ("vit-b",)),
        "gpu-jpeg": (partial(jpeg, device), ("vit-b",)),
    }
