"""Short forms of `make fuzz` and `make soak`, and a batch job that is killed again and again."""

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


def test_broken_images_end_as_images_or_as_bad_input() -> None:
    ends, wrong, growth = fuzz.run(1500)
    assert not wrong
    assert ends["image"] > 100 and ends["refused"] > 100 and ends["a broken image"] > 100
    assert growth < fuzz.LARGEST_GROWTH


def test_no_answer_is_lost_or_crossed(tmp_path: Path) -> None:
    report = soak.run(4, tmp_path / "log", questions(24), "--embedding-bytes", "3000000", least=48)
    assert not report.wrong
    assert report.statuses[200] > 30 and report.statuses[400] > 2 and set(report.statuses) == {200, 400}


def test_overload_is_refused_and_over_when_it_ends(tmp_path: Path) -> None:
    report = overload.run(6, tmp_path / "log")
    statuses = {one.status for one in report.answers}
    assert statuses == {200, 503}
    assert not [one.wrong for one in report.answers if one.wrong]
    assert all(one.retry_after for one in report.answers if one.status == 503)
    assert sum(one.status == 503 for one in report.answers) > len(report.answers) / 2


def test_sigterm_under_load_loses_no_request_that_was_read(tmp_path: Path) -> None:
    """Each request that the server notes as answered has reached its client, whole."""
    log, answered = tmp_path / "log", {}
    asked = [question for question in questions(24) if question.status == 200]
    with endpoint(log) as (host, port, process), ThreadPoolExecutor(6) as pool:

        def client(number: int) -> None:
            turn = 0
            while True:
                name, turn = f"{number}-{turn}", turn + 1
                question = asked[(number + turn) % len(asked)]
                connection = http.client.HTTPConnection(host, port, timeout=60)
                try:
                    connection.request("POST", question.path, question.body, {"X-Request-Id": name})
                    response = connection.getresponse()
                    body = response.read()
                except (OSError, http.client.HTTPException):
                    return  # the server is gone; that it had not read this request, its log must show
                assert question.wrong(response.status, body) is None
                answered[name] = response.status

        clients = [pool.submit(client, number) for number in range(6)]
        while len(answered) < 12:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        for one in clients:
            one.result(60)
        assert process.wait(30) in (0, -signal.SIGTERM)
    lines = [line for line in log.read_text().splitlines() if '"request_id"' in line]
    noted = {line["request_id"]: line["status"] for line in (json.loads(line[line.index("{") :]) for line in lines)}
    assert noted == answered and len(answered) >= 12


def test_a_job_that_is_killed_writes_what_an_undisturbed_one_does(tmp_path: Path) -> None:
    whole, killed, times, _ = kills.run(3, 64, tmp_path, python())
    assert times == 3 and whole.num_rows == 64
    assert killed.to_pylist() == whole.to_pylist()
