"""Measure the time from the start of Python to the first answer, for two checkouts in turn.

Examples:
  python -m benchmarks starting --turns 3 --output out/benchmarks
  git worktree add out/before HEAD~20 && python -m benchmarks starting --before out/before --output out/benchmarks

Each checkout first packages its own model. The processor time of the processes is measured too, because it depends less
on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import measure, subjects
from benchmarks.endpoint import free_port, new_image, post
from benchmarks.measure import OURS, Result

BEFORE = "before"
LOAD = "import mlflow, sys; mlflow.pyfunc.load_model(sys.argv[1])"
Seconds = tuple[float, float]  # time from the start, and processor time


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks starting", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, help="folder of another checkout to compare with")
    parser.add_argument("--turns", type=int, default=5, help="measurements per checkout (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="folder for results.json and table.md")
    options = parser.parse_args(arguments)
    checkouts = {**({BEFORE: options.before.resolve()} if options.before else {}), OURS: subjects.ROOT}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        table = folder / "table.csv"
        table.write_text(f'image,input_boxes\n{subjects.ROOT}/samples/coins.png,"[[20, 32, 68, 77]]"\n')
        models = {way: folder / f"model-{number}" for number, way in enumerate(checkouts)}
        for way, checkout in checkouts.items():
            _run(checkout, "-m", "sam_endpoint", "package", "--no-log", "--output", models[way])
        for case, start in CASES.items():
            results: dict[str, list[Seconds]] = {way: [] for way in checkouts}
            for _ in range(options.turns):
                for way, checkout in checkouts.items():
                    results[way].append(start(checkout, models[way], folder))
            for number, kind in enumerate(("", ", processor time")):
                values = {way: [seconds[number] for seconds in measured] for way, measured in results.items()}
                result = Result(f"{case}{kind}", "sam-tiny", values)
                print(measure.table([result]).split("\n", 2)[2], flush=True)
                measure.save([result], options.output)
    return 0


def score(checkout: Path, model: Path, folder: Path) -> Seconds:
    """Score a table of one image with the command `score`."""
    output = folder / "out.parquet"
    output.unlink(missing_ok=True)  # the same job again would have nothing to do
    words = ("--model", model, "--input", folder / "table.csv", "--output", output)
    return _run(checkout, "-m", "sam_endpoint", "score", *words)


def load(checkout: Path, model: Path, folder: Path) -> Seconds:
    """Load the model as `mlflow models serve` does."""
    return _run(checkout, "-c", LOAD, model)


def serve(checkout: Path, model: Path, folder: Path) -> Seconds:
    """Start the endpoint, and send a request as soon as it is ready."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    row = {"image": new_image(0), "input_boxes": [[10.0, 10.0, 500.0, 500.0]]}
    words = ["-m", "sam_endpoint", "serve", "--model", str(model), "--port", str(port)]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=checkout,
        env=_environment(checkout),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not _is_ready(url):
            if process.poll() is not None:
                raise RuntimeError("`sam-endpoint serve` did not start")
            time.sleep(0.01)
        post(url, "/score", {"input_data": [row], "params": {"mask_encoding": "rle"}})
        seconds = time.perf_counter() - started
    finally:
        process.terminate()
        process.wait()
    return seconds, _spent_since(before)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/ready", timeout=10) as answer:
            return bool(json.load(answer)["ready"])
    except OSError:
        return False


def _run(checkout: Path, *words: object) -> Seconds:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, *map(str, words)]
    subprocess.run(
        command,
        cwd=checkout,
        env=_environment(checkout),
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - started, _spent_since(before)


def _environment(checkout: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(checkout)}


def _spent_since(before: resource.struct_rusage) -> float:
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return now.ru_utime + now.ru_stime - before.ru_utime - before.ru_stime


CASES: dict[str, Callable[[Path, Path, Path], Seconds]] = {
    "start to the result of `score`": score,
    "start to the first answer of `serve`": serve,
    "start to the model loaded by MLflow": load,
}
