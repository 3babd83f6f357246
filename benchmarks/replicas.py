"""Compare the prediction of `sizing` with two replicas behind nginx that share an embedding store.

Examples:
  python -m benchmarks replicas --on sam-tiny --output out/replicas.md

The store is an S3 bucket of a moto server on this machine. Each replica runs on one core. First, the stage times are
measured, one request at a time. Then requests arrive at several rates. The table has their latencies and the simulated
ones. The command needs nginx and the extras `s3` and `sizing`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import subjects
from benchmarks.batch import packaged
from benchmarks.endpoint import free_port, server_process
from benchmarks.load import BOUNDS, KEPT, SETTLE, SHARE_NEW, SLOW, Sender
from benchmarks.measure import machine
from benchmarks.open_loop import CLICK, NEW, drive, percentile, plan
from benchmarks.simulation import busy_seconds, simulate
from benchmarks.stages import Endpoint, Stages, measure

REPLICAS = 2
LOADS = (0.3, 0.5, 0.7)  # shares of the rate at which the cores are always busy
NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log stderr;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_max_body_size 64m; client_body_buffer_size 2m; proxy_buffers 16 64k;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream replicas {{ {servers} keepalive 64; }}
  server {{
    listen 127.0.0.1:{port};
    location = /alive {{ return 200; }}
    location / {{
      proxy_pass http://replicas; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_read_timeout 300s;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Comparison:
    """Predicted and measured latencies at one rate.

    Attributes:
        load: share of the time for which the cores are busy, by the measured stage times.
        rate: requests per second.
        requests: number of requests.
        errors: number of failed requests.
        predicted: 50th and 95th percentile in seconds.
        measured: 50th and 95th percentile in seconds.
    """

    load: float
    rate: float
    requests: int
    errors: int
    predicted: tuple[float, float]
    measured: tuple[float, float]

    @property
    def ratio(self) -> float:
        """The predicted 95th percentile divided by the measured one."""
        return self.predicted[1] / self.measured[1]


@contextlib.contextmanager
def nginx(urls: Sequence[str]) -> Iterator[str]:
    """Run nginx as a load balancer that sends requests to servers in turn, and yield its URL."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        raise RuntimeError("nginx is not installed (apt-get install nginx-light)")
    port = free_port()
    servers = " ".join(f"server {url.removeprefix('http://')} max_fails=0;" for url in urls)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "nginx.conf")
        config.write_text(NGINX.format(folder=folder, port=port, servers=servers))
        process = subprocess.Popen([program, "-p", folder, "-c", str(config)], stderr=subprocess.DEVNULL)
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(100):
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"{url}/alive", timeout=5).close()
                    break
                time.sleep(0.1)
            else:
                raise RuntimeError("nginx did not start")
            yield url
        finally:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def s3() -> Iterator[tuple[str, dict[str, str], int]]:
    """Run an S3 server. Yield a folder in a new bucket, the variables that name the server, and its process id."""
    import fsspec

    with server_process(["moto.server", "-H", "127.0.0.1", "-p", "PORT"], "/moto-api/") as (url, pid):
        variables = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "benchmark",
            "AWS_SECRET_ACCESS_KEY": "benchmark",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        fs = fsspec.filesystem("s3", endpoint_url=url, key="benchmark", secret="benchmark")
        fs.mkdir("embeddings")
        yield "s3://embeddings/store", variables, pid


def compare(
    name: str, requests: int, loads: Sequence[float] = LOADS, turns: int = 1
) -> tuple[Stages, list[Comparison]]:
    """Measure the stage times of a replica, then predict and measure latencies at several rates.

    Args:
        name: name of the model.
        requests: number of requests at each rate.
        loads: shares of the rate at which the cores are always busy.
        turns: number of runs at each rate.
    """
    cores = sorted(os.sched_getaffinity(0))
    serve = ["sam_endpoint", "serve", "--model", str(packaged(name)), "--port", "PORT"]
    with s3() as (store, variables, store_pid), contextlib.ExitStack() as stack:
        command = [*serve, "--embedding-store", store]
        replicas = [
            stack.enter_context(server_process(command, "/ready", variables, cores[number % len(cores)]))
            for number in range(REPLICAS)
        ]
        urls = [url for url, _ in replicas]
        balancer = stack.enter_context(nginx(urls))
        first, second = (Endpoint(url, [pid, store_pid]) for url, pid in replicas)
        stages = measure(name, first, replicas[0][1], min(30, requests), second, cores=1)
        sender = Sender(balancer)
        sender.keep(KEPT)
        kept = [range(number, KEPT, REPLICAS) for number in range(REPLICAS)]
        results: list[Comparison] = []
        for turn in range(turns):
            for load in loads:
                results.append(_compare(stages, sender, load, requests, turn, kept if not results else None))
    return stages, results


def _compare(
    stages: Stages, sender: Sender, load: float, requests: int, seed: int, kept: Sequence[Sequence[int]] | None
) -> Comparison:
    """Predict and measure one run. `kept`: the images of each replica; None if each replica keeps all of them."""
    shares = {NEW: SHARE_NEW, CLICK: 1 - SHARE_NEW}
    mean = sum(share * busy_seconds(stages.work[kind], stages.cores) for kind, share in shares.items())
    rate = load * REPLICAS / mean
    bound = BOUNDS.get(stages.model, SLOW)
    arrivals = plan(rate, requests, SHARE_NEW, seed, KEPT, settle=SETTLE * bound)
    known = kept or [range(KEPT)] * REPLICAS
    runs = [simulate(stages.work, arrivals, REPLICAS, stages.cores, known, seed=i) for i in range(10)]
    simulated = [run[NEW] + run[CLICK] for run in runs]
    predicted = [statistics.median(percentile(run, percent) for run in simulated) for percent in (50, 95)]
    sender.prepare(arrivals)
    outcome = drive(sender.send, arrivals)
    measured = outcome.all()
    for reason, count in outcome.errors.most_common(3):
        print(f"failed       {count} requests: {reason}", flush=True)
    return Comparison(
        load,
        rate,
        requests,
        outcome.errors.total(),
        (predicted[0], predicted[1]),
        (percentile(measured, 50), percentile(measured, 95)),
    )


def table(comparisons: Sequence[Comparison]) -> str:
    """Return the comparisons as a Markdown table."""
    lines = [
        "| cores busy | requests per second | requests (failed) | median, predicted | measured "
        "| 95 %, predicted | measured | predicted / measured |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in comparisons:
        times = [f"{value * 1000:,.0f} ms" for pair in zip(one.predicted, one.measured, strict=True) for value in pair]
        lines.append(
            f"| {one.load:.0%} | {one.rate:.3g} | {one.requests} ({one.errors}) | {' | '.join(times)} "
            f"| {one.ratio:.2f} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks replicas", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--on", default="sam-tiny", choices=(*subjects.EMBEDDED, *subjects.RANDOM), help="the model")
    parser.add_argument("--requests", type=int, default=600, help="requests at each rate (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="runs at each rate (default: %(default)s)")
    parser.add_argument(
        "--loads", type=float, nargs="+", default=LOADS, help="shares of full load (default: 0.3 0.5 0.7)"
    )
    parser.add_argument("--output", type=Path, required=True, help="the Markdown file to write; stage times: .json")
    options = parser.parse_args(arguments)
    stages, comparisons = compare(options.on, options.requests, options.loads, options.turns)
    stages.save(options.output.with_suffix(".json"))
    text = f"{stages.model}, {REPLICAS} replicas of one core each, {machine()}\n\n{table(comparisons)}\n"
    options.output.write_text(text)
    print(text)
    print(json.dumps({kind: busy_seconds(works, 1) for kind, works in stages.work.items()}))
    return 0
