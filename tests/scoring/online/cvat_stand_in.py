"""The part of CVAT's server that `cvat-cli task auto-annotate` needs: one task with frames, and its annotations."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

TASK, LABEL = 7, 31
DATE = "2026-01-01T00:00:00.000000Z"


class StandIn:
    """Holds a task, and what is uploaded to it.

    Args:
        frames: PNG files of the frames.
        size: width and height of each.
        label_type: type of the task's only label.
    """

    def __init__(self, frames: Sequence[bytes], size: tuple[int, int], label_type: str = "any") -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as chunk:
            for number, frame in enumerate(frames):
                chunk.writestr(f"{number:06d}.png", frame)
        width, height = size
        user = {"url": "http://a/api/users/1", "id": 1, "username": "a", "first_name": "", "last_name": ""}
        label = {"id": LABEL, "name": "object", "color": "#ffffff", "attributes": [], "type": label_type}
        label |= {"sublabels": [], "has_parent": False, "task_id": TASK}
        self.frames, self.annotations = len(frames), list[Any]()
        self.answers: dict[str, Any] = {
            "/api/server/about": {
                "name": "CVAT", "description": "", "version": "2.80.0", "logo_url": "http://a/b.png", "subtitle": ""
            },
            f"/api/tasks/{TASK}": {
                "id": TASK, "url": f"http://a/api/tasks/{TASK}", "name": "discs", "mode": "annotation", "owner": user,
                "assignee": None, "created_date": DATE, "updated_date": DATE, "overlap": 0, "segment_size": 9,
                "status": "annotation", "dimension": "2d", "size": len(frames), "data_chunk_size": 36, "data": 1,
                "data_original_chunk_type": "imageset", "data_compressed_chunk_type": "imageset", "image_quality": 70,
                "subset": "", "labels": {"url": "http://a/api/labels"}, "jobs": {
                    "count": 1, "completed": 0, "validation": 0, "url": "http://a/api/jobs"
                },
                "project_id": None, "organization": None, "bug_tracker": "",
            },
            "/api/labels": {"count": 1, "next": None, "previous": None, "results": [label]},
            f"/api/tasks/{TASK}/data/meta": {
                "chunk_size": 36, "size": len(frames), "image_quality": 70, "start_frame": 0,
                "chunks_updated_date": DATE, "stop_frame": len(frames) - 1, "frame_filter": "", "deleted_frames": [],
                "included_frames": None,
                "frames": [
                    {"name": f"{number}.png", "width": width, "height": height, "related_files": 0}
                    for number in range(len(frames))
                ],
            },
            f"/api/tasks/{TASK}/data": buffer.getvalue(),
        }  # fmt: skip


@contextmanager
def serving(stand_in: StandIn) -> Iterator[str]:
    """Serve a stand-in until the block ends; yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = stand_in.answers.get(urlsplit(self.path).path.rstrip("/"))
            self.respond(404 if answer is None else 200, answer if answer is not None else {"detail": self.path})

        def do_PATCH(self) -> None:
            stand_in.annotations.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.respond(200, {"version": 1, "tags": [], "shapes": [], "tracks": []})

        do_PUT = do_PATCH

        def respond(self, status: int, answer: Any) -> None:
            is_file = isinstance(answer, bytes)
            body = answer if is_file else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/zip" if is_file else "application/vnd.cvat+json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()
