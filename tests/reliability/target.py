"""The endpoint under attack, and how attacks send their requests to it."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import requests
from PIL import Image

from tests import pictures

KEY = "attacker"
LOOSE: dict[str, Any] = {
    "pred_iou_thresh": 0.0,
    "stability_score_thresh": 0.0,
    "box_nms_thresh": 1.0,
    "mask_encoding": "rle",
}


@dataclass(frozen=True)
class Target:
    """The endpoint under attack.

    Attributes:
        url: its URL.
        until: the time of the monotonic clock at which the attack ends.
    """

    url: str
    until: float

    @property
    def over(self) -> bool:
        """Whether the attack has ended."""
        return time.monotonic() >= self.until

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    def post(self, path: str, body: bytes, kind: str = "application/json", key: str = KEY, **headers: str) -> int:
        """Send a body repeatedly until the attack ends. Return the last status."""
        status = 0
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        with requests.Session() as session:
            while not self.over:
                with contextlib.suppress(requests.RequestException):
                    keyed = {**names, "content-type": kind, **({"x-api-key": key} if key else {})}
                    timeout = max(1.0, self.until - time.monotonic())
                    status = session.post(self.url + path, data=body, headers=keyed, timeout=timeout).status_code
        return status


def scored(params: dict[str, Any], size: tuple[int, int] = (64, 64), rows: int = 1, **row: Any) -> bytes:
    """Return the body of a `/score` request for a small picture."""
    image = pictures.to_text(pictures.to_bytes(Image.effect_noise(size, 90).convert("RGB")))
    return json.dumps({"input_data": [{"image": image, **row}] * rows, "params": params}).encode()


def in_threads(count: int, attack: Callable[[], object]) -> None:
    """Run an attack in many threads at once."""
    threads = [threading.Thread(target=attack) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def once(target: Target, path: str, body: bytes, kind: str = "application/json", key: str = KEY, **more: str) -> None:
    """Send one request, within the time of the attack."""
    headers = {name.replace("_", "-"): value for name, value in more.items()} | {"content-type": kind}
    timeout = max(1.0, target.until - time.monotonic())
    with contextlib.suppress(requests.RequestException):
        requests.post(target.url + path, data=body, headers={**headers, "x-api-key": key}, timeout=timeout)
