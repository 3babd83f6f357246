"""Test that no code measures durations with the wall clock, which can jump and would end requests early or late."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT

# The age of a file needs the wall clock, because file systems store times of the wall clock. If the clock jumps, the
# quota may delete an unfinished file too early. The embedding of this file is then not stored.
ALLOWED = {"model/embeddings/quota.py": 1}


@pytest.mark.parametrize("package", ["model", "scoring", "sam_endpoint/commands"])
def test_deadlines_do_not_follow_the_wall_clock(package: str) -> None:
    for file in (ROOT / package).rglob("*.py"):
        uses = re.findall(r"\btime\.time\(|\bdatetime\.(?:now|utcnow|today)\(|\btime_ns\(", file.read_text())
        assert len(uses) == ALLOWED.get(str(file.relative_to(ROOT)), 0), f"{file}: use time.monotonic()"
