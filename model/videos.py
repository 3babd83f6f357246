"""Score the rows of a table that have a video: track the objects of its prompts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pandas as pd

from . import masks
from .answers import PartialAnswer, mask_answer
from .budget import RequestLimits
from .call import Call
from .engine import Engine
from .errors import BadInput
from .images import ImageReader
from .masks import RunLengths
from .params import Params
from .prompts.cells import is_missing
from .rows import VIDEO_COLUMNS
from .tracking.prompt_list import parse_track_prompts
from .tracking.records import TrackRecord, track_records
from .tracking.session import FORWARD, TrackingSession
from .tracking.ways import tracker_for
from .video import Video, VideoLimits, open_video

MAX_FRAMES = 100_000  # frames of a video, unless the limits of requests say less


def score_videos(
    engine: Engine, limits: RequestLimits, frame: pd.DataFrame, params: Params, call: Call
) -> list[dict[str, Any]]:
    """Track the objects of all videos of a table.

    Args:
        engine: the model, and the reader of the column `video`.
        limits: limits on the number of frames and objects.
        frame: a table with the columns `video` (as the column `image`) and `prompts`.
        params: `mask_encoding` and `on_error` are used.
        call: context of the request. Each frame has its time limit.

    Returns:
        One answer per row: `predictions` with one item per frame and object, `image_id` (None) and `error`. If a frame
        cannot be tracked and `on_error` is `record`, the answer has the frames before it and the error.

    Raises:
        BadInput: a row is bad, and `params.on_error` is `raise`.
        BadData: the package `av` is needed and not installed.
        Overloaded, DeadlineExceeded, ClientDisconnected: as `Scorer.score`.
    """
    answers = []
    cells = [frame[name] if name in frame else [None] * len(frame) for name in VIDEO_COLUMNS]
    for index, video, prompts in zip(frame.index, *cells, strict=True):
        predictions: list[PartialAnswer] = []
        error: str | None = None
        try:
            for record in _track(engine, limits, video, prompts, call):
                predictions.append(_prediction(record, params))
                call.count_answer(len(predictions[-1]["mask_per_prediction"][0]["encoded_binary_mask"]))
        except BadInput as problem:
            placed = problem.at(index)
            if params.on_error == "raise":
                raise placed from None
            error = str(placed)
        answers.append({"predictions": predictions, "image_id": None, "error": error})
    return answers


def _track(engine: Engine, limits: RequestLimits, cell: Any, prompts: Any, call: Call) -> Iterator[TrackRecord]:
    video = _open(engine, limits, cell, call)
    session = TrackingSession(tracker_for(engine.segmenter), video, call.keep)
    session.add(parse_track_prompts(prompts, video.size, video.count, limits.prompts, call=call))
    limits.check_objects(len(session.objects))
    for frame in session.run(FORWARD, call):
        yield from track_records(session.tracker.segmenter, frame.tracked, call)


def _open(engine: Engine, limits: RequestLimits, cell: Any, call: Call) -> Video:
    """Open the video of a cell. A local path, where paths are accepted, may be a folder of frames."""
    images = engine.images.limits
    most = VideoLimits(images.max_pixels, images.max_side, limits.frames or MAX_FRAMES, images.max_bytes)
    if is_missing(cell):
        raise BadInput("video", "base64 text, an http(s) URL or bytes of a video", "nothing")
    reader = ImageReader(images)
    try:
        ref = reader.reference(cell)
        source: str | bytes = str(ref.value)
        if ref.kind != "path" or not os.path.exists(source):
            with call.stage("fetch"):
                source = reader.read(ref, call)
    except BadInput as error:
        raise BadInput("video", error.expected.replace("image", "video"), error.got.replace("image", "video")) from None
    with call.stage("decode"):
        return open_video(source, most)


def _prediction(record: TrackRecord, params: Params) -> PartialAnswer:
    rle: RunLengths = {"size": record["size"], "counts": record["encoded_binary_mask"].encode("ascii")}
    mask = mask_answer(masks.encode_rle(rle, params.mask_encoding), record["score"], None, params)
    return PartialAnswer(frame=record["frame"], object=record["object"], mask_per_prediction=[mask])
