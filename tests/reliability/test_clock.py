"""A clock that jumps ends no request early and keeps none too long: nothing measures time by the wall clock."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT

# The age of a file is by the wall clock, as the times of file systems are. A jump deletes an unfinished file early,
# whose embedding is then not stored.
ALLOWED = {"model/embeddings/quota.py": 1}


@pytest.mark.parametrize("package", ["model", "scoring", "sam_endpoint/commands"])
def test_deadlines_do_not_follow_the_wall_clock(package: str) -> None:
    for file in (ROOT / package).rglob("*.py"):
        uses = re.findall(r"\btime\.time\(|\bdatetime\.(?:now|utcnow|today)\(|\btime_ns\(", file.read_text())
        assert len(uses) == ALLOWED.get(str(file.relative_to(ROOT)), 0), f"{file}: use time.monotonic()"
