"""Short forms of the attacks: a client with another key is answered meanwhile, in bounded memory."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import requests

from tests.reliability.attack import GOOD_KEY, endpoint, run
from tests.reliability.attacks import ATTACKS


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    with endpoint(tmp_path_factory.mktemp("attacks") / "log") as address:
        yield address


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_the_endpoint_goes_on_under(attacked: tuple[str, int], attack: object) -> None:
    assert callable(attack)
    report = run(attack, *attacked, seconds=1.5)
    assert report.clicks > 0 and report.refused == 0
    assert "memory" not in report.faults()
    deadline = time.monotonic() + 60
    while held(attacked[0]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert held(attacked[0]) == 0


def held(url: str) -> float:
    """Return the bytes that requests hold."""
    lines = requests.get(f"{url}/metrics", headers={"x-api-key": GOOD_KEY}, timeout=10).text.splitlines()
    return float(next(line for line in lines if line.startswith("sam_memory_bytes ")).split()[1])
