"""Functions that send requests to an endpoint and read its metrics."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import requests

from tests.conftest import Json

KEY = "correct horse"
OTHER_KEY = "battery staple"
BOX = "[[68, 38, 153, 123]]"
AUTH = {"authorization": f"Bearer {KEY}"}


def post(url: str, path: str, body: Json, key: str = KEY) -> Any:
    """Send a value as JSON with a key, and return the response."""
    return requests.post(url + path, json=body, headers={"authorization": f"Bearer {key}"}, timeout=60)


def error_message(response: requests.Response, keys: tuple[str, ...]) -> Any:
    """Return the message in an error.

    Args:
        response: response that is an error.
        keys: keys from the JSON value of the response down to the message, which depend on the dialect.
    """
    value: Any = response.json()
    for key in keys:
        value = value[key]
    return value


def post_bytes(url: str, body: bytes, content_type: str = "application/json") -> tuple[int, Any]:
    """Send a body without a key, and return the status and the JSON value of the response."""
    request = urllib.request.Request(url, body, {"Content-Type": content_type})
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def score_click(url: str, image: str) -> Any:
    """Score a click on an image, base64 text, without a key, and return the response."""
    body: dict[str, Json] = {"input_data": [{"image": image, "input_points": [[[9, 9]]]}]}
    return requests.post(f"{url}/score", json=body, timeout=60)


def base64_image(picture: Path) -> dict[str, str]:
    """Return a file as an image of Roboflow's dialect."""
    return {"type": "base64", "value": base64.b64encode(picture.read_bytes()).decode()}


def click_prompt() -> dict[str, Any]:
    """Return a click on the disc as prompts of Roboflow's SAM 2 routes."""
    return {"prompts": {"prompts": [{"points": [{"x": 110, "y": 80, "positive": True}]}]}}


def metric(url: str, line: str) -> float:
    """Return a value of `/metrics` by its name and labels, or 0 if it does not exist yet."""
    lines = requests.get(f"{url}/metrics", timeout=10).text.splitlines()
    values = [text.split()[-1] for text in lines if text.startswith(line + " ")]
    return float(values[0]) if values else 0.0


def in_flight(url: str) -> float:
    """Return the number of requests in flight."""
    lines = requests.get(f"{url}/metrics", timeout=10).text.splitlines()
    return float(next(line for line in lines if line.startswith("sam_requests_in_flight ")).split()[1])
