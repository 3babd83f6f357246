"""Short versions of `make fuzz` and `make soak`: broken images, mixed traffic, overload, SIGTERM, and killed jobs."""

from __future__ import annotations

import http.client
import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.reliability import fuzz, kills, overload, soak
from tests.reliability.traffic import endpoint, questions
from tests.warm import python


def test_broken_images_are_decoded_or_rejected() -> None:
    outcomes, failures, growth = fuzz.run(1500)
    assert not failures
    assert outcomes["image"] > 100 and outcomes["refused"] > 100 and outcomes["a broken image"] > 100
    assert growth < fuzz.LARGEST_GROWTH


def test_no_response_is_lost_wrong_or_of_another_request(tmp_path: Path) -> None:
    report = soak.run(4, tmp_path / "log", questions(24), "--embedding-bytes", "3000000", min_responses=48)
    assert not report.wrong
    assert report.statuses[200] > 30 and report.statuses[400] > 2 and set(report.statuses) == {200, 400}


def test_an_overloaded_endpoint_accepts_some_requests_and_rejects_the_others(tmp_path: Path) -> None:
    report = overload.run(6, tmp_path / "log")
    statuses = {response.status for response in report.responses}
    assert statuses == {200, 503}
    assert not [response.wrong for response in report.responses if response.wrong]
    assert all(response.retry_after for response in report.responses if response.status == 503)
    assert sum(response.status == 503 for response in report.responses) > len(report.responses) / 2


def test_sigterm_under_load_loses_no_request_that_the_server_has_read(tmp_path: Path) -> None:
    """Every response that the server logs has arrived completely at its client."""
    log, answered = tmp_path / "log", {}
    good_questions = [question for question in questions(24) if question.status == 200]
    with endpoint(log) as (host, port, process), ThreadPoolExecutor(6) as pool:

        def client(number: int) -> None:
            turn = 0
            while True:
                name, turn = f"{number}-{turn}", turn + 1
                question = good_questions[(number + turn) % len(good_questions)]
                connection = http.client.HTTPConnection(host, port, timeout=60)
                try:
                    connection.request("POST", question.path, question.body, {"X-Request-Id": name})
                    response = connection.getresponse()
                    body = response.read()
                except (OSError, http.client.HTTPException):
                    return  # the server has stopped; the test checks that this request is not in the log
                assert question.wrong(response.status, body) is None
                answered[name] = response.status

        clients = [pool.submit(client, number) for number in range(6)]
        while len(answered) < 12:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        for future in clients:
            future.result(60)
        assert process.wait(30) in (0, -signal.SIGTERM)
    lines = [line for line in log.read_text().splitlines() if '"request_id"' in line]
    logged = {line["request_id"]: line["status"] for line in (json.loads(line[line.index("{") :]) for line in lines)}
    assert logged == answered and len(answered) >= 12


def test_a_job_that_is_killed_repeatedly_writes_the_same_output(tmp_path: Path) -> None:
    whole, killed, times, _ = kills.run(3, 64, tmp_path, python())
    assert times == 3 and whole.num_rows == 64
    assert killed.to_pylist() == whole.to_pylist()
