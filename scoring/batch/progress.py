"""Progress of a long command: a bar on a terminal, elsewhere a line every half minute, for logs."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Collection, Iterator
from types import TracebackType
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
SECONDS = 30.0


class Progress:
    """Shows on stderr how many of a command's items are done, at which rate, and how long the others will take.

    Use it as a context manager.

    Args:
        doing: what the command does, such as "scoring".
        unit: what an item is, such as "row".
        total: number of items, if known.
        seconds: interval of the lines where there is no terminal.

    Attributes:
        total: number of items, if known; an estimate may change.
    """

    def __init__(self, doing: str, unit: str, total: int | None = None, seconds: float = SECONDS) -> None:
        self.total = total
        self._doing, self._unit, self._seconds = doing, unit, seconds
        self._counts: dict[str, int] = {}
        self._done = self._skipped = 0
        self._started = time.monotonic()
        self._bar = tqdm(total=total, unit=unit, desc=doing, disable=None, smoothing=0.05)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write_lines, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        if self._bar.disable:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._bar.close()

    def add(self, items: int = 1, skipped: bool = False, **counts: int) -> None:
        """Count items as done.

        Args:
            items: how many.
            skipped: whether an earlier run did them, so that they say nothing about the rate.
            **counts: totals to show beside the items, such as `images`.
        """
        self._done += items
        self._skipped += items if skipped else 0
        self._counts = counts
        self._bar.total = self.total
        self._bar.set_postfix(counts, refresh=False)
        self._bar.update(items)

    def line(self) -> str:
        """Return the state in a line."""
        seconds = time.monotonic() - self._started
        rate = (self._done - self._skipped) / seconds if seconds > 0 else 0.0
        of = f" of {self.total}" if self.total else ""
        counts = "".join(f", {count} {name}" for name, count in self._counts.items())
        left = f", {_duration((self.total - self._done) / rate)} left" if self.total and rate else ""
        return f"{self._doing}: {self._done}{of} {self._unit}s{counts}, {rate:.3g} {self._unit}s/s{left}"

    def _write_lines(self) -> None:
        while not self._stop.wait(self._seconds):
            print(self.line(), file=sys.stderr, flush=True)


def tracked(items: Collection[Item], doing: str, unit: str) -> Iterator[Item]:
    """Yield items, and show the progress through them."""
    with Progress(doing, unit, len(items)) as progress:
        for item in items:
            yield item
            progress.add()


def _duration(seconds: float) -> str:
    seconds = max(0.0, seconds)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
