"""Benchmark case: automatic mask generation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks import subjects
from benchmarks.limits import lower_bound
from benchmarks.measure import BASELINE, EAGER, OURS, Result, Ways, measure_alternately
from benchmarks.plain import Plain
from benchmarks.subjects import SIZE
from sam_endpoint.model import masks
from sam_endpoint.model.call import UNTRACKED, Call
from sam_endpoint.model.everything import Grid
from sam_endpoint.model.everything import everything as segment_everything
from sam_endpoint.model.prompts import Prompt
from sam_endpoint.model.segmenter import Embedding, Segmentation, Segmenter


def everything(name: str, turns: int) -> Iterator[Result]:
    """Segment everything in a 1-megapixel image with 32 x 32 points. Both implementations use the same filters."""
    ours = subjects.load(name)
    plain = _PlainSegmenter(Plain(subjects.checkpoint(name)), ours)
    eager = _PlainSegmenter(Plain(subjects.checkpoint(name), "eager"), ours)
    image = subjects.photograph(*SIZE)
    grid = Grid(pred_iou_thresh=0.7, stability_score_thresh=0.85)

    def count_objects(segmenter: Segmenter) -> int:
        (embedding,) = segmenter.embed([image])
        return len(segment_everything(segmenter, embedding, lambda box: embedding, grid))  # `crop` is never called

    ways: Ways = {
        BASELINE: lambda: count_objects(plain),
        EAGER: lambda: count_objects(eager),
        OURS: lambda: count_objects(ours),
    }
    floor = lower_bound(name, images=1, prompts=grid.points_per_side**2)
    note = ", ".join(f"{way}: {run()} masks" for way, run in ways.items())
    times = measure_alternately(ways, turns, warm=False)
    yield Result("everything, 32 x 32 points", name, times, floor=floor, note=note)


class _PlainSegmenter(Segmenter):
    """Plain transformers with the interface of Segmenter.

    It decodes 64 points at a time, and upscales every mask to the size of the whole image.
    """

    def __init__(self, plain: Plain, ours: Segmenter) -> None:
        super().__init__(ours.family, "plain")
        self.plain = plain

    def embed(self, images: Sequence[np.ndarray], call: Call = UNTRACKED) -> list[Embedding]:
        features = self.plain.embed(self.family.preprocess(images[0])[None])
        maps = tuple(features) if isinstance(features, (list, tuple)) else (features,)
        return [Embedding(maps, images[0].shape[:2], "plain")]

    @torch.no_grad()
    def segment(
        self,
        embedding: Embedding,
        prompts: Sequence[Prompt],
        multimask_output: bool = True,
        min_score: float = -math.inf,
        call: Call = UNTRACKED,
    ) -> list[Segmentation]:
        points = np.stack([prompt.points for prompt in prompts if prompt.points is not None])
        scaled = torch.tensor(points * self.family.scale(embedding.size), dtype=torch.float32)[None]
        features: Any = embedding.features[0] if self.plain.is_sam else list(embedding.features)
        outputs = self.plain.model(image_embeddings=features, input_points=scaled)
        pairs = zip(outputs.pred_masks[0], outputs.iou_scores[0].numpy(), strict=True)
        return [Segmentation(logits, scores, embedding.size) for logits, scores in pairs]

    def stable_masks(
        self, logits: Sequence[torch.Tensor], size: tuple[int, int], offset: float
    ) -> Iterator[tuple[masks.CroppedMask, float]]:
        for own in logits:
            full = self.family.upscale(own[None], size)[0]
            stability = (full > offset).sum() / (full > -offset).sum().clamp(min=1)
            yield masks.CroppedMask((full > 0).numpy(), 0, 0, size), float(stability)
