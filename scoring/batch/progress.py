"""Show the progress of a long command: a bar on a terminal, or a line every 30 seconds in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Collection, Iterator
from types import TracebackType
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
SECONDS = 30.0  # between lines in a log


class Progress:
    """Progress of a command, printed to stderr: the number of finished items, the rate and the remaining time.

    Use it as a context manager.

    Args:
        activity: the activity in the output, such as "scoring".
        unit: name of an item, such as "row".
        total: number of items, or None if unknown.
        seconds: interval between lines if stderr is not a terminal.

    Attributes:
        total: number of items, or None if unknown. The caller may change it to a better estimate.

    Example:
        >>> progress = Progress("scoring", "row", total=8)
        >>> progress.add(2, images=1)
        >>> progress.line()  # doctest: +ELLIPSIS
        'scoring: 2 of 8 rows, 1 images, ... rows/s, ... left'
    """

    def __init__(self, activity: str, unit: str, total: int | None = None, seconds: float = SECONDS) -> None:
        self.total = total
        self._activity, self._unit, self._seconds = activity, unit, seconds
        self._counts: dict[str, int] = {}
        self._done = self._skipped = 0
        self._started = time.monotonic()
        self._bar = tqdm(total=total, unit=unit, desc=activity, disable=None, smoothing=0.05)
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
        """Count finished items.

        Args:
            items: number of items.
            skipped: whether an earlier run finished the items. Skipped items do not count for the rate.
            **counts: further totals to print, such as `images`.
        """
        self._done += items
        self._skipped += items if skipped else 0
        self._counts = counts
        self._bar.total = self.total
        self._bar.set_postfix(counts, refresh=False)
        self._bar.update(items)

    def line(self) -> str:
        """Return the progress as a line of text."""
        seconds = time.monotonic() - self._started
        rate = (self._done - self._skipped) / seconds if seconds > 0 else 0.0
        of = f" of {self.total}" if self.total else ""
        counts = "".join(f", {count} {name}" for name, count in self._counts.items())
        remaining = f", {_duration((self.total - self._done) / rate)} left" if self.total and rate else ""
        return f"{self._activity}: {self._done}{of} {self._unit}s{counts}, {rate:.3g} {self._unit}s/s{remaining}"

    def _write_lines(self) -> None:
        while not self._stop.wait(self._seconds):
            print(self.line(), file=sys.stderr, flush=True)


def tracked(items: Collection[Item], activity: str, unit: str) -> Iterator[Item]:
    """Iterate over items and show the progress.

    Args:
        items: the items.
        activity: the activity in the output, such as "drawing".
        unit: name of an item, such as "image".

    Yields:
        The items.
    """
    with Progress(activity, unit, len(items)) as progress:
        for item in items:
            yield item
            progress.add()


def _duration(seconds: float) -> str:
    seconds = max(0.0, seconds)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
