"""A marker that tests put into requests, and the check that no response contains it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import requests
from PIL import Image

from tests import pictures

MARKER = "zq7Marker5xk"
PICTURE = pictures.to_bytes(Image.fromarray(pictures.clutter(40, 50)))
TEXT = pictures.to_text(PICTURE)
ROW: dict[str, Any] = {
    "image": TEXT,
    "input_points": [[[9, 9]]],
    "input_labels": [[1]],
    "input_boxes": None,
    "multimask_output": False,
    "image_id": "a name",
    "mask_input": None,
}


def check(response: requests.Response) -> None:
    """Check that the errors in a response are short and do not contain the marker, and that the status is below 500."""
    failed = has_failed(response)
    text = response.text if failed else "".join(recorded_errors(response))
    assert MARKER.lower() not in text.lower(), (response.status_code, text[:600])
    assert not failed or len(text) < 2000, text[:300]
    assert response.status_code < 500, text[:600]


def has_failed(response: requests.Response) -> bool:
    """Return whether a response is an error. The errors of X-AnyLabeling have status 200."""
    return response.status_code not in (200, 201) or response.text.startswith('{"success":false')


def recorded_errors(response: requests.Response) -> Iterator[str]:
    """Yield the errors of rows in a successful response."""
    if response.content and "json" in response.headers.get("content-type", ""):
        content = response.json()
        if isinstance(content, dict):
            content = next((content[name] for name in ("predictions", "errors", "results") if name in content), [])
        yield from (str(row["error"]) for row in content if "error" in row)
