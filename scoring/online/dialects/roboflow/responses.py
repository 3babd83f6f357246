"""Write masks and arrays in the response formats of Roboflow Inference."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import Request
from starlette.responses import JSONResponse, Response

from sam_endpoint.model.call import Call
from sam_endpoint.model.masks import CroppedMask, to_rle
from sam_endpoint.scoring.online.dialects.base import ChunkedJsonResponse
from sam_endpoint.scoring.online.dialects.best_masks import BestMask, polygons
from sam_endpoint.scoring.online.served_model import ServedModel


def rle(mask: np.ndarray | CroppedMask) -> dict[str, Any]:
    """Return a mask as COCO's compressed run-length encoding, with `counts` as text.

    Example:
        >>> rle(np.array([[False, True], [False, True]]))
        {'size': [2, 2], 'counts': '22'}
    """
    encoded = to_rle(mask)
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def prediction(mask: np.ndarray | CroppedMask, score: float, mask_format: str, call: Call) -> dict[str, Any]:
    """Return one mask as a prediction `{"masks", "confidence", "format"}`.

    Args:
        mask: the mask.
        score: score of the mask.
        mask_format: format of the request; every format except `rle` means polygons.
        call: counts the mask towards the size of the response.
    """
    if mask_format != "rle":
        return {"masks": polygons(mask, call), "confidence": score, "format": "polygon"}
    with call.stage("render"):
        encoded = rle(mask)
    call.count_answer(len(encoded["counts"]))
    return {"masks": encoded, "confidence": score, "format": "rle"}


def respond(served: ServedModel, content: dict[str, Any] | list[dict[str, Any]]) -> JSONResponse:
    """Return a JSON response with the headers that name the model."""
    return ChunkedJsonResponse(content, headers=served.headers)


def respond_masks(served: ServedModel, results: Sequence[BestMask]) -> Response:
    """Return the logits of masks, at the image's size and as the model predicted them, as a `.npz` file."""
    masks = np.stack([result.array() for result in results])
    return respond_npz(served, masks=masks, low_res_masks=np.stack([result.logits for result in results]))


def respond_npz(served: ServedModel, **arrays: np.ndarray) -> Response:
    """Return named arrays as a compressed `.npz` file."""
    buffer = io.BytesIO()
    # numpy's signature has `allow_pickle: bool` beside the arrays; no array has that name.
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return respond_bytes(served, buffer)


def respond_bytes(served: ServedModel, buffer: io.BytesIO) -> Response:
    """Return the bytes of a buffer as a binary response."""
    return Response(buffer.getvalue(), media_type="application/octet-stream", headers=served.headers)


def served_model(request: Request, family: str, version: str | None, model_id: str | None) -> ServedModel:
    """Return the model that a request names, or else a model of the route's family.

    Args:
        request: the request; its application holds the catalog.
        family: family of the route, `sam` or `sam2`.
        version: version that the client names, such as `vit_h`; the model is then `sam/vit_h`.
        model_id: name of a model in the catalog; takes precedence over the version.

    Raises:
        UnknownModel: no such model is served.
    """
    name = model_id or (f"{family}/{version}" if version else None)
    catalog = request.app.state.catalog
    served: ServedModel = catalog.get(name if name else catalog.name_for_family(family))
    return served
