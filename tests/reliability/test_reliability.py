"""Short forms of `make fuzz` and `make soak`, and a batch job that is killed again and again."""

from __future__ import annotations

from pathlib import Path

from tests.reliability import fuzz, overload, soak
from tests.reliability.traffic import questions


def test_broken_images_end_as_images_or_as_bad_input() -> None:
    ends, wrong, growth = fuzz.run(1500)
    assert not wrong
    assert ends["image"] > 100 and ends["refused"] > 100 and ends["a broken image"] > 100
    assert growth < fuzz.LARGEST_GROWTH


def test_no_answer_is_lost_or_crossed(tmp_path: Path) -> None:
    report = soak.run(8, tmp_path / "log", questions(24), "--embedding-bytes", "3000000")
    assert not report.wrong
    assert report.statuses[200] > 20 and report.statuses[400] > 2 and set(report.statuses) == {200, 400}


def test_overload_is_refused_and_over_when_it_ends(tmp_path: Path) -> None:
    report = overload.run(6, tmp_path / "log")
    statuses = {one.status for one in report.answers}
    assert statuses == {200, 503}
    assert not [one.wrong for one in report.answers if one.wrong]
    assert all(one.retry_after for one in report.answers if one.status == 503)
    assert sum(one.status == 503 for one in report.answers) > len(report.answers) / 2
