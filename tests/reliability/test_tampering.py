"""Somebody changes the files of an unfinished job. Test that the job notices, and writes the same output as without."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sam_endpoint.model.errors import OutputConflict
from sam_endpoint.model.segmenter import Segmenter
from sam_endpoint.scoring.batch.parts import Parts
from tests import pictures
from tests.scoring.batch.jobs import rows_of
from tests.scoring.batch.test_resume import CountingReader, JobStopped, score, table_of_boxes


def emptied(file: Path) -> None:
    """Replace the predictions by empty lists, and keep the metadata of the file, as an edit with pyarrow does."""
    table = pq.read_table(file)
    column = table.schema.get_field_index("predictions")
    none = pa.array([[]] * len(table), table.schema.field(column).type)
    pq.write_table(table.set_column(column, table.schema.field(column), none), file)


def swapped(file: Path) -> None:
    """Reverse the rows."""
    table = pq.read_table(file)
    pq.write_table(table.take(list(reversed(range(len(table))))), file)


def shortened(file: Path) -> None:
    """Drop the last row."""
    table = pq.read_table(file)
    pq.write_table(table.slice(0, len(table) - 1), file)


def flipped(file: Path) -> None:
    """Flip a bit of the data."""
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    """Cut the end off."""
    file.write_bytes(file.read_bytes()[:-20])


def of_another_part(file: Path) -> None:
    """Replace the file by another file of the same job."""
    others = sorted(other for other in file.parent.iterdir() if other.suffix == file.suffix and other != file)
    file.write_bytes(others[0].read_bytes())


TAMPERINGS: list[Callable[[Path], None]] = [emptied, flipped, cut, of_another_part, Path.unlink]
OF_ROWS = [swapped, shortened]  # need a file of several rows; the pieces of a part have one


@pytest.fixture
def table(tmp_path: Path) -> Path:
    for i in range(6):
        (tmp_path / f"{i}.png").write_bytes(pictures.disc(90 + i, 80)[0])
    table_of_boxes([str(tmp_path / f"{i}.png") for i in range(6)]).to_csv(tmp_path / "in.csv", index=False)
    return tmp_path / "in.csv"


@pytest.mark.parametrize(
    ("rows", "tamper"),
    [*((2, tamper) for tamper in TAMPERINGS + OF_ROWS), *((6, tamper) for tamper in TAMPERINGS)],
)
def test_a_changed_file_is_written_again(
    tiny: Segmenter, table: Path, tmp_path: Path, tamper: Callable[[Path], None], rows: int
) -> None:
    score(tiny, table, tmp_path / "whole", CountingReader(), rows)
    with pytest.raises(JobStopped):
        score(tiny, table, tmp_path / "out", CountingReader(stop_at="5.png"), rows, seconds=0)
    file = sorted((tmp_path / "out").glob("part-*.parquet" if rows == 2 else ".*.piece"))[1]
    tamper(file)
    resumed = CountingReader()
    score(tiny, table, tmp_path / "out", resumed, rows)
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "whole")
    assert len(resumed.read) < 6  # the resumed job does not repeat the work for unchanged files
    assert not list((tmp_path / "out").glob(".*"))


def test_a_missing_part_of_a_finished_job_is_written_again(tiny: Segmenter, table: Path, tmp_path: Path) -> None:
    score(tiny, table, tmp_path / "out", CountingReader(), 2)
    expected = rows_of(tmp_path / "out")
    assert Parts(str(tmp_path / "out"), {}).complete
    (tmp_path / "out" / "part-000001.parquet").unlink()
    assert not Parts(str(tmp_path / "out"), {}).complete
    resumed = CountingReader()
    score(tiny, table, tmp_path / "out", resumed, 2)
    assert rows_of(tmp_path / "out") == expected and sorted(resumed.read) == ["2.png", "3.png"]


@pytest.mark.parametrize(
    "content", ["{}", "[]", "null", "no json", '{"sha256": 5}', '{"rows": 1}', '{"sha256": ["x"] }']
)
def test_an_invalid_success_file_does_not_finish_a_job(
    tiny: Segmenter, table: Path, tmp_path: Path, content: str
) -> None:
    with pytest.raises(JobStopped):
        score(tiny, table, tmp_path / "out", CountingReader(stop_at="5.png"), 2)
    (tmp_path / "out" / "part-000000.parquet").unlink()
    (tmp_path / "out" / "_SUCCESS").write_text(content)
    assert not Parts(str(tmp_path / "out"), {}).complete


def test_a_job_with_a_changed_description_does_not_continue(tiny: Segmenter, table: Path, tmp_path: Path) -> None:
    with pytest.raises(JobStopped):
        score(tiny, table, tmp_path / "out", CountingReader(stop_at="5.png"), 2)
    (tmp_path / "out" / "job.json").write_text(json.dumps({"model": "another"}))
    with pytest.raises(OutputConflict, match="holds the output of another job"):
        score(tiny, table, tmp_path / "out", CountingReader(), 2)
