"""Benchmark cases of tracking: a frame of a video with one object and with eight, and transformers' session."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Sam2VideoConfig, Sam2VideoModel
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

from benchmarks import subjects
from benchmarks.measure import BASELINE, DEFAULT_ATTENTION, EAGER, OURS, Cases, Result
from sam_endpoint.model import families
from sam_endpoint.model.families import meta
from sam_endpoint.model.segmenter import Segmenter
from sam_endpoint.model.tracking import TrackPrompt

SIZE = (480, 640)  # (height, width) of the frames
WARM = 8  # frames before the first measured frame; the model then looks at all memories that it may look at
SHAPES = {  # layers of the encoder as in Meta's hiera tiny; side of the input
    "sam2-hiera-tiny": 1024,
    "sam2-hiera-tiny-448": 448,  # about as many tokens as the embedded sam2-tiny has in its memories
}


@cache
def checkpoint(name: str) -> Path:
    """Return the folder of a random checkpoint. The first call creates it."""
    folder = subjects.FOLDER / f"{name}-video"
    if not (folder / "preprocessor_config.json").exists():
        side = SHAPES[name]
        vision: Any = meta.sam2_config(96, *meta.SAM2_SIZES[96, 12]).vision_config
        vision.backbone_config.image_size = [side, side]
        vision.backbone_feature_sizes = [[side // step, side // step] for step in (4, 8, 16)]
        config = Sam2VideoConfig(
            vision_config=vision,
            prompt_encoder_config={"image_size": side},
            image_size=side,
            memory_attention_rope_feat_sizes=[side // 16, side // 16],
        )
        torch.manual_seed(0)
        model = Sam2VideoModel(config)
        for parameter in model.parameters():  # some are initialised with zeros or tiny numbers, which are slow
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.02)
        torch.nn.init.normal_(model.shared_image_embedding.positional_embedding)
        families.save(families.wrap(model), folder)
    return folder


def frames() -> Iterator[np.ndarray]:
    """Yield the frames of an endless video: a picture that moves."""
    picture, shift = subjects.picture(*SIZE), 0
    while True:
        yield np.roll(picture, shift, 1)
        shift += 4


def points(objects: int) -> np.ndarray:
    """Return one point per object, (objects, 2) float32 x and y in pixels."""
    rng = np.random.default_rng(2)
    return (rng.random((objects, 2)) * (SIZE[1], SIZE[0])).astype(np.float32)


def ours(segmenter: Segmenter, objects: int) -> Iterator[object]:
    """Track a video with this project."""
    labels = np.ones(1, np.int32)
    prompts = [TrackPrompt(0, i, place[None], labels) for i, place in enumerate(points(objects))]
    yield from segmenter.track(enumerate(frames()), prompts)


def theirs(segmenter: Segmenter, model: Any, objects: int) -> Iterator[object]:
    """Stream a video through transformers' session. The segmenter preprocesses frames, as a processor would."""
    session = Sam2VideoInferenceSession(video_height=SIZE[0], video_width=SIZE[1], dtype=torch.float32)
    scale = torch.tensor(segmenter.family.scale(SIZE))
    for i, place in enumerate(points(objects)):
        coordinates = (torch.from_numpy(place) * scale).view(1, 1, 1, 2)
        inputs = {"point_coords": coordinates, "point_labels": torch.ones(1, 1, 1, dtype=torch.int32)}
        session.add_point_inputs(session.obj_id_to_idx(i), 0, inputs)
    session.obj_with_new_inputs = list(range(objects))
    for number, frame in enumerate(frames()):
        yield model(session, frame_idx=number, frame=segmenter.family.preprocess(frame)[None])
        if session.processed_frames:
            session.processed_frames.pop(number - 1, None)  # else the session keeps every frame


def track(name: str, turns: int) -> Iterator[Result]:
    """Track one object and eight objects. The ways take turns frame by frame."""
    segmenter = Segmenter.load(str(checkpoint(name)), "cpu")
    models = {
        way: Sam2VideoModel.from_pretrained(checkpoint(name), attn_implementation=attention).eval()
        for way, attention in ((BASELINE, DEFAULT_ATTENTION), (EAGER, "eager"))
    }
    for objects in (1, 8):
        ways = {way: theirs(segmenter, model, objects) for way, model in models.items()}
        ways[OURS] = ours(segmenter, objects)
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(-WARM, turns):
            for way, video in ways.items():
                started = time.perf_counter()
                next(video)
                if turn >= 0:
                    seconds[way].append(time.perf_counter() - started)
        yield Result(f"track {objects} object{'s' * (objects > 1)}, a frame", name, seconds)


CASES: Cases = {"track": (track, ("sam2-hiera-tiny-448", "sam2-hiera-tiny"))}
