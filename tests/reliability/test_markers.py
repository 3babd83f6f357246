"""A marker in every place of JSON, CSV and Parquet bodies of every dialect: no error and no log contains it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
import requests

from tests.reliability.markers import MARKER, PICTURE, ROW, TEXT, check, has_failed

LOUD = MARKER.upper()
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
    ("/sam3/embed_image", {**ROBOFLOW, **FLAT, "model_id": "sam3/sam3_final"}),
    ("/sam3/visual_segment", {**ROBOFLOW, "prompts": [{"points": [{"x": 9, "y": 9}]}], "format": "polygon"}),
    (
        "/sam3/concept_segment",
        {
            **ROBOFLOW,
            "prompts": [
                {
                    "type": "visual",
                    "text": "cup",
                    "boxes": [{"x": 9, "y": 9, "width": 4, "height": 4}],
                    "box_labels": [1],
                    "output_prob_thresh": 0.5,
                }
            ],
            "format": "rle",
            "output_prob_thresh": 0.5,
            "nms_iou_threshold": 0.9,
        },
    ),
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
    ("/image", {"url": "http://127.0.0.1:9/a.png"}),
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
# Minimum number of rejected requests, for routes that accept nearly everything.
MIN_REFUSED = {"/webhook": -1, "/setup": 15, "/embed_tasks": 30, "/image": 20}
URLS = [
    f"http://127.0.0.1:9/{MARKER}?{MARKER}",
    f"{MARKER}://host/path",
    f"file:///{MARKER}",
    f"data:{MARKER},{MARKER}",
]


def mutants(value: Any) -> Iterator[Any]:
    """Yield copies of a JSON value, each with the marker in one place: as a key, a value, or inside another type."""
    yield from (MARKER, f'"{MARKER}', [MARKER], {MARKER: MARKER}, [[[MARKER]]], *URLS)
    if isinstance(value, dict):
        for name, item in value.items():
            for mutant in mutants(item):
                yield {**value, name: mutant}
            others = {key: value[key] for key in value if key != name}
            yield {**others, MARKER: item}
            yield {**others, f"{name}_{MARKER}": item}
        yield {**value, MARKER: MARKER}
    elif isinstance(value, list):
        for i, item in enumerate(value):
            for mutant in mutants(item):
                yield [*value[:i], mutant, *value[i + 1 :]]
        yield [*value, MARKER]


@pytest.mark.parametrize(("path", "body"), BODIES, ids=[f"{path} {next(iter(body))}" for path, body in BODIES])
def test_json_bodies_never_reveal_the_marker(url: str, path: str, body: dict[str, Any]) -> None:
    refused = 0
    with requests.Session() as session:
        assert session.post(url + path, json=body, timeout=60).status_code in (200, 201, 400)
        for mutant in mutants(body):
            response = session.post(url + path, json=mutant, timeout=60)
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
            check(session.post(url + path, data=broken.encode("utf-8", "surrogatepass"), timeout=60))
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
def test_csv_bodies_never_reveal_the_marker(url: str, content_type: str) -> None:
    for text in CSV:
        for data in (text.encode(), text.encode("utf-16"), b"\xef\xbb\xbf" + text.encode(), text.encode() + b"\xff"):
            headers = {"content-type": content_type}
            response = requests.post(f"{url}/invocations", data=data, headers=headers, timeout=60)
            check(response)
            assert response.status_code in (400, 404), response.text


def parquet(table: pd.DataFrame) -> bytes:
    """Return a table as the content of a Parquet file."""
    buffer = io.BytesIO()
    table.to_parquet(buffer)
    return buffer.getvalue()


def test_parquet_bodies_never_reveal_the_marker(url: str) -> None:
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
        response = requests.post(f"{url}/invocations", data=body, headers=headers, timeout=60)
        check(response)
        assert response.status_code in (400, 404), response.text
