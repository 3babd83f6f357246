"""Encode the images of a Label Studio project, so that the annotators' first clicks do not wait for the encoder.

    python embed_tasks.py --label-studio http://localhost:8080 --token TOKEN --project 1 \
        --endpoint http://localhost:5000

The endpoint caches the embeddings. Start the endpoint with `--embedding-store`, or with `--embedding-bytes` that are
enough for the embeddings of all images. The script needs only Python. If an image cannot be read, the script names the
task and exits with status 1.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

PAGE = 100  # number of tasks in one request to Label Studio
BATCH = 10  # number of tasks in one request to the endpoint


class RequestError(Exception):
    """A server responded with an error, or did not respond."""


def send(url: str, headers: dict[str, str], body: dict[str, Any] | None = None) -> Any:
    """Send a POST request if there is a body, else a GET request. Return the JSON value of the response.

    Raises:
        RequestError: the server responds with an error, or does not respond.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=600) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise RequestError(f"{url}: status {error.code}: {error.read()[:500].decode(errors='replace')}") from None
    except urllib.error.URLError as error:
        raise RequestError(f"{url}: {error.reason}") from None


def list_tasks(label_studio: str, headers: dict[str, str], project: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the tasks of a project, page by page."""
    number, seen, total = 0, 0, 1
    while seen < total:
        number += 1
        page = send(f"{label_studio}/api/tasks?project={project}&page={number}&page_size={PAGE}", headers)
        if not page["tasks"]:
            return
        seen, total = seen + len(page["tasks"]), page["total"]
        yield page["tasks"]


def main() -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--label-studio", required=True, help="URL at which the endpoint reaches Label Studio")
    parser.add_argument("--token", required=True, help="access token (legacy token) of a Label Studio user")
    parser.add_argument("--project", required=True, type=int, help="number of the project")
    parser.add_argument("--endpoint", required=True, help="URL of the endpoint")
    parser.add_argument("--key", default="", help="API key of the endpoint, the password of the ML backend")
    options = parser.parse_args()
    label_studio, endpoint = options.label_studio.rstrip("/"), options.endpoint.rstrip("/")
    own = {"Authorization": f"Token {options.token}"}
    key = {"X-API-Key": options.key} if options.key else {}
    embedded = failed = 0
    try:
        project = send(f"{label_studio}/api/projects/{options.project}", own)
        created = datetime.datetime.fromisoformat(project["created_at"].replace("Z", "+00:00"))
        # Label Studio's requests to ML backends use this name for the project.
        name = f"{options.project}.{int(created.timestamp())}"
        send(f"{endpoint}/setup", key, {"project": name, "hostname": label_studio, "access_token": options.token})
        for page in list_tasks(label_studio, own, options.project):
            for start in range(0, len(page), BATCH):
                tasks = [{"id": task["id"], "data": task["data"]} for task in page[start : start + BATCH]]
                body = {"project": name, "label_config": project["label_config"], "tasks": tasks}
                answer = send(f"{endpoint}/embed_tasks", key, body)
                embedded, failed = embedded + answer["embedded"], failed + len(answer["errors"])
                for error in answer["errors"]:
                    print(f"task {tasks[error['task']]['id']}: {error['error']}", file=sys.stderr)
                print(f"{embedded} images encoded", flush=True)
    except RequestError as error:
        print(error, file=sys.stderr)
        return 2
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
