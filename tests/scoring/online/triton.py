"""Triton's published clients, run in the environment .venv/tools: prints what they answer as JSON.

triton.py http URL IMAGE KEY | triton.py grpc ADDRESS IMAGE KEY
"""

from __future__ import annotations

import base64
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

MODEL = "facebook/sam-vit-large"
BOX = b"[[68, 38, 153, 123]]"
PARAMETERS = {"mask_encoding": "rle"}


def tensor(client: Any, name: str, value: Any, datatype: str = "BYTES", **options: Any) -> Any:
    """Return an input of one row."""
    made = client.InferInput(name, [1, 1], datatype)
    made.set_data_from_numpy(np.array([[value]], dtype=object if datatype == "BYTES" else bool), **options)
    return made


def failure(call: Any, *arguments: Any, **options: Any) -> str:
    """Return the message of the error that a call raises."""
    try:
        call(*arguments, **options)
    except Exception as error:
        return str(error)
    raise AssertionError("the call succeeded")


def over_http(url: str, image: bytes, key: str) -> dict[str, Any]:
    import tritonclient.http as triton

    client, headers = triton.InferenceServerClient(url.removeprefix("http://")), {"X-API-Key": key}

    def infer(binary: bool, **options: Any) -> Any:
        data = image if binary else base64.b64encode(image)
        inputs = [
            tensor(triton, "image", data, binary_data=binary),
            tensor(triton, "input_boxes", BOX, binary_data=binary),
            tensor(triton, "multimask_output", False, "BOOL", binary_data=binary),
        ]
        outputs = [triton.InferRequestedOutput("predictions", binary_data=binary)]
        result = client.infer(
            MODEL, inputs, outputs=outputs, request_id="7", headers=dict(headers), parameters=PARAMETERS, **options
        )  # `infer` adds to the headers that it is given
        return described(result.as_numpy("predictions"), result.get_response())

    box = tensor(triton, "input_boxes", BOX)
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(MODEL, headers=headers),
        "unknown_ready": client.is_model_ready("nothing", headers=headers),
        "server": client.get_server_metadata(headers=headers),
        "model": client.get_model_metadata(MODEL, headers=headers),
        "version_ready": client.is_model_ready(MODEL, "1", headers=headers),
        "version": client.get_model_metadata(MODEL, "1", headers=headers),
        "binary": infer(True),
        "json": infer(False),
        "versioned": infer(True, model_version="1"),
        "gzip": infer(True, request_compression_algorithm="gzip"),
        "no_key": failure(client.infer, MODEL, [box]),
        "unknown_model": failure(client.infer, "sam-tinny", [box], headers=headers),
        "no_image": failure(client.infer, MODEL, [box], headers=headers),
        "wrong_output": failure(
            client.infer, MODEL, [box], outputs=[triton.InferRequestedOutput("masks")], headers=headers
        ),
    }


def over_grpc(address: str, image: bytes, key: str) -> dict[str, Any]:
    import tritonclient.grpc as triton

    client, headers = triton.InferenceServerClient(address), {"authorization": f"Bearer {key}"}
    inputs = [
        tensor(triton, "image", image),
        tensor(triton, "input_boxes", BOX),
        tensor(triton, "multimask_output", False, "BOOL"),
    ]
    result = client.infer(MODEL, inputs, request_id="7", headers=headers, parameters=PARAMETERS)
    response = result.get_response()
    # Everything in the image takes many seconds; the call is given up after one.
    started = time.monotonic()
    slow = {"points_per_side": 100, "crop_n_layers": 0}
    late = failure(client.infer, MODEL, inputs[:1], headers=headers, parameters=slow, client_timeout=1)
    again = client.infer(MODEL, inputs, headers=headers, parameters=PARAMETERS)
    seconds = time.monotonic() - started
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(MODEL, headers=headers),
        "unknown_ready": failure(client.is_model_ready, "nothing", headers=headers),
        "server": client.get_server_metadata(headers=headers, as_json=True),
        "model": client.get_model_metadata(MODEL, headers=headers, as_json=True),
        "answer": described(result.as_numpy("predictions"), {"id": response.id, "model_name": response.model_name}),
        "late": late,
        "after_late": described(again.as_numpy("predictions"), {}),
        "seconds": seconds,
        "no_key": failure(client.infer, MODEL, inputs),
        "wrong_key": failure(client.infer, MODEL, inputs, headers={"x-api-key": "wrong"}),
        "unknown_model": failure(client.infer, "sam-tinny", inputs, headers=headers),
        "no_image": failure(client.infer, MODEL, inputs[1:], headers=headers),
    }


def described(predictions: np.ndarray, response: dict[str, Any]) -> dict[str, Any]:
    """Return an answer as JSON."""
    ((text,),) = predictions.tolist()
    return {
        "shape": predictions.shape,
        "row": json.loads(text),
        "id": response.get("id"),
        "model": response.get("model_name"),
    }


if __name__ == "__main__":
    protocol, address, file, key = sys.argv[1:]
    print(json.dumps({"http": over_http, "grpc": over_grpc}[protocol](address, Path(file).read_bytes(), key)))
