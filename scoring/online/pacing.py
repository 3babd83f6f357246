"""Let some connections of an event loop wait while the loop is busy, and the loop rest while a model computes."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections import deque
from collections.abc import Callable

from uvicorn.protocols.http.flow_control import FlowControl

MAX_BUSY = 1 / 2  # share of its time for which an event loop may be busy before such connections wait
REST = 2  # seconds of rest of an event loop for each second in which it is busy while a model computes
MIN_WAIT, MAX_WAIT = 0.001, 0.01  # seconds for which they wait; the event loop rounds times up to milliseconds


class Pacer:
    """Leaves a share of an event loop's time to other work.

    Work that can wait, such as accepting a connection, asks the pacer how long it should wait. It waits only while the
    event loop is busy for more than `MAX_BUSY` of the time.

    Args:
        clock: returns a time in seconds.
        busy_clock: returns for how many seconds the thread of the event loop was busy.

    Example:
        >>> pacer = Pacer(iter((0.0, 0.004)).__next__, iter((0.0, 0.004)).__next__)
        >>> pacer.seconds()  # after 4 ms, in which the event loop was busy all the time
        0.004
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, busy_clock: Callable[[], float] = time.thread_time
    ) -> None:
        self._clock, self._busy_clock = clock, busy_clock
        self._time, self._busy = clock(), busy_clock()

    def start(self) -> None:
        """Start to measure anew, after waiting. Call this method in the thread of the event loop."""
        self._time, self._busy = self._clock(), self._busy_clock()

    def seconds(self) -> float:
        """Return for how many seconds the next piece of work should wait: 0, or `MIN_WAIT` to `MAX_WAIT`.

        Call this method in the thread of the event loop, and `start` after waiting.
        """
        now, busy = self._clock(), self._busy_clock()
        missing = (busy - self._busy) / MAX_BUSY - (now - self._time)
        if missing <= 0:
            self._time, self._busy = now, busy
        return min(missing, MAX_WAIT) if missing >= MIN_WAIT else 0


class RestingSelector(selectors.DefaultSelector):
    """The selector of an event loop that rests while a model computes.

    A model releases Python's global lock during each of its operators, several hundred times in a request, and then
    waits for the threads that run Python. If the event loop were always busy, a click would take four times as long.

    Args:
        is_computing: returns whether a model computes.
        sleep: waits for some seconds.
        busy_clock: returns for how many seconds the thread of the event loop was busy.
    """

    def __init__(
        self,
        is_computing: Callable[[], bool],
        sleep: Callable[[float], None] = time.sleep,
        busy_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        super().__init__()
        self._is_computing, self._sleep, self._busy_clock = is_computing, sleep, busy_clock
        self._tired, self._since = 0.0, busy_clock()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Rest for `REST` times as long as the event loop was busy, if a model computes. Then return what is ready."""
        self._tired = self._tired + self._busy_clock() - self._since if self._is_computing() else 0.0
        if self._tired * REST >= MIN_WAIT:
            self._sleep(min(self._tired * REST, MAX_WAIT))
            self._tired = 0.0
        ready = super().select(timeout)
        self._since = self._busy_clock()
        return ready


def new_event_loop(is_computing: Callable[[], bool]) -> asyncio.AbstractEventLoop:
    """Return an event loop that rests while a model computes."""
    return asyncio.SelectorEventLoop(RestingSelector(is_computing))


class TurnFlow(FlowControl):
    """uvicorn's flow control of a connection that also stops to read while it waits for its turn."""

    is_held = False

    def hold(self) -> None:
        """Stop to read until `release`."""
        self.is_held = True
        self._transport.pause_reading()

    def release(self) -> None:
        """End `hold`."""
        self.is_held = False
        if not self.read_paused:
            self._transport.resume_reading()

    def resume_reading(self) -> None:
        """Read again, unless the connection waits for its turn."""
        if self.is_held:
            self.read_paused = False
        else:
            super().resume_reading()


class ReadTurns:
    """Lets connections read one after the other, and not while the event loop is too busy."""

    def __init__(self) -> None:
        self._waiting: deque[TurnFlow] = deque()
        self._pacer = Pacer()

    def wait(self, flow: TurnFlow, loop: asyncio.AbstractEventLoop) -> None:
        """Stop to read from a connection until it is its turn.

        Args:
            flow: flow control of the connection.
            loop: the event loop, in whose thread this method is called.
        """
        flow.hold()
        self._waiting.append(flow)
        if len(self._waiting) == 1:
            self._schedule(loop)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if seconds := self._pacer.seconds():
            loop.call_later(seconds, self._read_next, loop, True)
        else:
            loop.call_soon(self._read_next, loop)

    def _read_next(self, loop: asyncio.AbstractEventLoop, waited: bool = False) -> None:
        """Let the next waiting connection read."""
        if waited:
            self._pacer.start()
        self._waiting.popleft().release()
        if self._waiting:
            self._schedule(loop)
