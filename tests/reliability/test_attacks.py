"""Short versions of the attacks: clients with another key receive responses, and the memory stays bounded."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import requests

from tests.reliability.attack import GOOD_KEY, endpoint, run
from tests.reliability.attacks import ATTACKS


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """Run an endpoint for all attacks, and return its URL and its process id."""
    with endpoint(tmp_path_factory.mktemp("attacks") / "log") as address:
        yield address


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_the_endpoint_serves_other_clients_during_an_attack(attacked: tuple[str, int], attack: object) -> None:
    assert callable(attack)
    report = run(attack, *attacked, seconds=1.5)
    assert report.clicks > 0 and report.refused == 0
    assert "memory" not in report.faults()
    deadline = time.monotonic() + 60
    while held_bytes(attacked[0]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert held_bytes(attacked[0]) == 0


def held_bytes(url: str) -> float:
    """Return the number of bytes that requests hold, from the metrics of the endpoint."""
    lines = requests.get(f"{url}/metrics", headers={"x-api-key": GOOD_KEY}, timeout=10).text.splitlines()
    return float(next(line for line in lines if line.startswith("sam_memory_bytes ")).split()[1])
