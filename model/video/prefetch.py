"""Decode frames ahead in a thread, while the caller works on earlier frames."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from queue import Full, Queue
from threading import Event, Thread

from .values import VideoFrame

AHEAD_BYTES = 64 * 2**20  # of decoded pixels
MAX_AHEAD = 8  # frames
POLL_SECONDS = 0.1  # interval at which a waiting thread checks whether the caller has stopped


def prefetched(frames: Iterator[VideoFrame], size: tuple[int, int]) -> Generator[VideoFrame, None, None]:
    """Yield the frames of an iterator that runs ahead in a thread.

    Args:
        frames: the frames. If the caller closes the returned iterator, the thread stops and closes `frames`.
        size: (height, width) of a frame in pixels. At most MAX_AHEAD frames, and about AHEAD_BYTES, are kept.

    Yields:
        The frames, in order. An exception of `frames` is raised after the last frame before it.
    """
    ahead = max(1, min(MAX_AHEAD, AHEAD_BYTES // (3 * size[0] * size[1])))
    queue: Queue[VideoFrame | BaseException | None] = Queue(ahead)
    stopped = Event()

    def put(item: VideoFrame | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                queue.put(item, timeout=POLL_SECONDS)
                return True
            except Full:
                continue
        return False

    def decode() -> None:
        try:
            for frame in frames:
                if not put(frame):
                    break
            put(None)
        except BaseException as error:  # raised again in the caller's thread
            put(error)
        finally:
            getattr(frames, "close", lambda: None)()

    thread = Thread(target=decode, name="video frames", daemon=True)
    thread.start()
    try:
        while (item := queue.get()) is not None:
            if isinstance(item, BaseException):
                try:
                    raise item
                finally:
                    del item  # it refers to this frame
            yield item
    finally:
        stopped.set()
        thread.join()
