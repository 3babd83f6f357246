"""Track the objects of one video, and write the records in parts, so that a killed job continues where it stopped.

A part holds the records of a fixed number of frames. Before a part is written, the state of the tracker after its last
frame is saved in a hidden file of the folder of parts. A new run continues from the last part with a state.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from sam_endpoint.model.call import UNTRACKED
from sam_endpoint.model.errors import BadFrame
from sam_endpoint.model.tracking import TrackedFrame, TrackPrompt
from sam_endpoint.model.tracking.records import TrackRecord, track_records
from sam_endpoint.model.tracking.session import BACKWARD, BOTH, FORWARD, first_prompts
from sam_endpoint.model.tracking.ways import State, Tracker
from sam_endpoint.model.video import Video, VideoFrame, prefetched
from sam_endpoint.scoring.batch.parts import Parts
from sam_endpoint.scoring.batch.progress import Progress

SCHEMA = pa.schema(
    {
        "frame": pa.int64(),
        "object": pa.int64(),
        "encoded_binary_mask": pa.string(),
        "size": pa.list_(pa.int64()),
        "bbox": pa.list_(pa.float64()),
        "area": pa.int64(),
        "score": pa.float64(),
    }
)
FRAMES_PER_PART = 32


@dataclass
class TrackSummary:
    """Statistics of a job.

    Attributes:
        frames: number of the frames from frame 0 to the last tracked frame.
        earlier: number of frames that earlier runs tracked.
        objects: number of objects.
        visible: number of records with a mask that is not empty.
        error: why the video could not be tracked to its end; empty if it was.
    """

    frames: int = 0
    earlier: int = 0
    objects: int = 0
    visible: int = 0
    error: str = ""


def run(
    tracker: Tracker,
    video: Video,
    prompts: Sequence[TrackPrompt],
    parts: Parts,
    frames_per_part: int = FRAMES_PER_PART,
    direction: str = FORWARD,
) -> TrackSummary:
    """Track the objects of a video.

    Frames that an earlier run of the same job wrote are not tracked again. If a frame cannot be decoded or tracked, the
    output has the frames before it, and the summary has the error.

    Args:
        tracker: the way to track.
        video: the video.
        prompts: the prompts of all objects.
        parts: the output, in a folder on this machine.
        frames_per_part: number of frames in a part.
        direction: FORWARD, BACKWARD or BOTH, as for `TrackingSession`.

    Returns:
        Statistics of the whole job, including earlier runs.

    Raises:
        Overloaded: memory is too short. The output so far is kept.
        OSError: the output cannot be written.
    """
    states, passes = _States(Path(parts.folder), tracker), _passes(video, prompts, direction)
    number, state, notes = _resume(parts, states)
    summary = TrackSummary(objects=len({prompt.object for prompt in prompts}))
    done = Counter({index: 0 for index in range(len(passes))})  # frames of each pass
    for note in notes:
        done[note["pass"]] += note["frames"]
        summary.visible += note["visible"]
        summary.error = note["error"]
    summary.earlier = done.total()
    records: list[TrackRecord] = []
    pending = 0  # frames of the part that is not written yet

    def write(index: int) -> None:
        nonlocal number, pending
        if not pending:
            return
        visible = sum(record["area"] > 0 for record in records)
        digest = states.save(number, state)
        noted = {"frames": pending, "visible": visible, "state": digest, "pass": index, "error": summary.error}
        parts.put(number, to_table(records), noted)
        states.keep_from(number - 1)
        done[index] += pending
        summary.visible += visible
        number, pending = number + 1, 0
        records.clear()

    with Progress("tracking", "frame", sum(way.count for way in passes)) as progress:
        progress.add(summary.earlier, skipped=True, objects=summary.objects)
        current = notes[-1]["pass"] if notes else 0
        for index, way in enumerate(passes[current:], current):
            if index > current:
                state = states.new()
            problem = ""
            frames = prefetched(way.frames(done[index]), video.size)
            try:
                with closing(frames):
                    for tracked in _track(tracker, frames, way.prompts, state):
                        found = track_records(tracker.segmenter, tracked)
                        records += [record for record in found if way.has(record)]
                        pending += 1
                        progress.add(1, objects=summary.objects)
                        if pending == frames_per_part:
                            write(index)
            except BadFrame as error:
                problem = str(error)
            write(index)
            summary.error = summary.error or problem
    reached = [way.count for index, way in enumerate(passes) if done[index] and way.is_backward]
    summary.frames = max([0 if passes[0].is_backward else done[0], *reached])
    late = [prompt for prompt in prompts if prompt.frame >= summary.frames]
    if late and not summary.error and direction != BACKWARD:
        expected = f"a frame of the video, 0 to {summary.frames - 1}"
        summary.error = str(BadFrame("prompts", expected, "a prompt after its end", frame=late[0].frame))
    if number:
        # Without `earlier`, so that the output does not depend on how often the job was stopped.
        notes_of_job = {name: value for name, value in vars(summary).items() if name != "earlier"}
        parts.finish(number, notes_of_job, sort_by=() if direction == FORWARD else ("frame", "object"))
    return summary


@dataclass(frozen=True)
class _Pass:
    """One direction of a job.

    Attributes:
        is_backward: whether the frames are tracked in descending order.
        count: expected number of frames.
        frames: returns the frames after a number of frames.
        prompts: the prompts of this direction.
        has: returns whether a record belongs to the output.
    """

    is_backward: bool
    count: int
    frames: Callable[[int], Iterator[VideoFrame]]
    prompts: Sequence[TrackPrompt]
    has: Callable[[TrackRecord], bool]


def _passes(video: Video, prompts: Sequence[TrackPrompt], direction: str) -> list[_Pass]:
    """Return the passes of a direction. The second pass of BOTH tracks the frames before the objects' first prompts."""
    forward = _Pass(False, video.count, video.frames, prompts, lambda record: True)
    if direction == FORWARD:
        return [forward]
    if direction == BOTH:
        prompts = list(first_prompts({(prompt.frame, prompt.object): prompt for prompt in prompts}).values())
    last = max(prompt.frame for prompt in prompts)
    first = {prompt.object: prompt.frame for prompt in prompts}
    backward = _Pass(True, last + 1, lambda done: video.backward(last - done), prompts, lambda record: True)
    if direction == BACKWARD:
        return [backward]
    return [forward, replace(backward, has=lambda record: record["frame"] < first[record["object"]])]


def _track(
    tracker: Tracker, frames: Iterator[VideoFrame], prompts: Sequence[TrackPrompt], state: State
) -> Iterator[TrackedFrame]:
    """Track the frames; none if an earlier run has tracked them all."""
    first = next(frames, None)
    if first is not None:
        numbered = ((frame.number, frame.pixels) for frame in chain([first], frames))
        yield from tracker.track(numbered, prompts, state, UNTRACKED)


def to_table(records: Sequence[TrackRecord]) -> pa.Table:
    """Convert records to a table with the columns of SCHEMA."""
    return pa.Table.from_pylist([dict(record) for record in records], SCHEMA)


def describe_prompts(prompts: Sequence[TrackPrompt]) -> str:
    """Return a hash of prompts, which differs between prompts with other results."""
    digest = hashlib.sha256()
    for prompt in prompts:
        parts = (prompt.points, prompt.labels, prompt.box, prompt.mask)
        listed = [None if part is None else (part.shape, part.dtype.str) for part in parts]
        digest.update(json.dumps([prompt.frame, prompt.object, listed]).encode())
        for part in parts:
            digest.update(b"" if part is None else part.tobytes())
    return digest.hexdigest()


class _States:
    """The saved states of a tracker, one hidden file per part."""

    def __init__(self, folder: Path, tracker: Tracker) -> None:
        self._folder, self._tracker = folder, tracker

    def _file(self, number: int) -> Path:
        return self._folder / f".state-{number:06d}.safetensors"

    def new(self) -> Any:
        """Return the state before the first frame."""
        return self._tracker.new_state()

    def save(self, number: int, state: State) -> str:
        """Save the state after a part, and return its hash. The file is complete or missing, never partial."""
        unfinished = self._folder / ".state.unfinished"
        state.save(unfinished)
        digest = hashlib.sha256(unfinished.read_bytes()).hexdigest()
        unfinished.replace(self._file(number))
        return digest

    def load(self, number: int, digest: str) -> Any:
        """Return the state after a part, or None if the file is missing or was changed."""
        file = self._file(number)
        try:
            if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
                return None
            return self._tracker.load_state(file)
        except OSError:
            return None

    def keep_from(self, number: int) -> None:
        """Delete the states of the parts before a part."""
        for file in self._folder.glob(".state-*.safetensors"):
            if file.name < self._file(number).name:
                with suppress(OSError):
                    file.unlink()


def _resume(parts: Parts, states: _States) -> tuple[int, Any, list[dict[str, Any]]]:
    """Find where to continue.

    Returns:
        The number of the next part, the state before it, and the summaries of the parts before it.
    """
    notes: list[dict[str, Any]] = []
    while (note := parts.summary_of_part(len(notes))) is not None:
        notes.append(note)
    while notes:
        state = states.load(len(notes) - 1, notes[-1]["state"])
        if state is not None:
            return len(notes), state, notes
        notes.pop()
    return 0, states.new(), []
