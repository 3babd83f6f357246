"""Track the objects of one video step by step: prompts may be added at any time, in both directions of time."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from threading import Lock

import numpy as np

from ..call import Call
from ..embeddings import EmbeddingCache
from ..errors import BadParameter
from ..segmenter import Embedding, Segmenter
from ..video import Video
from ..video.values import BACKWARD_BYTES
from .passes import Prompts, TrackingPass
from .values import TrackedFrame, TrackPrompt
from .ways import Tracker

FORWARD, BACKWARD, BOTH = DIRECTIONS = ("forward", "backward", "both")
PIXEL_BYTES = 40  # memory per pixel of a frame: reference frames of the decoder in YUV, the RGB frame and its copies


@dataclass(frozen=True)
class TimedFrame:
    """A tracked frame.

    Attributes:
        tracked: the objects of the frame.
        seconds: time from the start of the video at which the frame is shown.
    """

    tracked: TrackedFrame
    seconds: float


def check_direction(direction: str) -> None:
    """Raise BadParameter if a direction is none of DIRECTIONS."""
    if direction not in DIRECTIONS:
        raise BadParameter(f"direction: expected one of {', '.join(DIRECTIONS)}")


def first_prompts(prompts: Prompts) -> dict[tuple[int, int], TrackPrompt]:
    """Return the first prompt of each object."""
    first: dict[int, int] = {}
    for frame, number in prompts:
        first[number] = min(frame, first.get(number, frame))
    return {(frame, number): prompts[frame, number] for number, frame in first.items()}


def embed_frame(segmenter: Segmenter, frame: int, pixels: np.ndarray, call: Call) -> Embedding:
    """Encode a frame, without a cache."""
    return segmenter.embed([pixels], call)[0]


def cached_frames(cache: EmbeddingCache, identity: str) -> Callable[[Segmenter, int, np.ndarray, Call], Embedding]:
    """Return a function like `embed_frame` that caches the embeddings of a video in memory.

    Args:
        cache: the cache of an engine.
        identity: `identity` of the video.
    """
    known = cache.in_memory()

    def embed(segmenter: Segmenter, frame: int, pixels: np.ndarray, call: Call) -> Embedding:
        return known.get(f"{identity} {frame}", lambda: embed_frame(segmenter, frame, pixels, call))

    return embed


class TrackingSession:
    """The prompts of a video, and what was tracked so far.

    FORWARD tracks each object from its first prompt to the end of the video, and BACKWARD from its last prompt to frame
    0. BOTH tracks forward, and then each object from its first prompt to frame 0. Each of these passes has a state of
    its own.

    Prompts may be added at any time. If they are on a frame that a pass has tracked already, the pass goes back to this
    frame. For this, the session can keep the states after the last frames. If the frame is not among them, the pass
    begins anew.

    Args:
        tracker: the model and the way to track.
        video: the video.
        keep: called with a number of bytes before the session keeps so many more.
        rewinds: whether the session keeps the states after the last frames.
        embed: returns the embedding of a frame, as `embed_frame`.

    Example:
        >>> from PIL import Image
        >>> from sam_endpoint.model.call import UNTRACKED
        >>> from sam_endpoint.model.tracking.ways import tracker_for
        >>> from sam_endpoint.model.video import open_video
        >>> import io
        >>> buffer, frames = io.BytesIO(), [Image.new("RGB", (60, 40), (step, 0, 0)) for step in (0, 90, 200)]
        >>> frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
        >>> tracker = tracker_for(Segmenter.load("checkpoints/sam-tiny", "cpu"))
        >>> session = TrackingSession(tracker, open_video(buffer.getvalue()))
        >>> session.add([TrackPrompt(1, 1, box=np.array([10, 10, 30, 30], np.float32))])
        1
        >>> [frame.tracked.frame for frame in session.run(BACKWARD, UNTRACKED)]
        [1, 0]
    """

    def __init__(
        self,
        tracker: Tracker,
        video: Video,
        keep: Callable[[int], None] = lambda nbytes: None,
        rewinds: bool = False,
        embed: Callable[[Segmenter, int, np.ndarray, Call], Embedding] = embed_frame,
    ) -> None:
        self.tracker, self.video = tracker, video
        self._keep, self._kept, self._embed = keep, 0, embed
        self._prompts: dict[tuple[int, int], TrackPrompt] = {}
        self._version = 0  # counts the calls of `add`
        self._lock = Lock()
        self._forward, self._backward, self._before = (TrackingPass(tracker, step, rewinds) for step in (1, -1, -1))

    @property
    def objects(self) -> set[int]:
        """The numbers of the prompted objects."""
        with self._lock:
            return {number for _, number in self._prompts}

    def add(self, prompts: Iterable[TrackPrompt]) -> int:
        """Add prompts, also while `run` is in progress. A prompt replaces an earlier one for its frame and object.

        Returns:
            The number of all prompts.
        """
        with self._lock:
            self._prompts.update({(prompt.frame, prompt.object): prompt for prompt in prompts})
            self._version += 1
            count = len(self._prompts)
        self._count_bytes()
        return count

    def run(
        self, direction: str, call: Call, count: int | None = None, start: int | None = None
    ) -> Iterator[TimedFrame]:
        """Track the frames whose answer is not known yet.

        Args:
            direction: one of DIRECTIONS.
            call: context of the request, whose time limit begins anew with each frame.
            count: number of frames after which to stop; None for no limit.
            start: frame from which to track again even if its answer is known.

        Yields:
            The tracked frames. A frame is yielded again if new prompts can change its answer.

        Raises:
            BadParameter: the direction is unknown.
            BadInput: there are no prompts.
            BadFrame: a frame or a prompt cannot be tracked. What was tracked before is kept.
            Overloaded, DeadlineExceeded, ClientDisconnected: as `Segmenter.embed`.
        """
        check_direction(direction)
        passes = {FORWARD: [self._forward], BACKWARD: [self._backward], BOTH: [self._forward, self._before]}
        for way in passes[direction]:
            if count == 0:
                return
            with closing(self._track(way, call, start)) as frames:
                for frame in frames:
                    if way is self._before:
                        frame = self._without_later(frame)
                        if not frame.tracked.objects:
                            continue
                    yield frame
                    count = None if count is None else count - 1
                    if count == 0:
                        return

    def _without_later(self, frame: TimedFrame) -> TimedFrame:
        """Return a frame of the second pass of BOTH without the objects that the first pass tracks."""
        tracked = frame.tracked
        with self._lock:
            first = {number: number_of_frame for number_of_frame, number in first_prompts(self._prompts)}
        objects = [thing for thing in tracked.objects if tracked.frame < first[thing.object]]
        return TimedFrame(TrackedFrame(tracked.frame, tracked.size, objects), frame.seconds)

    def _track(self, way: TrackingPass, call: Call, start: int | None) -> Generator[TimedFrame]:
        height, width = self.video.size
        group = 0 if way.step > 0 else min(BACKWARD_BYTES, 3 * height * width * self.video.count)
        with call.hold(PIXEL_BYTES * height * width + 2 * self.tracker.features_nbytes + group):
            while True:
                with self._lock:
                    version = self._version
                    prompts = first_prompts(self._prompts) if way is self._before else dict(self._prompts)
                first, start = way.rewind(prompts, start), None
                if first is None:
                    return
                with closing(self._embedded(way, first, call)) as frames:
                    head = next(frames, None)
                    if head is None and not way.is_new:  # the last tracked frame was the last of the video
                        way.done = True
                        return
                    numbered = frames if head is None else chain([head], frames)
                    for tracked in self.tracker.track(numbered, way.marked_prompts(), way.state, call):
                        way.remember(tracked.frame)
                        self._count_bytes()
                        call.restart()
                        yield TimedFrame(tracked, way.seconds)
                        if version != self._version:
                            break
                    else:
                        way.done = True
                        return

    def _embedded(self, way: TrackingPass, first: int, call: Call) -> Generator[tuple[int, Embedding]]:
        """Yield the number and the embedding of each frame from `first` on. A frame is decoded in a turn."""
        source = self.video.frames(first) if way.step > 0 else self.video.backward(first)
        with closing(source) as frames:
            while True:
                with call.stage("decode"):
                    frame = next(frames, None)
                if frame is None:
                    return
                with call.stage("encode"):
                    embedding = self._embed(self.tracker.segmenter, frame.number, frame.pixels, call)
                way.seconds = frame.seconds
                yield frame.number, embedding

    def _count_bytes(self) -> None:
        with self._lock:
            nbytes = sum(way.nbytes for way in (self._forward, self._backward, self._before))
            nbytes += sum(prompt.mask.nbytes for prompt in self._prompts.values() if prompt.mask is not None)
            more = max(0, nbytes - self._kept)
            self._kept += more
        try:
            self._keep(more)
        except BaseException:
            with self._lock:
                self._kept -= more
            raise
