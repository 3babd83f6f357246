"""Run a batch job on one machine.

The job reads its input in windows of a fixed number of rows, and writes the answers to each window as one part.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import pandas as pd
import pyarrow as pa

from sam_endpoint.model.answers import answers_to_frame
from sam_endpoint.model.engine import Engine
from sam_endpoint.model.errors import BadInput, TooManyFailures, UnknownImage
from sam_endpoint.model.images import ImageRef
from sam_endpoint.model.params import Params
from sam_endpoint.model.rows import Row
from sam_endpoint.model.scorer import PROMPTS_AT_ONCE, Answer, Scorer
from sam_endpoint.scoring.batch.answers import ANSWER, NamedImages, join_answers, read_rows
from sam_endpoint.scoring.batch.parts import POSITION, Parts
from sam_endpoint.scoring.batch.prefetch import ImagePrefetcher
from sam_endpoint.scoring.batch.progress import Progress
from sam_endpoint.scoring.batch.sources import Source
from sam_endpoint.scoring.batch.summary import Summary

__all__ = ["Summary", "Window", "run", "score_chunks"]
SAVE_SECONDS = 60.0  # between saves of an unfinished part, so that a killed job loses little work


@dataclass
class Window:
    """The rows of one part of the output.

    Attributes:
        number: number of the part.
        first: number of the first row in the whole input.
        table: the rows of the input.
        rows: the parsed rows. The rows of a finished part are parsed only if later rows can refer to their images by
            `image_id`; otherwise, the list is empty.
        finished: summary of the part if an earlier run finished it, else None.
        answers: answers that an earlier run saved before it stopped, by position of the row in the part.
        seconds: time that the earlier run spent on these answers, by stage, in seconds.
    """

    number: int
    first: int
    table: pa.Table
    rows: list[Row | BadInput]
    finished: dict[str, Any] | None
    answers: dict[int, Answer]
    seconds: Counter[str]

    @property
    def images(self) -> dict[ImageRef, None]:
        """The images of the rows without an answer, in order."""
        rows = (row for position, row in enumerate(self.rows) if position not in self.answers)
        return dict.fromkeys(row.image for row in rows if isinstance(row, Row) and row.image is not None)


def run(
    engine: Engine,
    params: Params,
    source: Source,
    parts: Parts,
    rows_per_part: int = 512,
    error_threshold: int = -1,
    save_seconds: float = SAVE_SECONDS,
) -> Summary:
    """Score the rows of an input. Rows that earlier runs of the same job have scored are skipped.

    Args:
        engine: scores the rows. Background threads read the images before the engine needs them.
        params: the same params for all rows.
        source: the rows.
        parts: the output.
        rows_per_part: number of rows in a part.
        error_threshold: maximum number of failed rows; -1 for no limit. If more rows fail, the job stops and keeps the
            parts that it has written.
        save_seconds: interval between saves of an unfinished part, in seconds.

    Returns:
        Statistics of the whole job, including earlier runs.

    Raises:
        TooManyFailures: more rows failed than `error_threshold` allows.
        BadData: the input cannot be read.
        OSError: the output cannot be written.
    """
    summary, named, count = Summary(), NamedImages(), 0
    with ImagePrefetcher(engine.images) as images, Progress("scoring", "row") as progress:
        scorer = Scorer(engine.with_images(images))
        for window in _windows(source, parts, scorer, params, images, rows_per_part):
            count = window.number + 1
            window.rows = list(named.resolve(window.rows, window.first))
            if source.done:
                progress.total = max(window.first + len(window.table), round(source.rows_read / source.done))
            if window.finished is not None:
                part = window.finished
                progress.add(part["rows"], skipped=True, images=summary.images, failed=summary.failed)
            else:
                work = _WindowScorer(scorer, params, source, parts, images, named, save_seconds)
                part = work.score(window, progress, summary)
            summary.add(part)
            if 0 <= error_threshold < summary.failed:
                raise TooManyFailures(summary.failed, error_threshold)
    started = time.perf_counter()
    parts.finish(count, summary.to_dict())
    summary.seconds["write"] += time.perf_counter() - started
    return summary


def _windows(
    source: Source, parts: Parts, scorer: Scorer, params: Params, images: ImagePrefetcher, rows_per_part: int
) -> Iterator[Window]:
    """Yield the windows of the input.

    Before a window is yielded, the background threads get the images of the next window. They read these images while
    the window is scored.
    """
    previous: Window | None = None
    first = 0
    for number, table in enumerate(source.windows(rows_per_part)):
        window = Window(number, first, table, [], parts.summary_of_part(number), {}, Counter())
        index = range(first, first + len(table))
        if window.finished is None:
            window.answers, window.seconds = parts.pieces(number)
            window.rows = read_rows(scorer, table, index, params)
            images.announce(window.images)
        elif {"image", "image_id"} <= set(table.column_names):
            window.rows = read_rows(scorer, table, index, params)
        first += len(table)
        if previous is not None:
            yield previous
        previous = window
    if previous is not None:
        yield previous


def score_chunks(
    scorer: Scorer, rows: Sequence[Row | BadInput], params: Params, source: Source, named: NamedImages
) -> Iterator[dict[int, Answer]]:
    """Score rows in chunks with a limited number of prompts. The job can save answers between two chunks.

    Args:
        scorer: scores the rows.
        rows: the rows, as returned by `named.resolve`.
        params: params of the rows.
        source: the input. A row with only an `image_id` may refer to an earlier row with the content of the image. If
            the model's cache has evicted the embedding of that image, this function reads the earlier row again.
        named: images of earlier rows by `image_id`.

    Yields:
        For each chunk, the answers by position of the row in `rows`.
    """
    for positions in _chunks(rows):
        reload = cache(partial(_reload_image, scorer, source, named, params))
        members = [
            _with_reloaded_images(row, reload) if isinstance(row, Row) else row
            for row in (rows[position] for position in positions)
        ]
        yield dict(zip(positions, scorer.score(members, params), strict=True))


def _with_reloaded_images(row: Row, reload: Callable[[str], ImageRef | None]) -> Row:
    """Fill in the images that the row names, if they have to be read again."""
    if row.image is None and row.image_id is not None:
        row = replace(row, image=reload(row.image_id))
    if row.examples_image is not None and row.examples_image.kind == "id":
        row = replace(row, examples_image=reload(str(row.examples_image.value)) or row.examples_image)
    return row


def _chunks(rows: Sequence[Row | BadInput]) -> Iterator[list[int]]:
    """Yield the positions of rows that are scored together: rows of one image, with at most PROMPTS_AT_ONCE prompts.

    Rows without prompts request automatic mask generation. All such rows of an image share one answer, so the
    first chunk of the image has all of them.
    """
    members: dict[object, list[int]] = {}
    for position, row in enumerate(rows):
        members.setdefault((row.image or row.image_id) if isinstance(row, Row) else None, []).append(position)
    for positions in members.values():
        chunk: list[int] = []
        prompts = 0
        for count, position in sorted((_count_prompts(rows[position]), position) for position in positions):
            if count and chunk and prompts + count > PROMPTS_AT_ONCE:
                yield chunk
                chunk, prompts = [], 0
            chunk.append(position)
            prompts += count
        yield chunk


def _count_prompts(row: Row | BadInput) -> int:
    return row.prompt_count if isinstance(row, Row) else 0


def _reload_image(scorer: Scorer, source: Source, named: NamedImages, params: Params, image_id: str) -> ImageRef | None:
    """Reload the image that an `image_id` names, from the earlier row that holds its content.

    Returns:
        A reference to the image. None if no row holds it, or the engine's cache certainly has its embedding.
    """
    number = named.row_of(image_id)
    if number is None:
        return None
    if not named.is_repeated(image_id):
        try:
            scorer.engine.find(image_id)
            return None
        except UnknownImage:
            pass
    return scorer.engine.images.reference(source.row(number)["image"], params.upright)


@dataclass(frozen=True)
class _WindowScorer:
    """Scores the rows of windows and writes the answers."""

    scorer: Scorer
    params: Params
    source: Source
    parts: Parts
    images: ImagePrefetcher
    named: NamedImages
    save_seconds: float

    def score(self, window: Window, progress: Progress, summary: Summary) -> dict[str, Any]:
        """Score the rows of a window, write the part, and return the part's summary."""
        answers, unsaved = window.answers, dict[int, Answer]()
        failed = summary.failed + sum(answer["error"] is not None for answer in answers.values())
        image_ids = {answer["image_id"] for answer in answers.values()}
        progress.add(len(answers), skipped=True, images=summary.images + len(image_ids - {None}), failed=failed)
        pending = [position for position in range(len(window.rows)) if position not in answers]
        pending_images = window.images
        stopwatch, saved = _Stopwatch(self.images), time.monotonic()

        def save() -> None:
            window.seconds.update(seconds := stopwatch.lap())
            self.parts.put_piece(window.number, _to_table(unsaved), seconds)

        try:
            rows = [window.rows[position] for position in pending]
            for chunk in score_chunks(self.scorer, rows, self.params, self.source, self.named):
                unsaved.update((pending[place], answer) for place, answer in chunk.items())
                failed += sum(answer["error"] is not None for answer in chunk.values())
                image_ids.update(answer["image_id"] for answer in chunk.values())
                progress.add(len(chunk), images=summary.images + len(image_ids - {None}), failed=failed)
                if time.monotonic() - saved >= self.save_seconds:
                    save()
                    answers.update(unsaved)
                    unsaved, saved = {}, time.monotonic()
        except BaseException:
            if unsaved:
                with suppress(OSError):
                    save()
            raise
        answers.update(unsaved)
        self.images.discard(pending_images)
        window.seconds.update(stopwatch.lap())
        return self._write(window, [answers[position] for position in range(len(window.rows))])

    def _write(self, window: Window, answers: list[Answer]) -> dict[str, Any]:
        started = time.perf_counter()
        part = Summary(seconds=defaultdict(float, window.seconds))
        part.count(answers)
        joined = join_answers(window.table, answers_to_frame(answers, pd.RangeIndex(len(answers)), self.params))
        self.parts.put(window.number, joined, part.to_dict())
        part.seconds["write"] += time.perf_counter() - started
        return part.to_dict()


class _Stopwatch:
    """Measures how long a job waits for images and for the model."""

    def __init__(self, images: ImagePrefetcher) -> None:
        self._images, self._started, self._waited = images, time.perf_counter(), images.waited

    def lap(self) -> dict[str, float]:
        """Return the seconds since the last call, by stage."""
        now, waited = time.perf_counter(), self._images.waited
        seconds = {"images": waited - self._waited, "model": now - self._started - (waited - self._waited)}
        self._started, self._waited = now, waited
        return seconds


def _to_table(answers: dict[int, Answer]) -> pa.Table:
    """Convert answers by position to a table."""
    columns = {name: pa.array([answer[name] for answer in answers.values()], kind) for name, kind in ANSWER.items()}
    return pa.table({POSITION: pa.array(answers, pa.int64()), **columns})
