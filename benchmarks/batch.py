"""Cases of batch jobs: a table with images in any order, a folder of photographs, memory, Spark."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from benchmarks import subjects
from benchmarks.limits import least
from benchmarks.measure import BASELINE, Result
from benchmarks.model import OURS
from benchmarks.plain import Plain
from model.contract import Params
from model.embeddings import Embeddings
from model.images import ImageLimits
from model.scorer import Scorer
from model.segmenter import Segmenter
from scoring.batch import job, sources
from scoring.batch.parts import Parts

SIZE = (480, 640)


def _pictures(folder: Path, count: int, size: tuple[int, int] = SIZE) -> list[Path]:
    files = []
    for i in range(count):
        image = subjects.picture(*size)
        file = folder / f"{i:03}.jpg"
        file.write_bytes(subjects.jpeg((image.astype("uint16") + 3 * i).clip(0, 255).astype("uint8")))
        files.append(file)
    return files


def _table(folder: Path, images: int, boxes: int) -> pd.DataFrame:
    """Rows of a box each, in no order."""
    rows = [
        {"image": str(file), "input_boxes": json.dumps([box])}
        for file in _pictures(folder, images)
        for box in subjects.boxes(boxes, *SIZE)
    ]
    random.Random(0).shuffle(rows)
    table = pd.DataFrame(rows)
    table.to_csv(folder / "table.csv", index=False)
    return table


def _rows_a_second(images: int, boxes: int, title: str) -> Callable[[list[str], int], Iterator[Result]]:
    def case(names: list[str], turns: int) -> Iterator[Result]:
        """Seconds a row: ours over the whole table, the wrapper over some of its rows, which all take it the same."""
        for name in names:
            plain, segmenter = Plain(subjects.checkpoint(name)), Segmenter.load(str(subjects.checkpoint(name)), "cpu")
            found: dict[str, list[float]] = {BASELINE: [], OURS: []}
            waited = []
            with tempfile.TemporaryDirectory() as where:
                folder = Path(where)
                table = _table(folder, images, boxes)
                for turn in range(turns):
                    some = table.iloc[turn * 6 % len(table) :][:6]
                    began = time.perf_counter()
                    for row in some.itertuples():
                        plain.answer(Path(str(row.image)).read_bytes(), json.loads(str(row.input_boxes)))
                    found[BASELINE].append((time.perf_counter() - began) / len(some))
                    ours = Scorer(segmenter, Embeddings(2**28), ImageLimits(local_paths=True))
                    parts = Parts(str(folder / f"out-{turn}"), {})
                    began = time.perf_counter()
                    summary = job.run(ours, Params(on_error="record"), sources.find(f"{folder}/table.csv"), parts)
                    found[OURS].append((time.perf_counter() - began) / len(table))
                    waited.append(summary.seconds["images"] / (found[OURS][-1] * len(table)))
            note = f"waiting for images at most {max(waited):.1%} of the time"
            yield Result(title, name, found, floor=least(name, images=1 / boxes, prompts=1), note=note)

    return case


def memory(names: list[str], turns: int) -> Iterator[Result]:
    """The most that a job of 1,000 rows holds, and one of 100,000."""
    for name in names:
        found: dict[str, list[float]] = {"1,000 rows": [], "100,000 rows": []}
        with tempfile.TemporaryDirectory() as where:
            folder = Path(where)
            files = _pictures(folder, 50, (96, 128))
            for rows, way in ((1_000, "1,000 rows"), (100_000, "100,000 rows")):
                lines = [{"image": str(files[i % 50]), "input_boxes": "[[10, 10, 80, 80]]"} for i in range(rows)]
                pd.DataFrame(lines).assign(multimask_output="false").to_csv(folder / "table.csv", index=False)
                code = (
                    "import resource, sys; from scoring.batch.__main__ import main; main(sys.argv[1:]);"
                    "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)"
                )
                words = ["--model", packaged(name), "--input", folder / "table.csv", "--output", folder / f"{rows}"]
                command = [sys.executable, "-c", code, *map(str, words)]
                done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=subjects.ROOT)
                found[way].append(float(done.stdout.split()[-1]))
        yield Result("memory of a batch job", name, found, unit="MB")


def workers(names: list[str], turns: int) -> Iterator[Result]:
    """A table on Spark: one worker of one core, and two."""
    for name in names:
        found: dict[str, list[float]] = {"one worker": [], "two workers": []}
        with tempfile.TemporaryDirectory() as where:
            _table(Path(where), 240, 10)
            for _ in range(turns):
                for number, values in enumerate(found.values(), 1):
                    words = [sys.executable, "-m", "benchmarks.on_spark", packaged(name), f"{where}/table.csv", number]
                    command = [str(word) for word in words]
                    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=subjects.ROOT)
                    values.append(float(done.stdout.split()[-1]))
        yield Result("2,400 rows on Spark", name, found, floor=least(name, images=240, prompts=2400))


def packaged(name: str) -> Path:
    """A checkpoint as an MLflow model."""
    from model import package

    folder = subjects.FOLDER / f"{name}-model"
    return folder if (folder / "MLmodel").exists() else package.save(subjects.checkpoint(name), folder)


CASES: dict[str, tuple[Callable[[list[str], int], Iterator[Result]], tuple[str, ...]]] = {
    "table": (_rows_a_second(12, 7, "table, 12 images x 7 boxes, a row"), ("vit-b",)),
    "folder": (_rows_a_second(12, 1, "folder, a box an image, a row"), ("vit-b",)),
    "rows": (memory, ("sam-tiny",)),
    "spark": (workers, ("sam-tiny",)),
}
