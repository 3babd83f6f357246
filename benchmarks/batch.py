"""Benchmark cases of batch jobs: a table, a folder of images, memory, Spark."""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from benchmarks import subjects
from benchmarks.limits import lower_bound
from benchmarks.measure import BASELINE, EAGER, OURS, Case, Cases, Result
from benchmarks.plain import Plain
from benchmarks.processes import run
from sam_endpoint.model.params import Params
from sam_endpoint.scoring.batch import job, sources
from sam_endpoint.scoring.batch.parts import Parts

SIZE = (480, 640)
SAMPLE = 6  # rows that plain transformers scores per measurement
PEAK = (
    "import sys; from benchmarks.peak import peak; from sam_endpoint.__main__ import main; main(sys.argv[1:]);"
    "print(peak())"
)


def _write_pictures(folder: Path, count: int, size: tuple[int, int] = SIZE) -> list[Path]:
    """Write different images of a size (height, width), and return their files."""
    files = []
    for i in range(count):
        image = subjects.picture(*size)
        file = folder / f"{i:03}.jpg"
        file.write_bytes(subjects.jpeg((image.astype("uint16") + 3 * i).clip(0, 255).astype("uint8")))
        files.append(file)
    return files


def _write_table(folder: Path, images: int, boxes: int) -> pd.DataFrame:
    """Write `table.csv` with one box per row, in random order, and return the table."""
    rows = [
        {"image": str(file), "input_boxes": json.dumps([box])}
        for file in _write_pictures(folder, images)
        for box in subjects.boxes(boxes, *SIZE)
    ]
    random.Random(0).shuffle(rows)
    table = pd.DataFrame(rows)
    table.to_csv(folder / "table.csv", index=False)
    return table


def score_table(images: int, boxes: int, title: str) -> Case:
    """Return a case that measures the seconds per row of a table.

    This project scores the whole table. Plain transformers scores a sample of the rows, because all rows take it the
    same time.

    Args:
        images: The number of images.
        boxes: The number of rows per image, with one box each.
        title: The name of the case in the results.
    """

    def case(name: str, turns: int) -> Iterator[Result]:
        segmenter = subjects.load(name)
        plains = {BASELINE: Plain(subjects.checkpoint(name)), EAGER: Plain(subjects.checkpoint(name), "eager")}
        seconds: dict[str, list[float]] = {BASELINE: [], EAGER: [], OURS: []}
        waited = []
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            table = _write_table(folder, images, boxes)
            for turn in range(turns):
                sample = table.iloc[turn * SAMPLE % len(table) :][:SAMPLE]
                for way, plain in plains.items():
                    started = time.perf_counter()
                    for row in sample.itertuples():
                        plain.answer(Path(str(row.image)).read_bytes(), json.loads(str(row.input_boxes)))
                    seconds[way].append((time.perf_counter() - started) / len(sample))
                engine = subjects.engine_of(segmenter, local_paths=True)
                parts = Parts(str(folder / f"out-{turn}"), {})
                started = time.perf_counter()
                summary = job.run(engine, Params(on_error="record"), sources.find(f"{folder}/table.csv"), parts)
                total = time.perf_counter() - started
                seconds[OURS].append(total / len(table))
                waited.append(summary.seconds["images"] / total)
        note = f"waiting for images at most {max(waited):.1%} of the time"
        yield Result(title, name, seconds, floor=lower_bound(name, images=1 / boxes, prompts=1), note=note)

    return case


def memory(name: str, turns: int) -> Iterator[Result]:
    """Measure the peak memory of a job of 1,000 rows and of one of 100,000."""
    megabytes: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = _write_pictures(folder, 50, (96, 128))
        table = folder / "table.csv"
        for count in (1_000, 100_000):
            rows = [{"image": str(files[i % 50]), "input_boxes": "[[10, 10, 80, 80]]"} for i in range(count)]
            pd.DataFrame(rows).assign(multimask_output="false").to_csv(table, index=False)
            words = ["score", "--model", packaged(name), "--input", table, "--output", folder / f"{count}"]
            megabytes[f"{count:,} rows"] = [float(run("-c", PEAK, *words))]
    yield Result("memory of a batch job", name, megabytes, unit="MB")


def workers(name: str, turns: int) -> Iterator[Result]:
    """Score a table on Spark with one worker of one core, and with two."""
    seconds: dict[str, list[float]] = {"one worker": [], "two workers": []}
    with tempfile.TemporaryDirectory() as folder:
        _write_table(Path(folder), 240, 10)
        for _ in range(turns):
            for count, values in enumerate(seconds.values(), 1):
                words = ["benchmarks.on_spark", packaged(name), f"{folder}/table.csv", count]
                values.append(float(run("-m", *words)))
    yield Result("2,400 rows on Spark", name, seconds, floor=lower_bound(name, images=240, prompts=2400))


def packaged(name: str) -> Path:
    """Return the folder of a checkpoint as an MLflow model; the first call packages it."""
    from sam_endpoint.model.mlflow import package

    folder = subjects.FOLDER / f"{name}-model"
    return folder if (folder / "MLmodel").exists() else package.save(subjects.checkpoint(name), folder)


CASES: Cases = {
    "table": (score_table(12, 7, "table, 12 images x 7 boxes, per row"), ("vit-b",)),
    "folder": (score_table(12, 1, "folder, one box per image, per row"), ("vit-b",)),
    "rows": (memory, ("sam-tiny",)),
    "spark": (workers, ("sam-tiny",)),
}
