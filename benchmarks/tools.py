"""Benchmark case of a labelling tool: a click as Label Studio sends it, compared with the same click at `/score`."""

from __future__ import annotations

import functools
import http.server
import itertools
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import subjects
from benchmarks.batch import packaged
from benchmarks.endpoint import CACHED, post, running_server
from benchmarks.limits import lower_bound
from benchmarks.measure import Cases, Result, measure_alternately
from benchmarks.subjects import SIZE

SCORE, LABEL_STUDIO = "/score", "Label Studio's request"
CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="mask" toName="image"><Label value="object"/>'
    "</BrushLabels></View>"
)


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def label_studio(name: str, turns: int) -> Iterator[Result]:
    """Measure clicks on an image that the endpoint knows. Label Studio names the image by its URL."""
    height, width = SIZE
    points = itertools.cycle(
        (float((box[0] + box[2]) / 2), float((box[1] + box[3]) / 2)) for box in subjects.boxes(64, *SIZE)
    )
    image = subjects.jpeg(subjects.picture(*SIZE))
    command = ["sam_endpoint", "serve", "--model", str(packaged(name)), "--port", "PORT", "--hosts", "127.0.0.1"]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "image.jpg").write_bytes(image)
        handler = functools.partial(_QuietHandler, directory=folder)
        with (
            http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as files,
            running_server(command, "/ready") as url,
        ):
            threading.Thread(target=files.serve_forever, daemon=True).start()
            address = f"http://127.0.0.1:{files.server_port}/image.jpg"

            def ask_score(**image: str) -> None:
                row = {"image_id": CACHED, "input_points": [[next(points)]], **image}
                post(url, "/score", {"input_data": [row], "params": {"mask_encoding": "rle"}})

            def ask_label_studio() -> None:
                x, y = next(points)
                value = {"x": 100 * x / width, "y": 100 * y / height, "keypointlabels": ["object"]}
                context = {"result": [{"type": "keypointlabels", "is_positive": 1, "value": value}]}
                tasks = [{"id": 1, "data": {"image": address}}]
                post(url, "/predict", {"tasks": tasks, "label_config": CONFIG, "params": {"context": context}})

            ask_score(image=address)
            times = measure_alternately({SCORE: ask_score, LABEL_STUDIO: ask_label_studio}, max(turns, 20))
            files.shutdown()
    yield Result("click on a cached image", name, times, floor=lower_bound(name, prompts=1))


CASES: Cases = {
    "label-studio": (label_studio, ("sam-tiny", "vit-b")),
}
