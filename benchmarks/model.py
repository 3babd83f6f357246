"""Benchmark cases of the model: encoding, decoding, masks, whole requests."""

from __future__ import annotations

import base64
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from pycocotools import mask as coco

from benchmarks import everything, runtimes, subjects
from benchmarks.limits import lower_bound
from benchmarks.measure import BASELINE, EAGER, OURS, Case, Cases, Result, Ways, compare, measure_alternately
from benchmarks.plain import Answer, Plain, png, unpng
from benchmarks.subjects import SIZE
from sam_endpoint.model import masks
from sam_endpoint.model.call import Call
from sam_endpoint.model.params import Params
from sam_endpoint.model.precision import EXACT, PRECISIONS
from sam_endpoint.model.prompts import Prompt
from sam_endpoint.model.scorer import Scorer
from sam_endpoint.model.segmenter import Segmentation


def encode(name: str, turns: int) -> Iterator[Result]:
    """Encode one image."""
    plain, ours = Plain(subjects.checkpoint(name)), subjects.load(name)
    eager = Plain(subjects.checkpoint(name), "eager")
    pixels = ours.family.preprocess(subjects.picture(*SIZE))[None]

    @torch.inference_mode()
    def embed() -> tuple[torch.Tensor, ...]:
        return ours.family.embed(pixels)

    ways: Ways = {BASELINE: lambda: plain.embed(pixels), EAGER: lambda: eager.embed(pixels)}
    for runtime, run in runtimes.encoders(name, plain, pixels).items():
        ways[runtime] = partial(run, pixels)
    ways[OURS] = embed
    differences = compare({way: _last_map(run()) for way, run in ways.items()})
    times = measure_alternately(ways, turns, warm=False)  # the comparison has called each function
    yield Result(
        "encode an image",
        name,
        times,
        floor=lower_bound(name, images=1),
        differences=differences,
        missing=runtimes.missing(),
    )


def _last_map(features: Any) -> np.ndarray:
    """Return the feature map with the lowest resolution, of one map or several."""
    return np.asarray(features[-1] if isinstance(features, (list, tuple)) else features)


def precision(name: str, turns: int) -> Iterator[Result]:
    """Encode one image with each precision of the encoder's linear layers."""
    segmenters = {kind: subjects.load(name, kind) for kind in PRECISIONS}
    images = [subjects.picture(*SIZE)]
    ways: Ways = {f"{OURS}, {kind}": partial(model.embed, images) for kind, model in segmenters.items()}
    plain, pixels = Plain(subjects.checkpoint(name)), segmenters[EXACT].family.preprocess(images[0])[None]
    ways = {BASELINE: lambda: plain.embed(pixels), **ways}
    yield Result("precision of the encoder", name, measure_alternately(ways, turns), floor=lower_bound(name, images=1))


def decode(name: str, turns: int, count: int = 64) -> Iterator[Result]:
    """Decode 64 boxes on one encoded image to low-resolution logits, one by one and all at once."""
    plain, ours = Plain(subjects.checkpoint(name)), subjects.load(name)
    eager = Plain(subjects.checkpoint(name), "eager")
    image = subjects.picture(*SIZE)
    (embedding,) = ours.embed([image])
    boxes = np.array(subjects.boxes(count, *SIZE), np.float32)
    features = plain.embed(ours.family.preprocess(image)[None])
    maps = tuple(features) if isinstance(features, (list, tuple)) else (features,)
    scaled = torch.tensor(boxes * ours.family.scale(SIZE)[0])[None]
    prompts = [Prompt(box=box) for box in boxes]
    together: Ways = {
        BASELINE: lambda: plain.decode(features, scaled)[0][0],
        EAGER: lambda: eager.decode(features, scaled)[0][0],
    }
    one_by_one: Ways = {
        BASELINE: lambda: [plain.decode(features, box)[0][0, 0] for box in scaled.split(1, 1)],
        EAGER: lambda: [eager.decode(features, box)[0][0, 0] for box in scaled.split(1, 1)],
    }
    for runtime, run in runtimes.decoders(name, plain, features, scaled).items():
        together[runtime] = partial(_run_decoder, run, maps, [scaled])
    for runtime, run in runtimes.decoders(name, plain, features, scaled[:, :1]).items():
        one_by_one[runtime] = partial(_run_decoder, run, maps, scaled.split(1, 1))
    ways: Ways = dict(one_by_one)
    ways |= {f"{way}, all at once": run for way, run in together.items()}
    ways[OURS] = lambda: [segmentation.logits for segmentation in ours.segment(embedding, prompts)]
    differences = compare({way: np.stack([np.asarray(logits) for logits in run()]) for way, run in ways.items()})
    times = measure_alternately(ways, turns, warm=False)
    yield Result(
        f"decode {count} boxes",
        name,
        times,
        floor=lower_bound(name, prompts=count),
        differences=differences,
        missing=runtimes.missing(),
    )


def _run_decoder(run: runtimes.Run, maps: Sequence[torch.Tensor], batches: Sequence[torch.Tensor]) -> np.ndarray:
    """Return the logits of all boxes. A runtime may reuse the memory of its outputs, so they are copied."""
    return np.concatenate([run(*maps, boxes)[0][0].copy() for boxes in batches])


def _example_logits(side: int) -> torch.Tensor:
    """Return (3, side, side) logits similar to those of a trained model: a small, a medium and a large object."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] * (256 / side)
    logits = [10 - ((x - 110) ** 2 + (y - 100) ** 2) / r**2 * 10 + rng.normal(size=x.shape) for r in (20, 45, 80)]
    return torch.tensor(np.array(logits), dtype=torch.float32)


def write_masks(encoding: str) -> Case:
    """Return a benchmark case: encode three masks of a 12-megapixel image from their low-resolution logits."""
    size = (3000, 4000)

    def case(name: str, turns: int) -> Iterator[Result]:
        plain, ours = Plain(subjects.checkpoint(name)), subjects.load(name)
        logits = _example_logits(ours.family.low_res_size[0])
        segmentation = Segmentation(logits, np.ones(3, np.float32), size)

        def write_plain() -> list[Any]:
            full = plain.masks(logits[None, None], size)[0]
            if encoding == "png":
                return [png(mask) for mask in full]
            return [coco.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in full]

        def write_ours() -> list[Any]:
            return masks.encode_all(ours.cropped_masks(segmentation), encoding)

        times = measure_alternately({BASELINE: write_plain, OURS: write_ours}, turns)
        floor = lower_bound(name, moved=3 * size[0] * size[1])  # each mask is written once, with one byte per pixel
        yield Result(f"3 masks of 12 MP to {encoding.upper()}", name, times, floor=floor)

    return case


def request(name: str, turns: int) -> Iterator[Result]:
    """Score one row with one box, five rows of one image with one box each, and one row with 64 boxes.

    Each box gets three masks as PNG. The first two measurements start with an empty cache. In the third one, the image
    is in this project's cache. Plain transformers encodes the image once and keeps the embedding, too.
    """
    plain, segmenter = Plain(subjects.checkpoint(name)), subjects.load(name)
    eager = Plain(subjects.checkpoint(name), "eager")
    data = subjects.jpeg(subjects.picture(*SIZE))
    boxes = subjects.boxes(64, *SIZE)
    image = base64.b64encode(data).decode()

    def ask(scorer: Scorer, prompts: list[list[list[float]]]) -> Answer:
        rows = pd.DataFrame({"image": [image] * len(prompts), "input_boxes": [json.dumps(own) for own in prompts]})
        return [prediction for cell in scorer.score_frame(rows, Params())["predictions"] for prediction in cell]

    def rows_of(title: str, prompts: list[list[list[float]]]) -> Result:
        def ask_plain(model: Plain) -> Answer:
            return [prediction for own in prompts for prediction in model.answer(data, own)]

        ways: Ways = {
            BASELINE: lambda: ask_plain(plain),
            EAGER: lambda: ask_plain(eager),
            OURS: lambda: ask(Scorer(subjects.engine_of(segmenter)), prompts),
        }
        return _compare_answers(title, name, ways, turns, lower_bound(name, images=1, prompts=len(prompts)))

    yield rows_of("one box on a new image", [boxes[:1]])
    yield rows_of("five rows of one image", [[box] for box in boxes[:5]])
    scorer = Scorer(subjects.engine_of(segmenter))
    ask(scorer, [boxes[:1]])  # encodes the image, which is cached from here on
    features = plain.embed(plain.pixels(plain.read(data)))
    ways: Ways = {
        BASELINE: lambda: plain.answer(data, boxes, features),
        EAGER: lambda: eager.answer(data, boxes, features),
        OURS: lambda: ask(scorer, [boxes]),
    }
    yield _compare_answers("64 boxes on a cached image", name, ways, turns, lower_bound(name, prompts=64))


def _compare_answers(title: str, name: str, ways: Ways, turns: int, floor: float) -> Result:
    """Measure ways to answer a request, and compare their masks and scores with those of the first way."""
    answers = {way: run() for way, run in ways.items()}
    masks_of = {
        way: np.stack([unpng(mask["encoded_binary_mask"]) for cell in answer for mask in cell["mask_per_prediction"]])
        for way, answer in answers.items()
    }
    scores = {
        way: np.array([mask["iou_score"] for cell in answer for mask in cell["mask_per_prediction"]])
        for way, answer in answers.items()
    }
    differing = int((masks_of[OURS] != masks_of[BASELINE]).sum())
    note = f"differing pixels: {differing} of {masks_of[OURS].size}"
    times = measure_alternately(ways, turns, warm=False)
    return Result(title, name, times, floor=floor, note=note, differences=compare(scores))


def overhead(name: str, turns: int) -> Iterator[Result]:
    """Score a request on a cached 1-megapixel image, and subtract the time of the mask decoder.

    Parsing, upscaling and run lengths remain.
    """
    scorer = Scorer(subjects.engine_of(subjects.load(name)))
    data = base64.b64encode(subjects.jpeg(subjects.picture(*SIZE))).decode()
    (box,) = subjects.boxes(1, *SIZE)
    rows = pd.DataFrame({"image": [data], "input_boxes": [json.dumps([box])]})
    params = Params(mask_encoding="rle")
    scorer.score_frame(rows, params)  # encodes the image, which is cached from here on
    seconds: defaultdict[str, list[float]] = defaultdict(list)

    @contextmanager
    def time_stage(stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        seconds[stage].append(time.perf_counter() - started)

    call = Call(time_stage)
    times = measure_alternately({OURS: lambda: scorer.score_frame(rows, params, call)}, max(turns, 20), warm=False)
    remaining = [total - decoding for total, decoding in zip(times[OURS], seconds["prompt"], strict=True)]
    moved = len(data) + SIZE[0] * SIZE[1]  # the request's text, and one byte per pixel of one mask
    floor = lower_bound(name, moved=moved)
    yield Result("parsing and rendering", name, {OURS: remaining}, floor=floor)


CASES: Cases = {
    "encode": (encode, (*subjects.EMBEDDED, *subjects.RANDOM)),
    "precision": (precision, (*subjects.EMBEDDED, *subjects.RANDOM)),
    "decode": (decode, ("sam-tiny", "vit-b", "sam2-base-plus")),
    "request": (request, ("sam-tiny", "vit-b")),
    "png": (write_masks("png"), ("vit-b",)),
    "rle": (write_masks("rle"), ("vit-b",)),
    "everything": (everything.everything, ("sam-tiny",)),
    "overhead": (overhead, ("sam-tiny",)),
}
