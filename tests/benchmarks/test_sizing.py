"""The simulation of replicas against formulas of queueing theory, and the sizes that `sizing` computes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks.open_loop import CLICK, NEW, Arrival, plan
from benchmarks.simulation import FETCH, Work, busy_seconds, simulate
from benchmarks.sizing import People, size_people
from benchmarks.sizing_batch import size_batch, spark_limits
from benchmarks.stages import Stages
from tests.conftest import ROOT
from tests.warm import python

WORK = {
    NEW: [Work(encode=1.0, decode=0.02, other=0.03)],
    CLICK: [Work(encode=0.0, decode=0.02, other=0.01)],
    FETCH: [Work(encode=0.0, decode=0.02, other=0.05)],
}
STAGES = Stages("sam-tiny", "a machine", "cpu", 2, 4 * 2**20, 700_000_000, 1000, 0.01, WORK)


def mean_click(work: Work, rate: float, cores: int = 1) -> float:
    """Return the mean latency of 20,000 clicks."""
    arrivals = plan(rate, 20_000, 0.0, seed=1, images=1)
    latencies = simulate({CLICK: [work]}, arrivals, 1, cores)[CLICK]
    return sum(latencies) / len(latencies)


def test_stages_that_share_a_core_take_as_long_as_processor_sharing_predicts() -> None:
    # M/G/1 with processor sharing: the service time divided by the idle share.
    assert mean_click(Work(0.0, 0.0, 0.02), rate=35) == pytest.approx(0.02 / (1 - 0.7), rel=0.05)


def test_prompts_wait_for_the_decoder_as_in_a_queue() -> None:
    # M/D/1: the service time, plus half the busy share over the idle share.
    assert mean_click(Work(0.0, 0.02, 0.0), rate=35) == pytest.approx(0.02 * (1 + 0.5 * 0.7 / 0.3), rel=0.05)


def test_a_second_core_serves_other_stages_but_not_the_same_one() -> None:
    arrivals = [Arrival(0.0, CLICK, 0), Arrival(0.0, CLICK, 0)]
    assert simulate({CLICK: [Work(0, 0, 1.0)]}, arrivals, 1, 2)[CLICK] == pytest.approx([1.0, 1.0])
    assert simulate({CLICK: [Work(0, 1.0, 0)]}, arrivals, 1, 2)[CLICK] == pytest.approx([1.0, 2.0])
    assert simulate({CLICK: [Work(0, 0, 1.0)]}, arrivals, 1, 1)[CLICK] == pytest.approx([2.0, 2.0])


def test_a_click_during_an_encoding_takes_its_share_of_the_cores() -> None:
    # The encoder uses both cores for 1 s. The click needs one of them for 0.1 s: three threads share two cores.
    work = {NEW: [Work(1.0, 0.0, 0.0)], CLICK: [Work(0.0, 0.0, 0.1)]}
    latencies = simulate(work, [Arrival(0.0, NEW, 1), Arrival(0.5, CLICK, 0)], 1, 2)
    assert latencies[CLICK] == pytest.approx([0.15]) and latencies[NEW] == pytest.approx([1.05])


def test_an_image_of_another_replica_is_fetched_from_the_store_once() -> None:
    arrivals = [Arrival(10.0 * number, CLICK, 0) for number in range(6)]  # in turn to two replicas
    latencies = simulate(WORK, arrivals, 2, 2, known=[[0], []])[CLICK]
    assert latencies == pytest.approx([0.03, 0.07, 0.03, 0.03, 0.03, 0.03])


def test_work_after_the_answer_slows_the_next_request_down() -> None:
    arrivals = [Arrival(0.0, CLICK, 0), Arrival(0.1, CLICK, 0)]
    assert simulate({CLICK: [Work(0, 0, 0.1, after=0.1)]}, arrivals, 1, 1)[CLICK] == pytest.approx([0.1, 0.2])


def test_more_people_need_more_replicas_and_more_memory() -> None:
    few, many = (size_people(STAGES, People(count), bound=1.5) for count in (5, 100))
    assert 1 <= few.replicas < many.replicas
    assert few.cache_bytes == 5 * 5 * 4 * 2**20 and many.cache_bytes == 20 * few.cache_bytes
    people = People(100)
    busy = people.rate * (
        people.share_new * busy_seconds(WORK[NEW], 2) + (1 - people.share_new) * busy_seconds(WORK[CLICK], 2)
    )
    assert many.replicas > busy and many.busy == pytest.approx(busy / many.replicas)
    assert many.latencies[1] < 1.5 <= size_people(STAGES, people, bound=0.1).latencies[1]


def test_a_bound_below_the_time_of_one_request_needs_no_search() -> None:
    assert size_people(STAGES, People(1), bound=0.02).replicas == 0


def test_a_billion_boxes_are_sized_from_the_stage_times() -> None:
    batch = size_batch(STAGES, rows=1e9, rows_per_image=10)
    assert batch.images == 1e8
    assert batch.replica_seconds == pytest.approx(1e8 * (1.05 - 0.03) + 1e9 * 0.01)
    assert batch.store_bytes == 1e8 * 4 * 2**20
    limits = spark_limits(STAGES, batch, cores=2000, files=1000, with_store=True, price=0.2)
    assert [limit.share for limit in limits] == sorted((limit.share for limit in limits), reverse=True)
    task = next(limit for limit in limits if limit.name == "seconds of one task")
    assert task.needed == pytest.approx(batch.replica_seconds * 2 / 16_000)


def sizing(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `python -m benchmarks sizing`."""
    command = [python(), "-m", "benchmarks", "sizing", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_command_prints_replicas_memory_and_cost(tmp_path: Path) -> None:
    STAGES.save(tmp_path / "stages.json")
    done = sizing(
        "--stages", tmp_path / "stages.json", "--people", 20, "--rows", 1_000_000, "--price", 0.5, "--bound", 3
    )
    assert done.returncode == 0, done.stderr
    lines = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    cells = {words[0]: words[1] for words in lines if len(words) == 2}
    assert cells["embeddings in use"] == "419 MB in each replica"
    assert cells["cost of the computation"] == f"{(1e6 / 7 * 1.02 + 1e6 * 0.01) / 3600 * 0.5:,.2f} dollars"
    assert "GPUs" not in cells
    STAGES.__class__(**{**vars(STAGES), "device": "a GPU"}).save(tmp_path / "gpu.json")
    done = sizing("--stages", tmp_path / "gpu.json", "--people", 20, "--price", 0.5, "--bound", 3)
    assert "| GPUs | " in done.stdout


def test_wrong_input_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(json.dumps({"model": 1}))
    done = sizing("--stages", tmp_path / "bad.json", "--people", 1, "--price", 1)
    assert done.returncode == 2 and "expected stage times, as `python -m benchmarks stages` writes them" in done.stderr
    done = sizing("--stages", tmp_path / "bad.json", "--people", 1, "--price", -1)
    assert done.returncode == 2 and "--price: expected a positive number, got -1.0" in done.stderr
    done = sizing("--stages", tmp_path / "bad.json", "--price", 1)
    assert done.returncode == 2 and "nothing to size" in done.stderr
