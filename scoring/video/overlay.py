"""Draw the tracked masks over the frames of a video."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import numpy as np

from sam_endpoint.model.errors import BadFrame
from sam_endpoint.model.tracking import TrackPrompt
from sam_endpoint.model.video import Video, prefetched
from sam_endpoint.scoring.batch.progress import Progress
from sam_endpoint.scoring.overlay import Shown, overlay
from sam_endpoint.scoring.video.tracks import mask_of, read_frames, read_notes
from sam_endpoint.scoring.video.writer import VideoWriter


def write_overlay(video: Video, prompts: Sequence[TrackPrompt], tracks: Path, output: Path) -> None:
    """Write a video with the masks, and on prompted frames the prompts, over its frames. Frames keep their times.

    Args:
        video: the video that was tracked.
        prompts: the prompts.
        tracks: output of the tracking job.
        output: .mp4 or .webm file to write. Larger frames are scaled down to `LARGEST_SIDE` of `overlay`.

    Raises:
        BadData: `tracks` cannot be read.
        BadParameter: the file has another ending.
        OSError: the file cannot be written.
    """
    count = read_notes(tracks)["frames"]
    numbers = sorted({prompt.object for prompt in prompts})
    by_place = {(prompt.frame, prompt.object): prompt for prompt in prompts}
    records = read_frames(tracks)
    tracked = next(records, None)
    writer: VideoWriter | None = None
    frames = prefetched(video.frames(), video.size)
    # A broken frame ends the drawing as it ended the tracking.
    with ExitStack() as stack, closing(frames), Progress("drawing", "frame", count) as progress, suppress(BadFrame):
        for frame in frames:
            if frame.number >= count:
                break
            shown = {number: Shown(np.zeros(video.size, bool), None) for number in numbers}
            if tracked is not None and tracked[0] == frame.number:
                for record in tracked[1]:
                    prompt = by_place.get((frame.number, record["object"]))
                    drawn_prompt = (prompt.box, prompt.points, prompt.labels) if prompt else ()
                    shown[record["object"]] = Shown(mask_of(record), record["score"], *drawn_prompt)
                tracked = next(records, None)
            # The dictionary is in the order of the numbers, so that each object keeps its colour.
            drawn = np.asarray(overlay(frame.pixels, list(shown.values())))
            if writer is None:
                writer = stack.enter_context(VideoWriter(output, (drawn.shape[0], drawn.shape[1])))
            writer.write(drawn, frame.seconds)
            progress.add(1)
