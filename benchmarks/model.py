"""Cases of the model itself: encode, decode, masks, whole requests, loading."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks import subjects
from benchmarks.limits import least
from benchmarks.measure import BASELINE, Result, in_turn
from benchmarks.plain import Plain, png
from model import masks
from model.contract import Params
from model.embeddings import Embeddings
from model.everything import Grid, everything
from model.images import ImageLimits
from model.precision import PRECISIONS
from model.prompts import Prompt
from model.scorer import Scorer
from model.segmenter import Embedding, Segmentation, Segmenter

OURS = "this project"
SIZE = (1000, 1000)


def scorer(segmenter: Segmenter) -> Scorer:
    return Scorer(segmenter, Embeddings(2**28), ImageLimits())


def encode(names: list[str], turns: int) -> Iterator[Result]:
    """One image to its embedding."""
    for name in names:
        plain, ours = Plain(subjects.checkpoint(name)), Segmenter.load(str(subjects.checkpoint(name)), "cpu")
        pixels = ours.family.preprocess(subjects.picture(*SIZE))[None]

        @torch.inference_mode()
        def ours_embed(ours: Segmenter = ours, pixels: torch.Tensor = pixels) -> tuple[torch.Tensor, ...]:
            return ours.family.embed(pixels)

        expected = plain.embed(pixels)
        expected = expected[-1] if isinstance(expected, (list, tuple)) else expected
        error = float((ours_embed()[-1] - expected).abs().max() / expected.abs().max())
        times = in_turn({BASELINE: lambda: plain.embed(pixels), OURS: ours_embed}, turns)  # noqa: B023
        note = f"relative error {error:.1e}"
        yield Result("encode an image", name, times, floor=least(name, images=1), note=note)


def precision(names: list[str], turns: int) -> Iterator[Result]:
    """One image to its embedding, with the encoder's linear layers at each precision."""
    for name in names:
        segmenters = {kind: Segmenter.load(str(subjects.checkpoint(name)), "cpu", kind) for kind in PRECISIONS}
        image = subjects.picture(*SIZE)

        def way(segmenter: Segmenter, image: np.ndarray = image) -> Callable[[], Any]:
            return lambda: segmenter.embed([image])

        ways = {f"{OURS}, {kind}": way(segmenter) for kind, segmenter in segmenters.items()}
        yield Result("precision of the encoder", name, in_turn(ways, turns), floor=least(name, images=1))


def memory(names: list[str], turns: int) -> Iterator[Result]:
    """The most memory that encoding takes above what the process held before, each in a process of its own."""
    for name in names:
        found: dict[str, list[float]] = {BASELINE: [], OURS: []}
        for _ in range(turns):
            for way, values in found.items():
                command = [sys.executable, "-m", "benchmarks.peak", name, "plain" if way == BASELINE else "ours"]
                done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=subjects.ROOT)
                values.append(float(done.stdout.split()[-1]))
        yield Result("memory while encoding", name, found, unit="MB")


def decode(names: list[str], turns: int, count: int = 64) -> Iterator[Result]:
    """64 boxes on one image that is encoded already, to low-resolution logits."""
    for name in names:
        plain, ours = Plain(subjects.checkpoint(name)), Segmenter.load(str(subjects.checkpoint(name)), "cpu")
        image = subjects.picture(*SIZE)
        (embedding,) = ours.embed([image])
        boxes = np.array(subjects.boxes(count, *SIZE), np.float32)
        given = plain.embed(ours.family.preprocess(image)[None])
        scaled = torch.tensor(boxes * ours.family.scale(SIZE)[0])[None]
        asked = [Prompt(box=box) for box in boxes]
        ways = {
            BASELINE: lambda: [plain.decode(given, scaled[:, i : i + 1]) for i in range(count)],  # noqa: B023
            f"{BASELINE}, all at once": lambda: plain.decode(given, scaled),  # noqa: B023
            OURS: lambda: ours.segment(embedding, asked),  # noqa: B023
        }
        yield Result(f"decode {count} boxes", name, in_turn(ways, turns), floor=least(name, prompts=count))


def _scattered(side: int) -> torch.Tensor:
    """Three masks' (3, side, side) logits as trained models give them: a small, a middle and a large object."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] * (256 / side)
    found = [10 - ((x - 110) ** 2 + (y - 100) ** 2) / r**2 * 10 + rng.normal(size=x.shape) for r in (20, 45, 80)]
    return torch.tensor(np.array(found), dtype=torch.float32)


def rendered(encoding: str) -> Callable[[list[str], int], Iterator[Result]]:
    def case(names: list[str], turns: int) -> Iterator[Result]:
        """Logits of three masks to their text, for an image of 12 megapixels."""
        size = (3000, 4000)
        for name in names:
            plain, ours = Plain(subjects.checkpoint(name)), Segmenter.load(str(subjects.checkpoint(name)), "cpu")
            logits = _scattered(ours.family.low_res_size[0])
            found = Segmentation(logits, np.ones(3, np.float32), size)

            def theirs(plain: Plain = plain, logits: torch.Tensor = logits) -> list[Any]:
                made = plain.masks(logits[None, None], size)[0]
                if encoding == "png":
                    return [png(mask) for mask in made]
                return [masks.coco.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in made]

            def own(ours: Segmenter = ours, found: Segmentation = found) -> list[Any]:
                return masks.encode_all(ours.cuts(found), encoding)

            times = in_turn({BASELINE: theirs, OURS: own}, turns)
            floor = least(name, moved=3 * size[0] * size[1])  # a byte a pixel, written once
            yield Result(f"3 masks of 12 MP to {encoding.upper()}", name, times, floor=floor)

    return case


def request(names: list[str], turns: int) -> Iterator[Result]:
    """Azure's sample: five rows of one image, a box each, three masks as PNG; nothing is kept from the turn before."""
    for name in names:
        plain, segmenter = Plain(subjects.checkpoint(name)), Segmenter.load(str(subjects.checkpoint(name)), "cpu")
        data = subjects.jpeg(subjects.picture(*SIZE))
        boxes = subjects.boxes(5, *SIZE)
        rows = pd.DataFrame(
            {"image": [base64.b64encode(data).decode()] * 5, "input_boxes": [json.dumps([box]) for box in boxes]}
        )
        ways = {
            BASELINE: lambda: [plain.answer(data, [box]) for box in boxes],  # noqa: B023
            OURS: lambda: scorer(segmenter).score_frame(rows, Params()),  # noqa: B023
        }
        yield Result("five rows of one image", name, in_turn(ways, turns), floor=least(name, images=1, prompts=5))


def automatic(names: list[str], turns: int) -> Iterator[Result]:
    """Everything in an image of 1 megapixel, 32 x 32 points: the same filters over plain transformers, and ours."""
    for name in names:
        plain, ours = Plain(subjects.checkpoint(name)), Segmenter.load(str(subjects.checkpoint(name)), "cpu")
        slow = _PlainSegmenter(plain, ours)
        image = subjects.photograph(*SIZE)
        grid = Grid(pred_iou_thresh=0.7, stability_score_thresh=0.85)

        def run(segmenter: Segmenter, grid: Grid = grid, image: np.ndarray = image) -> int:
            return len(everything(segmenter, segmenter.embed([image])[0], lambda box: None, grid))  # type: ignore[arg-type, return-value]

        count = run(ours)
        ways = {BASELINE: lambda: run(slow), OURS: lambda: run(ours)}  # noqa: B023
        floor = least(name, images=1, prompts=grid.points_per_side**2)
        times = in_turn(ways, turns, warm=False)
        yield Result("everything, 32 x 32 points", name, times, floor=floor, note=f"{count} masks")


class _PlainSegmenter(Segmenter):
    """Plain transformers behind the segmenter's verbs: 64 points at once, masks upscaled whole."""

    def __init__(self, plain: Plain, ours: Segmenter) -> None:
        super().__init__(ours.family, "plain")
        self.plain = plain

    def embed(self, images: Any) -> list[Embedding]:
        found = self.plain.embed(self.family.preprocess(images[0])[None])
        features = tuple(found) if isinstance(found, (list, tuple)) else (found,)
        return [Embedding(features, images[0].shape[:2], "plain")]

    @torch.no_grad()
    def segment(
        self, embedding: Embedding, prompts: Any, multimask_output: bool = True, least: float = 0
    ) -> list[Segmentation]:
        points = np.stack([prompt.points for prompt in prompts]) * self.family.scale(embedding.size)
        features: Any = embedding.features[0] if self.plain.is_sam else list(embedding.features)
        found = self.plain.model(
            image_embeddings=features, input_points=torch.tensor(points, dtype=torch.float32)[None]
        )
        pairs = zip(found.pred_masks[0], found.iou_scores[0].numpy(), strict=True)
        return [Segmentation(logits, scores, embedding.size) for logits, scores in pairs]

    def stable_mask(self, logits: torch.Tensor, size: tuple[int, int], offset: float) -> tuple[masks.Cut, float]:
        full = self.family.upscale(logits[None], size)[0]
        stability = (full > offset).sum() / (full > -offset).sum().clamp(min=1)
        return masks.Cut((full > 0).numpy(), 0, 0, size), float(stability)


def load(names: list[str], turns: int) -> Iterator[Result]:
    """A new process to its first mask, from its start and from its imports on."""
    for name in names:
        started: dict[str, list[float]] = {BASELINE: [], OURS: []}
        loaded: dict[str, list[float]] = {BASELINE: [], OURS: []}
        with tempfile.NamedTemporaryFile(suffix=".jpg") as image:
            Path(image.name).write_bytes(subjects.jpeg(subjects.picture(*SIZE)))
            given = [str(subjects.checkpoint(name)), image.name, ",".join(map(str, subjects.boxes(1, *SIZE)[0]))]
            for _ in range(turns):
                for way in started:
                    words = ["-m", "benchmarks.first", *given, "plain" if way == BASELINE else "ours"]
                    began = time.perf_counter()
                    done = subprocess.run([sys.executable, *words], capture_output=True, check=True, cwd=subjects.ROOT)
                    started[way].append(time.perf_counter() - began)
                    loaded[way].append(float(done.stdout))
        weights = (subjects.checkpoint(name) / "model.safetensors").stat().st_size
        floor = least(name, images=1, prompts=1, moved=2 * weights)  # read once, written once
        yield Result("load to first mask", name, loaded, floor=floor)
        yield Result("start to first mask", name, started, floor=floor)


def overhead(names: list[str], turns: int) -> Iterator[Result]:
    """Reading a request and writing its answer, an image of 1 megapixel that is kept, RLE: all but the decoder."""
    for name in names:
        segmenter = Segmenter.load(str(subjects.checkpoint(name)), "cpu")
        ours = scorer(segmenter)
        data = base64.b64encode(subjects.jpeg(subjects.picture(*SIZE))).decode()
        (box,) = subjects.boxes(1, *SIZE)
        rows = pd.DataFrame({"image": [data], "input_boxes": [json.dumps([box])]})
        params = Params(mask_encoding="rle")
        ours.score_frame(rows, params)  # encodes the image, which is kept
        decoding: list[float] = []

        def timed(*asked: Any, segment: Callable[..., Any] = segmenter.segment, into: list[float] = decoding) -> Any:
            began = time.perf_counter()
            found = segment(*asked)
            into.append(time.perf_counter() - began)
            return found

        segmenter.segment = timed  # type: ignore[assignment, method-assign]
        taken = in_turn({OURS: lambda: ours.score_frame(rows, params)}, max(turns, 20), warm=False)[OURS]  # noqa: B023
        spent = [request - decoder for request, decoder in zip(taken, decoding, strict=True)]
        floor = least(name, moved=len(data) + SIZE[0] * SIZE[1])  # the request's text, and a byte a pixel of the mask
        yield Result("parsing and rendering", name, {OURS: spent}, floor=floor)


CASES: dict[str, tuple[Callable[[list[str], int], Iterator[Result]], tuple[str, ...]]] = {
    "encode": (encode, (*subjects.EMBEDDED, *subjects.DRAWN)),
    "precision": (precision, (*subjects.EMBEDDED, *subjects.DRAWN)),
    "memory": (memory, ("vit-b",)),
    "decode": (decode, ("sam-tiny", "vit-b", "sam2-base-plus")),
    "request": (request, ("sam-tiny", "vit-b")),
    "png": (rendered("png"), ("vit-b",)),
    "rle": (rendered("rle"), ("vit-b",)),
    "everything": (automatic, ("sam-tiny",)),
    "load": (load, ("sam-tiny", "vit-l")),
    "overhead": (overhead, ("sam-tiny",)),
}
