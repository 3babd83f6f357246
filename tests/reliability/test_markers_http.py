"""A marker in forms, paths, queries, headers and raw requests: no error and no log contains it."""

from __future__ import annotations

import gzip
import json
import socket
from typing import Any

import pytest
import requests

from tests.reliability.markers import MARKER, PICTURE, ROW, check

FORM = {
    "model_id": "",
    "point_coords": "[[9, 9]]",
    "point_labels": "[1]",
    "box": "",
    "mask_input": "",
    "multimask_output": "true",
    "return_logits": "false",
    "normalize_coords": "true",
    "safety_check": "true",
}


def test_form_bodies_never_reveal_the_marker(url: str) -> None:
    form_url = f"{url}/segment-anything-2"
    image: dict[str, Any] = {"image": (f"{MARKER}.png", PICTURE, f"image/{MARKER}")}
    assert requests.post(form_url, files=image, data=FORM, timeout=60).status_code == 200
    for name in FORM:
        for value in (MARKER, f"[{MARKER}", f'["{MARKER}"]', f'[["{MARKER}", 1]]', f'{{"{MARKER}": 1}}'):
            check(requests.post(form_url, files=image, data={**FORM, name: value}, timeout=60))
        check(requests.post(form_url, files={MARKER: PICTURE}, data={name: FORM[name]}, timeout=60))
        check(requests.post(form_url, files={**image, name: (MARKER, MARKER.encode())}, data={}, timeout=60))
    check(requests.post(form_url, files={"image": (MARKER, MARKER.encode())}, data=FORM, timeout=60))
    check(requests.post(form_url, data={"image": MARKER, **FORM}, timeout=60))
    part = f'--b\r\nContent-Disposition: form-data; name="{MARKER}"\r\n\r\n{MARKER}'
    for body in (part, part + MARKER, f"--b\r\n{MARKER}: {MARKER}\r\n\r\n--b--", f"--b{MARKER}", MARKER):
        for boundary in (
            "; boundary=b",
            f"; boundary={MARKER}",
            f"; {MARKER}",
            "",
            '; boundary="b"; charset=' + MARKER,
        ):
            headers = {"content-type": f"multipart/form-data{boundary}"}
            response = requests.post(form_url, data=body, headers=headers, timeout=60)
            check(response)
            assert response.status_code == 400


@pytest.mark.parametrize(
    "path",
    [
        *("/score", "/invocations", "/sam/embed_image", "/sam2/segment_image", "/segment-anything-2"),
        *("/predict", "/v1/predict", "/v2/models/sam-tiny/infer", "/", "/image"),
    ],
)
def test_paths_queries_and_headers_never_reveal_the_marker(url: str, path: str) -> None:
    body = json.dumps({"input_data": [ROW], "dataframe_records": [ROW]}).encode()
    for place in (f"{path}/{MARKER}", f"/{MARKER}{path}", f"/page/{MARKER}", f"/{MARKER}?{MARKER}", f"{path};{MARKER}"):
        for method in ("GET", "POST", "HEAD", "DELETE"):
            check(requests.request(method, url + place, data=body, timeout=60))
    for query in (f"model={MARKER}", f"model=sam/{MARKER}", f"{MARKER}={MARKER}", f"model[]={MARKER}", f"%zz{MARKER}"):
        check(requests.post(f"{url}{path}?{query}", data=body, timeout=60))
        check(requests.put(f"{url}{path}?{query}", data=body, timeout=60))
    types = (
        "",
        f"{MARKER}",
        f"application/{MARKER}",
        f"application/json; {MARKER}",
        f"application/json; charset={MARKER}",
    )
    for content_type in (*types, f"text/csv; {MARKER}={MARKER}", f"application/x-www-form-urlencoded; {MARKER}"):
        check(
            requests.post(url + path, data=body + MARKER.encode(), headers={"content-type": content_type}, timeout=60)
        )
    for name, value in (
        ("content-encoding", MARKER),
        ("x-request-id", f"{MARKER} {MARKER}"),
        ("host", MARKER),
        ("origin", f"https://{MARKER}"),
        ("authorization", f"Bearer {MARKER}"),
        ("expect", MARKER),
        (MARKER, MARKER),
    ):
        check(requests.post(url + path, data=body, headers={name: value}, timeout=60))
    packed = gzip.compress(MARKER.encode())
    for data in (packed, packed[:-9], packed + MARKER.encode(), MARKER.encode()):
        check(requests.post(url + path, data=data, headers={"content-encoding": "gzip"}, timeout=60))


@pytest.mark.parametrize(
    "request_text",
    [
        f"{MARKER} {MARKER}\r\n\r\n",
        f"POST /score {MARKER}\r\n\r\n",
        f"{MARKER} /score HTTP/1.1\r\nHost: a\r\n\r\n",
        f"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: {MARKER}\r\n\r\n{MARKER}",
        f"POST /score HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {MARKER}\r\n\r\n{MARKER}",
        f"POST /score HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{MARKER}\r\n",
        f"POST /score HTTP/1.1\r\nHost: a\r\n{MARKER}\r\n\r\n",
        f"GET /{MARKER}%00%ff HTTP/1.1\r\nHost: a\r\n\r\n",
        f"GET http://{MARKER}/{MARKER} HTTP/1.1\r\nHost: a\r\n\r\n",
        f"GET /models HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {MARKER}\r\n\r\n",
        f"GET /{MARKER} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: "
        f"{MARKER}\r\nSec-WebSocket-Version: 13\r\n\r\n",
    ],
    ids=range(11),
)
def test_raw_requests_never_reveal_the_marker(url: str, request_text: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(request_text.encode())
        answer = connection.recv(4096)
        connection.shutdown(socket.SHUT_WR)
        answer += b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 ")
    assert MARKER.lower().encode() not in answer.lower(), answer
    assert requests.get(f"{url}/ping", timeout=10).status_code == 200
