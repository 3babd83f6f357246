"""Requests that try to break the server: each fails soon with status 400, and the server continues to work."""

from __future__ import annotations

import base64
import gc
import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from PIL import Image

from sam_endpoint.model.mlflow import package
from sam_endpoint.scoring.online.catalog import Catalog
from sam_endpoint.scoring.online.settings import EndpointSettings
from tests import pictures
from tests.conftest import Json, serve_endpoint


@pytest.fixture(scope="module")
def url(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run an endpoint with the starter models, and return its URL."""
    with serve_endpoint(tmp_path_factory.mktemp("hostile") / "log") as base:
        yield base


PICTURE = pictures.to_text(pictures.to_bytes(Image.fromarray(pictures.clutter(60, 80))))
ROW: dict[str, Json] = {"image": PICTURE, "input_points": [[[9, 9]]]}
SAM = {"image": {"type": "base64", "value": PICTURE}, "point_coords": [[9, 9]], "point_labels": [1]}
HUGE = 10**400


def npy(head: bytes) -> str:
    """Return a .npy file with this header as base64 text."""
    return base64.b64encode(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head).decode()


def saved_array(array: np.ndarray) -> str:
    """Return an array as a .npy file in base64 text."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return base64.b64encode(buffer.getvalue()).decode()


def npy_header(shape: str, kind: str = "<f4") -> bytes:
    """Return the header of a .npy file."""
    return f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()


ARRAYS = {
    "a zip file": base64.b64encode(b"PK\x03\x04 and more").decode(),
    "a shape beyond all memory": npy(npy_header("(1180591620717411303424, 2)")),
    "a shape of 10 terabytes": npy(npy_header("(1000000, 2621440)")),
    "a shape of bools": npy(npy_header("(True, 2)")),
    "an open bracket": npy(b"{'descr': (((("),
    "no text at all": npy(b"{[]: 1}\n"),
    "text": saved_array(np.array(["a", "b"])),
    "a struct": saved_array(np.zeros(3, dtype=[("a", "f4"), ("b", "i4")])),
    "nothing": saved_array(np.zeros((0, 5), np.float32)),
    "numbers too large": saved_array(np.full((180, 180), 3e38, np.float32)),
    "NaN": saved_array(np.full((180, 180), np.nan, np.float32)),
}
LISTS: dict[str, Any] = {
    "an empty list": [],
    "a huge number": [[HUGE]],
    "numbers too large": np.full((1, 180, 180), 1e38).tolist(),
    "a far vertex": [[[2e8, 0], [5, 5], [1, 9]]],
    "a very far vertex": [[[-1e300, 0], [5, 5], [1, 9]]],
    "many vertices": [[[i % 100, i % 97] for i in range(20_000)]],
    "many polygons": [[[0, 0], [9, 0], [9, 9]]] * 5000,
}
CASES: list[tuple[str, str, Any]] = [
    *(
        (f"/score mask_input {name}", "/score", {"input_data": [{**ROW, "mask_input": text}]})
        for name, text in ARRAYS.items()
    ),
    *(
        (
            f"{path} mask_input {name}",
            path,
            {**SAM, "has_mask_input": True, "mask_input": text, "mask_input_format": "binary"},
        )
        for name, text in ARRAYS.items()
        for path in ("/sam/segment_image", "/sam2/segment_image")
    ),
    *(
        (f"{path} mask_input {name}", path, {**SAM, "has_mask_input": True, "mask_input": value})
        for name, value in LISTS.items()
        for path in ("/sam/segment_image", "/sam2/segment_image")
    ),
    *(
        (
            f"embeddings {name}",
            "/sam/segment_image",
            {"embeddings": value, "orig_im_size": size, "point_coords": [[9, 9]]},
        )
        for name, value, size in (
            ("of other channels", np.zeros((1, 7, 45, 45)).tolist(), [60, 80]),
            ("of text", [["a"]], [60, 80]),
            ("of a huge number", [HUGE], [60, 80]),
            ("of a huge image", np.zeros((1, 128, 45, 45)).tolist(), [2**62, 2**62]),
            ("of a long image", np.zeros((1, 128, 45, 45)).tolist(), [1, 2**40]),
            ("of an endless image", np.zeros((1, 128, 45, 45)).tolist(), [10**30, 1]),
        )
    ),
    ("a huge box", "/sam2/segment_image", {**SAM, "prompts": [{"box": {"x": 1, "y": 1, "width": HUGE, "height": 1}}]}),
    (
        "a huge example",
        "/sam3/concept_segment",
        {**SAM, "prompts": [{"boxes": [{"x": 1, "y": 1, "width": HUGE, "height": 1}]}]},
    ),
    ("a long image_id", "/score", {"input_data": [{**ROW, "image_id": "x" * 10_000}]}),
    ("a long image_id", "/sam/embed_image", {"image": SAM["image"], "image_id": "x" * 10_000}),
]


@pytest.mark.parametrize(("path", "body"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_rejects_huge_and_malformed_values(url: str, path: str, body: Any) -> None:
    answer = requests.post(url + path, data=json.dumps(body), timeout=20)
    assert answer.status_code == 400, answer.text[:300]
    assert "expected" in answer.text or "at most" in answer.text
    assert requests.post(f"{url}/score", json={"input_data": [ROW]}, timeout=20).status_code == 200


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_rejects_json_in_another_encoding_than_utf8(url: str, encoding: str) -> None:
    answer = requests.post(f"{url}/score", data=json.dumps({"input_data": [ROW]}).encode(encoding), timeout=20)
    assert answer.status_code == 400 and "UTF-8" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/score", "/invocations", "/sam2/segment_image"])
def test_rejects_bytes_that_are_not_utf8(url: str, path: str) -> None:
    answer = requests.post(url + path, data=b'{"input_data": [{"image_id": "\xed\xa0\x80"}]}', timeout=20)
    assert answer.status_code == 400 and "UTF-8" in answer.text


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/csv", 'image,more\nSECRET,2,3,4\n"'),
        ("application/vnd.apache.parquet", "SECRET"),
        ("application/json", '{"inputs": SECRET'),
        ("application/json", '{"dataframe_records": [{"image": "SECRET"}], "params": {"mask_encoding": 7}}'),
        ("application/json", '{"dataframe_split": {"columns": ["image"], "data": [["SECRET", 1]]}}'),
        ("application/json", '{"messages": "SECRET"}'),
        ("application/json", json.dumps({"dataframe_records": [{f"SECRET{i}": 1} for i in range(3000)]})),
    ],
)
def test_errors_of_mlflow_contain_neither_code_nor_data(url: str, kind: str, body: str) -> None:
    answer = requests.post(f"{url}/invocations", data=body, headers={"content-type": kind}, timeout=5)
    assert answer.status_code == 400 and set(answer.json()) == {"error_code", "message"}
    assert len(answer.json()["message"]) > 20
    assert not any(word in answer.text for word in ("SECRET", "Traceback", "site-packages"))


@pytest.mark.parametrize("form", ["records", "columns"])
def test_a_table_of_many_columns_does_not_delay_other_requests(url: str, form: str) -> None:
    records: list[Json] = [{f"c{i}": 1, **(ROW if i == 0 else {"image_id": "none"})} for i in range(8000)]
    columns: dict[str, Json] = {f"c{i}": [1] for i in range(50_000)} | {name: [value] for name, value in ROW.items()}
    body: Json = {"input_data": records if form == "records" else columns, "params": {"on_error": "record"}}
    latencies: list[float] = []

    def poll() -> None:
        while not finished.is_set():
            start = time.monotonic()
            requests.get(f"{url}/ready", timeout=60)
            latencies.append(time.monotonic() - start)

    finished, poller = threading.Event(), threading.Thread(target=poll)
    poller.start()
    answer = requests.post(f"{url}/score", json=body, timeout=60)
    finished.set()
    poller.join()
    message = "at most 1,000 rows a request, got 8,000" if form == "records" else "at most 1,000 columns, got 50,0"
    assert answer.status_code == 400 and message in answer.json()["error"]["message"]
    assert max(latencies) < 4  # it took 17 s when the parser ran on the thread of the event loop


MILLION = [[1, 2]] * 10**6  # a million references to the same list, which takes little memory


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/score", {"input_data": [{**ROW, "input_points": [MILLION]}]}),
        ("/invocations", {"dataframe_records": [{**ROW, "input_points": [MILLION]}]}),
        ("/sam/segment_image", {**SAM, "point_coords": MILLION}),
        ("/sam2/segment_image", {"prompts": {"prompts": [{"points": [{"x": 1, "y": 2, "positive": True}]}] * 500_000}}),
    ],
)
def test_rejects_far_too_many_prompts_before_it_reads_them(url: str, path: str, body: Any) -> None:
    answer = requests.post(url + path, data=json.dumps(body), timeout=60)
    assert answer.status_code == 400
    assert "at most 100,000 lists and objects, got" in answer.text


def repeated_text(times: int, length: int = 200_000) -> pa.Array:
    """Return a column that contains the same long text several times, but stores it once."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(times, np.int32)), pa.array(["x" * length]))


def list_of_zeros(numbers: int) -> pa.Array:
    """Return a column of one list of zeros."""
    return pa.ListArray.from_arrays([0, numbers], pa.array(np.zeros(numbers)))


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"image": pa.array(["x"] * 2_000_000)}, "at most 1,000 rows a request, got 2,000,000"),
        ({f"c{i}": [1] for i in range(1001)}, "at most 1,000 columns, got 1,001"),
        ({"image": pa.array([[[]] * 600_000])}, "at most 300,000 rows, texts and lists, got 600,00"),
        ({"image": repeated_text(900, 400_000)}, "at most 268,435,456 uncompressed bytes, got 36"),
        (
            {"image": pa.ListArray.from_arrays([0, 20_000], repeated_text(20_000))},
            "at most 1,073,741,824 bytes of memory and 10 s",
        ),
        (
            {"image": pa.ListArray.from_arrays([0, 1_400], repeated_text(1_400))},
            "at most 268,435,456 uncompressed bytes, got 28",
        ),
        ({"image": list_of_zeros(34_000_000)}, "at most 1,073,741,824 bytes of memory and 10 s"),
    ],
)
def test_rejects_a_parquet_file_that_expands_to_much_data(url: str, table: dict[str, pa.Array], expected: str) -> None:
    buffer = io.BytesIO()
    # Without the schema of Arrow in the file, a reader cannot see that the text is stored only once.
    pq.write_table(pa.table(table), buffer, compression="zstd", store_schema=False)
    assert len(buffer.getvalue()) < 1_100_000
    kind = {"content-type": "application/vnd.apache.parquet"}
    answer = requests.post(f"{url}/invocations", data=buffer.getvalue(), headers=kind, timeout=60)
    assert answer.status_code == 400 and expected in answer.json()["message"]


def test_rejects_broken_parquet_files(url: str) -> None:
    buffer, kind = io.BytesIO(), {"content-type": "application/vnd.apache.parquet"}
    pq.write_table(pa.table({"image": [PICTURE] * 9}), buffer)
    good = buffer.getvalue()
    twice = io.BytesIO()
    pq.write_table(pa.table([pa.array([PICTURE])] * 2, names=["image", "image"]), twice)
    footer = good[:-40] + b"\xff" * 32 + good[-8:]
    page = good[:4] + b"\xff" * 60 + good[64:]

    for body in (footer, page, b"PAR1" + bytes(4) + b"PAR1", twice.getvalue()):
        answer = requests.post(f"{url}/invocations", data=body, headers=kind, timeout=60)
        assert answer.status_code == 400 and len(answer.json()["message"]) > 20
        assert not any(word in answer.text for word in ("Traceback", "site-packages"))


def test_no_changed_byte_of_a_parquet_file_stops_the_server(url: str) -> None:
    """Some of these files would abort a process that reads them with pyarrow."""
    buffer, kind = io.BytesIO(), {"content-type": "application/vnd.apache.parquet"}
    pq.write_table(pa.table({"image": ["x" * 50] * 9, "input_boxes": [[[1.0, 2.0, 3.0, 4.0]]] * 9}), buffer)
    good = buffer.getvalue()
    footer = len(good) - 8 - int.from_bytes(good[-8:-4], "little")
    for i in range(footer + 3, footer + 100, 8):
        body = bytearray(good)
        body[i] = (body[i] + 1) % 256
        assert requests.post(f"{url}/invocations", data=bytes(body), headers=kind, timeout=60).status_code == 400


def test_rejects_an_image_whose_response_in_livepeers_dialect_is_too_large(url: str) -> None:
    image = pictures.to_bytes(Image.new("1", (6000, 6000)))
    answer = requests.post(f"{url}/segment-anything-2", files={"image": image}, data={"box": "[1,1,9,9]"}, timeout=60)
    assert answer.status_code == 400 and "pixels together" in answer.json()["detail"]["msg"]


def test_an_evicted_model_leaves_no_threads(tmp_path: Path) -> None:
    text = f"default: a\nmodels: {{a: {{checkpoint: {package.EMBEDDED}}}, b: {{checkpoint: {package.EMBEDDED_SAM2}}}, "
    (tmp_path / "catalog.yaml").write_text(text + f"c: {{checkpoint: {package.EMBEDDED}}}}}\n")
    catalog = Catalog(EndpointSettings(catalog=tmp_path / "catalog.yaml", model_bytes=1))
    counts = []
    for _ in range(3):
        for name in ("b", "c"):
            segmenter = catalog.get(name).engine.segmenter
            segmenter.segment(segmenter.embed([pictures.clutter(40, 50)])[0], [])
            del segmenter
        gc.collect()
        time.sleep(0.2)
        counts.append(threading.active_count())
    assert counts[0] == counts[1] == counts[2]


FORM_HEAD = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(FORM_HEAD + b"\r\n--x-" * 5_000_000 + b"\r\n--x--\r\n", id="false boundaries"),
        pytest.param(FORM_HEAD + b"a\r\n--x" + b" " * 30_000_000 + b"\r\n", id="spaces after a boundary"),
        pytest.param((FORM_HEAD + b"a\r\n") * 100_000 + b"--x--\r\n", id="many files"),
        pytest.param(FORM_HEAD + b"a\r\n--x", id="no end"),
    ],
)
@pytest.mark.parametrize("name", ["boundary", "Boundary"])
def test_forms_that_are_slow_to_parse_are_rejected_before_they_are_parsed(url: str, form: bytes, name: str) -> None:
    before = stage_seconds(url, "parse")
    kind = {"content-type": f"multipart/form-data; {name}=x"}
    answer = requests.post(f"{url}/segment-anything-2", data=form, headers=kind, timeout=60)
    assert answer.status_code == 400
    assert stage_seconds(url, "parse") - before < 2  # the parser takes 5 to 7 s for the first two


def stage_seconds(url: str, stage: str) -> float:
    """Return the seconds that requests have spent in a stage, from the metrics of the endpoint."""
    prefix = f'sam_stage_seconds_sum{{stage="{stage}"}} '
    lines = requests.get(f"{url}/metrics", timeout=60).text.splitlines()
    return sum(float(line.removeprefix(prefix)) for line in lines if line.startswith(prefix))
