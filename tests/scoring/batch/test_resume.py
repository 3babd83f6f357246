"""Jobs that stop inside a part and continue, image ids of earlier rows, and progress without a terminal."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from sam_endpoint.model.call import UNTRACKED, Call
from sam_endpoint.model.embeddings import EmbeddingCache
from sam_endpoint.model.engine import Engine
from sam_endpoint.model.images import ImageLimits, ImageReader, ImageRef, OpenedImage
from sam_endpoint.model.params import Params
from sam_endpoint.model.segmenter import Segmenter
from sam_endpoint.scoring.batch import job, sources
from sam_endpoint.scoring.batch.parts import Parts
from sam_endpoint.scoring.batch.progress import Progress, tracked
from tests import pictures
from tests.conftest import ROOT
from tests.scoring.batch.jobs import rows_of, same_rows
from tests.warm import python

PARAMS = Params(mask_encoding="rle", on_error="record")


class JobStopped(Exception):
    """The error with which a test stops a job."""


@dataclass
class CountingReader:
    """An image reader that records each image and stops the job at a chosen image.

    Attributes:
        stop_at: name of the file at which the job stops.
        read: names of the files that were read, in order.
        reader: reader that does the work.
    """

    stop_at: str = ""
    read: list[str] = field(default_factory=list)
    reader: ImageReader = field(default_factory=lambda: ImageReader(ImageLimits(local_paths=True)))

    @property
    def limits(self) -> ImageLimits:
        """The limits of the images."""
        return self.reader.limits

    def reference(self, value: object, upright: bool = False) -> ImageRef:
        """Return a reference to the image in a cell."""
        return self.reader.reference(value, upright)

    def open(self, ref: ImageRef, call: Call = UNTRACKED) -> OpenedImage:
        """Record and open an image, or stop the job."""
        name = Path(str(ref.value)).name if ref.kind == "path" else ref.kind
        if name == self.stop_at:
            raise JobStopped
        self.read.append(name)
        return self.reader.open(ref, call)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Write six images of discs of different widths, and return the files."""
    for i in range(6):
        (tmp_path / f"{i}.png").write_bytes(pictures.disc(150 + i, 130)[0])
    return [tmp_path / f"{i}.png" for i in range(6)]


def score(
    tiny: Segmenter,
    table: Path,
    output: Path,
    images: CountingReader,
    rows: int,
    cache: int = 2**28,
    seconds: float = 60.0,
) -> job.Summary:
    """Run a job on a table.

    Args:
        tiny: segmenter.
        table: file of the table.
        output: folder of the parts.
        images: reader of the images.
        rows: number of rows per part.
        cache: size of the cache of embeddings, in bytes.
        seconds: interval at which the job saves its progress inside a part.
    """
    engine = Engine(tiny, images, EmbeddingCache(cache))
    return job.run(engine, PARAMS, sources.find(str(table)), Parts(str(output), {}), rows, save_seconds=seconds)


def table_of_boxes(images: list[Any], **columns: list[Any]) -> pd.DataFrame:
    """Return a table with one box per image, and additional columns."""
    box = [json.dumps([60, 30 + i % 60, 150, 110]) for i in range(len(images))]
    return pd.DataFrame({"image": images, "input_boxes": box, "multimask_output": "false", **columns})


def test_a_job_that_stops_inside_a_part_continues_after_the_last_row(
    tiny: Segmenter, photos: list[Path], tmp_path: Path
) -> None:
    table_of_boxes([str(photos[i % 6]) for i in range(24)]).to_csv(tmp_path / "in.csv", index=False)
    undisturbed = score(tiny, tmp_path / "in.csv", tmp_path / "whole", CountingReader(), 24)
    stopped = CountingReader(stop_at="4.png")
    with pytest.raises(JobStopped):
        score(tiny, tmp_path / "in.csv", tmp_path / "out", stopped, 24, seconds=0)
    assert not list((tmp_path / "out").glob("*.parquet")) and len(list((tmp_path / "out").glob(".*.piece"))) == 4
    resumed = CountingReader()
    broken = sorted((tmp_path / "out").glob(".*.piece"))[1]
    broken.write_bytes(broken.read_bytes()[:-20])
    summary = score(tiny, tmp_path / "in.csv", tmp_path / "out", resumed, 24)
    assert sorted(resumed.read) == ["1.png", "4.png", "5.png"]  # each is read once for its 4 rows
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "whole")
    assert not list((tmp_path / "out").glob(".*"))
    counts = [{**part.to_dict(), "seconds": None} for part in (summary, undisturbed)]
    assert counts[0] == counts[1] and summary.rows == 24 and set(summary.seconds) == set(undisturbed.seconds)


def test_a_job_saves_finished_rows_when_an_error_stops_it(tiny: Segmenter, photos: list[Path], tmp_path: Path) -> None:
    table_of_boxes([str(photo) for photo in photos]).to_csv(tmp_path / "in.csv", index=False)
    with pytest.raises(JobStopped):
        score(tiny, tmp_path / "in.csv", tmp_path / "out", CountingReader(stop_at="4.png"), 6)
    resumed = CountingReader()
    score(tiny, tmp_path / "in.csv", tmp_path / "out", resumed, 6)
    assert sorted(resumed.read) == ["4.png", "5.png"]


def test_reads_an_image_once_per_part(tiny: Segmenter, photos: list[Path], tmp_path: Path) -> None:
    table_of_boxes([str(photos[i % 2]) for i in range(300)]).to_csv(tmp_path / "in.csv", index=False)
    images = CountingReader()
    summary = score(tiny, tmp_path / "in.csv", tmp_path / "out", images, 300)
    assert sorted(images.read) == ["0.png", "1.png"] and summary.failed == 0


@pytest.mark.parametrize("kind", ["path", "bytes"])
@pytest.mark.parametrize("cache", [2**28, 1])
def test_an_image_id_refers_to_an_image_of_an_earlier_part_after_a_restart(
    tiny: Segmenter, photos: list[Path], tmp_path: Path, kind: str, cache: int
) -> None:
    """The result does not depend on the cache of embeddings. A cache of 1 byte is always empty."""
    images: list[Any] = [str(photo) if kind == "path" else photo.read_bytes() for photo in photos]
    cells = [images[0], images[1], None, None, None, images[2], None, None, images[0], images[2], images[0], None]
    # Row 5 gives "a" to another image; no image has the id "c"; in a part of four rows, "d" ends as image 0.
    ids = ["a", "b", "a", "b", "a", "a", "a", "c", "d", "d", "d", "d"]
    table_of_boxes(cells, image_id=ids).to_parquet(tmp_path / "in.parquet")
    score(tiny, tmp_path / "in.parquet", tmp_path / "whole", CountingReader(), 2, cache)
    expected = rows_of(tmp_path / "whole")
    assert [row["error"] is None for row in expected] == [True] * 7 + [False] + [True] * 4
    sizes = [row["predictions"][0]["mask_per_prediction"][0]["size"][1] for row in expected if not row["error"]]
    assert sizes == [150, 151, 150, 151, 150, 152, 152, 150, 152, 150, 150]
    for done in range(1, 6):  # number of parts that already exist
        parts = Parts(str(tmp_path / f"{done}"), {})
        for number in range(done):
            part = tmp_path / "whole" / f"part-{number:06d}.parquet"
            Path(parts.name(number)).write_bytes(part.read_bytes())
        score(tiny, tmp_path / "in.parquet", tmp_path / f"{done}", CountingReader(), 2, cache)
        assert same_rows(rows_of(tmp_path / f"{done}"), expected)


def test_the_latest_image_of_a_name_counts_in_later_parts(tiny: Segmenter, photos: list[Path], tmp_path: Path) -> None:
    """Rows of one image are scored together, so the image that was scored last need not be the latest of its name."""
    first, second = (photo.read_bytes() for photo in photos[:2])
    table_of_boxes([first, second, first, None], image_id=["a"] * 4).to_parquet(tmp_path / "in.parquet")
    score(tiny, tmp_path / "in.parquet", tmp_path / "out", CountingReader(), 3)
    sizes = [row["predictions"][0]["mask_per_prediction"][0]["size"][1] for row in rows_of(tmp_path / "out")]
    assert sizes == [150, 151, 150, 150]


def test_examples_in_an_image_of_an_earlier_part_are_found_after_a_restart(
    tiny: Segmenter, photos: list[Path], tmp_path: Path
) -> None:
    first, second = (photo.read_bytes() for photo in photos[:2])
    columns = {"input_boxes": ["[[60, 30, 150, 110]]", None], "input_exemplars": [None, "[[60, 30, 150, 110]]"]}
    table = pd.DataFrame({"image": [first, second], "image_id": ["a", None], **columns})
    table["input_exemplar_image"] = [None, "a"]
    table.to_parquet(tmp_path / "in.parquet")
    score(tiny, tmp_path / "in.parquet", tmp_path / "whole", CountingReader(), 1)
    expected = rows_of(tmp_path / "whole")
    assert [row["error"] for row in expected] == [None, None]
    parts = Parts(str(tmp_path / "resumed"), {})
    Path(parts.name(0)).write_bytes((tmp_path / "whole" / "part-000000.parquet").read_bytes())
    score(tiny, tmp_path / "in.parquet", tmp_path / "resumed", CountingReader(), 1)
    assert same_rows(rows_of(tmp_path / "resumed"), expected)


def test_a_row_that_cannot_be_scored_keeps_its_image_id(tiny: Segmenter, photos: list[Path], tmp_path: Path) -> None:
    columns = {"image_id": ["customer-17", 7], "input_boxes": ["[[50, 50, 5, 5]]"] * 2}
    table = pd.DataFrame({"image": [photos[0].read_bytes()] * 2, **columns}).astype({"image_id": str})
    table.to_parquet(tmp_path / "in.parquet")
    score(tiny, tmp_path / "in.parquet", tmp_path / "out", CountingReader(), 2)
    rows = rows_of(tmp_path / "out")
    assert [row["image_id"] for row in rows] == ["customer-17", "7"] and all(row["error"] for row in rows)


SLOW = """
import sys, time
from tests.engines import engine_of
from sam_endpoint.model.images import ImageReader, ImageLimits
from sam_endpoint.model.params import Params
from sam_endpoint.model.segmenter import Segmenter
from sam_endpoint.scoring.batch import job, sources
from sam_endpoint.scoring.batch.parts import Parts

class Slow(ImageReader):
    def open(self, ref, *rest):
        print(ref.value, flush=True)
        return super().open(ref, *rest)

class SlowSegmenter:
    def __init__(self, segmenter): self.segmenter = segmenter
    def __getattr__(self, name): return getattr(self.segmenter, name)
    def embed(self, *arguments):
        time.sleep(0.4)
        return self.segmenter.embed(*arguments)

engine = engine_of(SlowSegmenter(Segmenter.load("checkpoints/sam-tiny", "cpu")), local_paths=True)
params = Params(mask_encoding="rle", on_error="record")
job.run(engine, params, sources.find(sys.argv[1]), Parts(sys.argv[2], {}), save_seconds=1.0)
"""


def test_a_slow_job_that_is_killed_loses_only_the_last_interval(tiny: Segmenter, tmp_path: Path) -> None:
    """All rows are in one part. The interval is one second, instead of a minute."""
    names = [f"{i:02}.png" for i in range(20)]
    for i, name in enumerate(names):
        (tmp_path / name).write_bytes(pictures.disc(100 + i, 90)[0])
    table_of_boxes([str(tmp_path / name) for name in names]).to_csv(tmp_path / "in.csv", index=False)
    process = subprocess.Popen([python(), "-c", SLOW, str(tmp_path / "in.csv"), str(tmp_path / "out")], cwd=ROOT)
    until = time.monotonic() + 120
    while len(list((tmp_path / "out").glob(".part-*.piece"))) < 3:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    time.sleep(0.7)  # into the next interval
    process.kill()
    process.wait()
    killed_at = time.time()
    pieces = sorted((tmp_path / "out").glob(".part-*.piece"))
    assert killed_at - pieces[-1].stat().st_mtime < 3  # the interval, plus the time of a row on a busy machine
    saved = [position for piece in pieces for position in pq.read_table(piece)["position"].to_pylist()]
    assert saved == list(range(len(saved))) and len(saved) >= 3
    resumed = CountingReader()
    summary = score(tiny, tmp_path / "in.csv", tmp_path / "out", resumed, 512)
    assert sorted(resumed.read) == names[len(saved) :] and summary.rows == 20 and summary.failed == 0


def test_progress_without_a_terminal_is_a_line_per_interval(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("scoring", "row", 40, seconds=0.2) as progress:
        progress.add(10, skipped=True)
        progress.add(10, images=3, failed=1)
        time.sleep(0.7)
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 3
    assert lines[0].startswith("scoring: 20 of 40 rows, 3 images, 1 failed, ") and lines[0].endswith(" s left")
    rate = float(lines[0].rpartition(" rows/s")[0].rpartition(" ")[2])
    assert 10 / 0.6 < rate <= 10 / 0.2  # the rate counts only the 10 rows of this run


def test_tracked_yields_all_items_and_prints_nothing_in_the_first_interval(capsys: pytest.CaptureFixture[str]) -> None:
    def slowly() -> Iterator[int]:
        yield from tracked([1, 2, 3], "drawing", "image")

    assert list(slowly()) == [1, 2, 3]
    assert capsys.readouterr().err == ""  # the loop ended before the first line was due
