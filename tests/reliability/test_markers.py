"""A marker in every place of a request, in every dialect: no error's response and no output of the server has it."""

from __future__ import annotations

import gzip
import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import requests
from PIL import Image

from tests import pictures
from tests.conftest import ROOT, free_port, server
from tests.warm import python

MARKER = "zq7Marker5xk"
LOUD = MARKER.upper()
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
PARAMS: dict[str, Any] = {
    "mask_encoding": "rle",
    "on_error": "raise",
    "points_per_side": 1,
    "pred_iou_thresh": 0.5,
    "return_logits": False,
}
SPLIT = {"columns": list(ROW), "index": [3], "data": [list(ROW.values())]}
ROBOFLOW: dict[str, Any] = {"image": {"type": "base64", "value": TEXT}, "image_id": "a name"}
FLAT: dict[str, Any] = {"point_coords": [[9, 9]], "point_labels": [1]}
BODIES: list[tuple[str, dict[str, Any]]] = [
    ("/score", {"input_data": SPLIT, "params": PARAMS}),
    ("/score", {"input_data": [ROW], "params": PARAMS}),
    ("/score", {"input_data": {name: [value] for name, value in ROW.items()}, "params": PARAMS}),
    ("/invocations", {"dataframe_split": SPLIT, "params": PARAMS}),
    ("/invocations", {"dataframe_records": [ROW], "params": PARAMS}),
    ("/invocations", {"instances": [ROW], "params": PARAMS}),
    ("/invocations", {"inputs": {name: [value] for name, value in ROW.items()}, "params": PARAMS}),
    ("/invocations", {"inputs": [ROW], "params": {**PARAMS, "on_error": "record"}}),
    ("/sam/embed_image", {**ROBOFLOW, **FLAT, "format": "json", "sam_version_id": "vit_b"}),
    (
        "/sam/segment_image",
        {**ROBOFLOW, **FLAT, "format": "json", "model_id": "sam/vit_b", "mask_input": None, "has_mask_input": False},
    ),
    ("/sam/segment_image", {**FLAT, "embeddings": [[[[1.0]]]], "orig_im_size": [40, 50], "embeddings_format": "json"}),
    ("/sam2/embed_image", {**ROBOFLOW, **FLAT, "sam2_version_id": "hiera_tiny"}),
    (
        "/sam2/segment_image",
        {
            **ROBOFLOW,
            "prompts": {"prompts": [{"points": [{"x": 9, "y": 9, "positive": True}], "box": None}]},
            "multimask_output": True,
            "format": "rle",
            "mask_input_format": "json",
            "save_logits_to_cache": False,
        },
    ),
    ("/sam2/segment_image", {**ROBOFLOW, "prompts": [{"box": {"x": 9, "y": 9, "width": 4, "height": 4}}]}),
]
LABELS = (
    '<View><Image name="image" value="$image"/><BrushLabels name="mask" toName="image"/>'
    '<PolygonLabels name="outline" toName="image"><Label value="cup"/></PolygonLabels></View>'
)
TASKS: dict[str, Any] = {
    "tasks": [{"id": 1, "data": {"image": f"data:image/png;base64,{TEXT}"}}],
    "label_config": LABELS,
    "project": "1.1",
}
KEYPOINT = {"type": "keypointlabels", "to_name": "image", "is_positive": 1}
LABELLED = {**KEYPOINT, "value": {"x": 20, "y": 20, "keypointlabels": ["cup"]}}
RECTANGLE = {"type": "rectanglelabels", "value": {"x": 20, "y": 20, "width": 9, "height": 9}}
MARKS = [{"type": "point", "data": [9, 9], "label": 1}, {"type": "rectangle", "data": [5, 5, 20, 20], "label": 1}]
TENSOR = {"shape": [1, 1], "datatype": "BYTES"}
BODIES += [
    ("/", {"image": TEXT, "pos_points": [[9, 9]], "neg_points": [[30, 30]], "obj_bbox": [[5, 5], [20, 20]]}),
    ("/setup", {"project": "1.1", "schema": LABELS, "hostname": "http://127.0.0.1:9", "access_token": "a"}),
    ("/predict", {**TASKS, "params": {"context": {"result": [LABELLED, RECTANGLE]}}}),
    ("/embed_tasks", TASKS),
    ("/webhook", {"action": "ANNOTATION_CREATED", "task": {"id": 1}}),
    (
        "/v1/predict",
        {
            "model": "sam-tiny",
            "image": f"data:image/png;base64,{TEXT}",
            "params": {"conf_threshold": 0.1, "epsilon_factor": 0.001, "marks": MARKS},
        },
    ),
    (
        "/v2/models/sam-tiny/infer",
        {
            "id": "7",
            "inputs": [
                {"name": "image", **TENSOR, "data": [TEXT], "parameters": {"content_type": "base64"}},
                {"name": "input_points", **TENSOR, "data": ["[[[9, 9]]]"]},
            ],
            "outputs": [{"name": "predictions", "parameters": {"binary_data": False}}],
            "parameters": {"mask_encoding": "rle"},
        },
    ),
]
# Routes that accept nearly everything, and how many of the requests below they reject at least.
MIN_REFUSED = {"/webhook": -1, "/setup": 15, "/embed_tasks": 30}
URLS = [
    f"http://127.0.0.1:9/{MARKER}?{MARKER}",
    f"{MARKER}://host/path",
    f"file:///{MARKER}",
    f"data:{MARKER},{MARKER}",
]


def mutants(value: Any) -> Iterator[Any]:
    """Yield a JSON value with the marker in each of its places: keys, values and elements of other types."""
    yield from (MARKER, f'"{MARKER}', [MARKER], {MARKER: MARKER}, [[[MARKER]]], *URLS)
    if isinstance(value, dict):
        for name, item in value.items():
            for mutant in mutants(item):
                yield {**value, name: mutant}
            rest = {key: other for key, other in value.items() if key != name}
            yield {**rest, MARKER: item}
            yield {**rest, f"{name}_{MARKER}": item}
        yield {**value, MARKER: MARKER}
    elif isinstance(value, list):
        for i, item in enumerate(value):
            for mutant in mutants(item):
                yield [*value[:i], mutant, *value[i + 1 :]]
        yield [*value, MARKER]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """An endpoint with the embedded models, and its log."""
    port, log = free_port(), tmp_path_factory.mktemp("markers") / "log"
    command = [python(), "-m", "sam_endpoint", "serve", "--port", str(port), "--fetch-seconds", "0.5"]
    command += ["--points", "10"]  # everything in an image would take seconds, and has no more places for markers
    with server(command, port, "/ready", log, PYTHONPATH=str(ROOT)) as url:
        yield url, log


@pytest.fixture(autouse=True)
def silent(served: tuple[str, Path]) -> Iterator[None]:
    """Check what the server wrote during a test."""
    start = served[1].stat().st_size
    yield
    written = served[1].read_text()[start:].lower()
    assert MARKER.lower() not in written, written[max(0, written.index(MARKER.lower()) - 500) :][:1000]


def check(response: requests.Response) -> None:
    failed = has_failed(response)
    text = response.text if failed else "".join(recorded(response))
    assert MARKER.lower() not in text.lower(), (response.status_code, text[:600])
    assert not failed or len(text) < 2000, text[:300]
    assert response.status_code < 500, text[:600]


def has_failed(response: requests.Response) -> bool:
    """Return whether a response is an error. Those of X-AnyLabeling have status 200."""
    return response.status_code not in (200, 201) or response.text.startswith('{"success":false')


def recorded(response: requests.Response) -> Iterator[str]:
    """Yield the errors that an answer holds."""
    if response.content and "json" in response.headers.get("content-type", ""):
        content = response.json()
        rows = content.get("predictions", content.get("errors", [])) if isinstance(content, dict) else content
        yield from (str(row["error"]) for row in rows if "error" in row)


@pytest.mark.parametrize(("path", "body"), BODIES, ids=[f"{path} {next(iter(body))}" for path, body in BODIES])
def test_json(served: tuple[str, Path], path: str, body: dict[str, Any]) -> None:
    refused = 0
    with requests.Session() as session:
        assert session.post(served[0] + path, json=body, timeout=60).status_code in (200, 201, 400)
        for mutant in mutants(body):
            response = session.post(served[0] + path, json=mutant, timeout=60)
            check(response)
            refused += has_failed(response)
        text = json.dumps(body)
        for broken in (
            text + MARKER,
            f'{{"{MARKER}',
            text.replace("[", f"[{MARKER}", 1),
            f"{MARKER}\ud800",
            f'"{MARKER}"',
        ):
            check(session.post(served[0] + path, data=broken.encode("utf-8", "surrogatepass"), timeout=60))
    assert refused > MIN_REFUSED.get(path, 50)


CSV = [
    f"image,input_boxes\n{MARKER}",
    f"image,input_boxes\n{MARKER},[[1,2,3,4]]\n",
    f'image,input_boxes\n"{MARKER},1\n',
    f'image,input_boxes\na,b\n{MARKER},1,2,{MARKER}\n"',
    f"{MARKER},input_boxes\n1,2\n",
    f"{MARKER},{MARKER}\n1,2\n",
    f"image,input_box\n{MARKER},1\n",
    f"image,{MARKER}_boxes\n{MARKER},1\n",
    f"image,multimask_output\n{TEXT},{MARKER}\n",
    f"image,image,image_id\n{MARKER},{MARKER},{MARKER}\n",
    f"image_id\n{MARKER} of no image\n",
    MARKER,
    MARKER * 20_000,
    f"\x00{MARKER}\x00",
    "",
]


@pytest.mark.parametrize("content_type", ["text/csv", "text/csv; charset=utf-8", "TEXT/CSV"])
def test_csv(served: tuple[str, Path], content_type: str) -> None:
    for text in CSV:
        for data in (text.encode(), text.encode("utf-16"), b"\xef\xbb\xbf" + text.encode(), text.encode() + b"\xff"):
            headers = {"content-type": content_type}
            response = requests.post(f"{served[0]}/invocations", data=data, headers=headers, timeout=60)
            check(response)
            assert response.status_code in (400, 404), response.text


def parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer)
    return buffer.getvalue()


def test_parquet(served: tuple[str, Path]) -> None:
    good = parquet(pd.DataFrame([ROW | {"input_boxes": MARKER}]))
    bodies = [
        good,
        good[:-4] + b"PAR2",
        good.replace(MARKER.encode(), LOUD.encode()),
        MARKER.encode(),
        f"PAR1{MARKER}PAR1".encode(),
        parquet(pd.DataFrame({MARKER: [1], f"input_boxes_{MARKER}": ["x"]})),
        parquet(pd.DataFrame({"image": [MARKER]}, index=[MARKER])),
        parquet(pd.DataFrame({"image": [PICTURE], "input_points": [[MARKER]]}, index=pd.Index([MARKER], name=MARKER))),
        parquet(pd.DataFrame({"image_id": [f"{MARKER} of no image"], "input_box": ["x"]})),
    ]
    for body in bodies:
        headers = {"content-type": "application/vnd.apache.parquet"}
        response = requests.post(f"{served[0]}/invocations", data=body, headers=headers, timeout=60)
        check(response)
        assert response.status_code in (400, 404), response.text


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


def test_livepeers_form(served: tuple[str, Path]) -> None:
    url = f"{served[0]}/segment-anything-2"
    image: dict[str, Any] = {"image": (f"{MARKER}.png", PICTURE, f"image/{MARKER}")}
    assert requests.post(url, files=image, data=FORM, timeout=60).status_code == 200
    for name in FORM:
        for value in (MARKER, f"[{MARKER}", f'["{MARKER}"]', f'[["{MARKER}", 1]]', f'{{"{MARKER}": 1}}'):
            check(requests.post(url, files=image, data={**FORM, name: value}, timeout=60))
        check(requests.post(url, files={MARKER: PICTURE}, data={name: FORM[name]}, timeout=60))
        check(requests.post(url, files={**image, name: (MARKER, MARKER.encode())}, data={}, timeout=60))
    check(requests.post(url, files={"image": (MARKER, MARKER.encode())}, data=FORM, timeout=60))
    check(requests.post(url, data={"image": MARKER, **FORM}, timeout=60))
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
            response = requests.post(url, data=body, headers=headers, timeout=60)
            check(response)
            assert response.status_code == 400


@pytest.mark.parametrize(
    "path",
    [
        *("/score", "/invocations", "/sam/embed_image", "/sam2/segment_image", "/segment-anything-2"),
        *("/predict", "/v1/predict", "/v2/models/sam-tiny/infer", "/"),
    ],
)
def test_paths_queries_and_headers(served: tuple[str, Path], path: str) -> None:
    url, body = served[0], json.dumps({"input_data": [ROW], "dataframe_records": [ROW]}).encode()
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
def test_raw_requests(served: tuple[str, Path], request_text: str) -> None:
    host, port = served[0].removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(request_text.encode())
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert MARKER.lower().encode() not in answer.lower(), answer
    assert requests.get(f"{served[0]}/ping", timeout=10).status_code == 200
