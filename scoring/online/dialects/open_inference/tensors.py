"""Read and write tensors of the Open Inference Protocol, in JSON and in binary data."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import pandas as pd

from sam_endpoint.model.budget import RequestLimits
from sam_endpoint.model.errors import BadRequest, describe_name, kind
from sam_endpoint.model.rows import COLUMNS
from sam_endpoint.scoring import json_text
from sam_endpoint.scoring.tables import read_table

FORM = 'a JSON object {"inputs": [{"name", "shape", "datatype", "data"}, ...]}'
MAX_INPUTS = 100
OUTPUT = "predictions"
DATATYPES = {column: "BYTES" for column in COLUMNS} | {"multimask_output": "BOOL"}
_LENGTH = struct.Struct("<I")


def read_body(body: bytes, header_length: int | None) -> tuple[dict[str, Any], bytes]:
    """Split the body of a request into its JSON object and its binary data.

    Args:
        body: the JSON text, followed by the binary data.
        header_length: number of bytes of the JSON text. None if the whole body is JSON text.

    Raises:
        BadRequest: the text is not a JSON object, or `header_length` exceeds the size of the body.
    """
    if header_length is not None and not 0 < header_length <= len(body):
        raise BadRequest(
            "inference-header-content-length: expected the number of bytes of the JSON text, at most "
            f"{len(body):,}, got {header_length:,}"
        )
    end = len(body) if header_length is None else header_length
    payload = json_text.parse(body[:end], FORM)
    if not isinstance(payload, dict):
        raise BadRequest(f"expected {FORM}, got {kind(payload)}")
    return payload, body[end:]


def read_inputs(inputs: object, binary: bytes, limits: RequestLimits) -> pd.DataFrame:
    """Return the table whose columns are the input tensors.

    Args:
        inputs: list of tensors, each of shape [n] or [n, 1].
        binary: data of the tensors with the parameter `binary_data_size`, in the order of the tensors.
        limits: limits of the table.

    Raises:
        BadRequest: the inputs have another form.
        BadInput: two tensors have names of the same column.
    """
    if not isinstance(inputs, list) or not all(isinstance(tensor, dict) for tensor in inputs):
        raise BadRequest(f"inputs: expected a list of tensors, got {kind(inputs)}")
    if len(inputs) > MAX_INPUTS:
        raise BadRequest(f"inputs: expected at most {MAX_INPUTS} tensors, got {len(inputs):,}")
    columns: dict[str, list[Any]] = {}
    position = 0
    for number, tensor in enumerate(inputs):
        name, place = tensor.get("name"), f"inputs[{number}]"
        if not isinstance(name, str) or name in columns:
            raise BadRequest(
                f"{place}.name: expected a text that differs from all other names, got {describe_name(name, COLUMNS)}"
            )
        parameters = tensor.get("parameters", {})
        if not isinstance(parameters, dict):
            raise BadRequest(f"{place}.parameters: expected an object, got {kind(parameters)}")
        count = _row_count(tensor.get("shape"), place)
        limits.check_rows(count)
        if "binary_data_size" in parameters:
            size = parameters["binary_data_size"]
            if not isinstance(size, int) or not 0 <= size <= len(binary) - position:
                raise BadRequest(
                    f"{place}.parameters.binary_data_size: expected at most {len(binary) - position:,}, the number of "
                    f"remaining bytes of the body, got {size if isinstance(size, int) else kind(size)}"
                )
            cells = _binary_cells(binary[position : position + size], tensor.get("datatype"), count, place)
            position += size
        else:
            cells = _flat(tensor.get("data"), place)
        if len(cells) != count:
            got = f"{len(cells):,}" if len(cells) < count else "more"
            raise BadRequest(f"{place}: expected {count:,} elements, the number in its shape, got {got}")
        is_text = name != "image" or parameters.get("content_type") == "base64"
        columns[name] = [_text(cell, place) if is_text else cell for cell in cells]
    if position != len(binary):
        raise BadRequest(
            f"expected {position:,} bytes of binary data, the sum of all binary_data_size, got {len(binary):,}"
        )
    return read_table(columns, "inputs", limits)


def _row_count(shape: object, place: str) -> int:
    if (
        isinstance(shape, list)
        and len(shape) in (1, 2)
        and all(type(side) is int and side >= 0 for side in shape)
        and shape[1:] in ([], [1])
    ):
        return int(shape[0])
    raise BadRequest(f"{place}.shape: expected [rows, 1] or [rows], got {kind(shape)}")


def _flat(data: object, place: str) -> list[Any]:
    """Return the elements of a tensor in JSON, which is a list of elements or a list of one-element lists."""
    if not isinstance(data, list):
        raise BadRequest(f"{place}.data: expected a list, got {kind(data)}")
    return [cell[0] if isinstance(cell, list) and len(cell) == 1 else cell for cell in data]


def _binary_cells(data: bytes, datatype: object, count: int, place: str) -> list[Any]:
    """Return the elements of a binary tensor. If it has more than `count` elements, return the first `count` + 1."""
    if datatype == "BYTES":
        return list(islice(_split(data, place), count + 1))
    if datatype == "BOOL":
        return [byte != 0 for byte in data[: count + 1]]
    raise BadRequest(f"{place}.datatype: expected BYTES or BOOL, got {kind(datatype)}")


def _split(data: bytes, place: str) -> Iterator[bytes]:
    """Yield the elements of a BYTES tensor. A little-endian 32-bit length precedes each element."""
    position = 0
    while position < len(data):
        start = position + _LENGTH.size
        (length,) = _LENGTH.unpack_from(data, position) if start <= len(data) else (len(data),)
        position = start + length
        if position > len(data):
            raise BadRequest(
                f"{place}: expected a length and that many bytes for each element, got data that end early"
            )
        yield data[start:position]


def join(elements: Sequence[bytes]) -> bytes:
    """Return the binary data of a BYTES tensor."""
    return b"".join(_LENGTH.pack(len(element)) + element for element in elements)


def _text(cell: object, place: str) -> Any:
    if not isinstance(cell, bytes):
        return cell
    try:
        return cell.decode()
    except UnicodeDecodeError:
        raise BadRequest(f"{place}: expected elements of UTF-8 text, got {kind(cell)}") from None


def respond_body(
    model: str, request_id: object, predictions: Sequence[bytes], binary: bool, version: str = "1"
) -> tuple[bytes, int | None]:
    """Return the body of a response, and the length of its JSON text (None if the body has no binary data).

    Args:
        model: name of the model.
        request_id: id of the request, which the response repeats; None if the request has no id.
        predictions: JSON text of each row.
        binary: whether to send the predictions as binary data.
        version: version of the model.
    """
    output: dict[str, Any] = {"name": OUTPUT, "datatype": "BYTES", "shape": [len(predictions), 1]}
    data = join(predictions) if binary else b""
    if binary:
        output["parameters"] = {"binary_data_size": len(data)}
    else:
        output["data"] = [prediction.decode() for prediction in predictions]
    content: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": [output]}
    if isinstance(request_id, str):
        content["id"] = request_id
    text = json_text.dump(content)
    return text + data, len(text) if binary else None


def wants_binary(payload: Mapping[str, Any]) -> bool:
    """Return whether a request asks for the predictions as binary data.

    Raises:
        BadRequest: the request asks for another output, or its outputs are not a list.
    """
    outputs = payload.get("outputs")
    parameters = payload.get("parameters")
    if not outputs:
        return isinstance(parameters, dict) and bool(parameters.get("binary_data_output"))
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise BadRequest(f"outputs: expected a list of outputs, got {kind(outputs)}")
    for output in outputs:
        if output.get("name") != OUTPUT:
            raise BadRequest(f"outputs: expected the name {OUTPUT}, got {describe_name(output.get('name'), [OUTPUT])}")
    return any(
        isinstance(output.get("parameters"), dict) and output["parameters"].get("binary_data") for output in outputs
    )
