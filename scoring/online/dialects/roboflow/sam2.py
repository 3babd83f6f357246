"""Roboflow's routes for SAM 2: `/sam2/embed_image` and `/sam2/segment_image`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Request
from starlette.responses import Response

from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.dialects.base import JsonRoute
from sam_endpoint.scoring.online.dialects.roboflow import visual
from sam_endpoint.scoring.online.dialects.roboflow.requests import EXAMPLE_IMAGE, Sam2Body, example
from sam_endpoint.scoring.online.dialects.roboflow.responses import served_model

router = APIRouter(tags=["Roboflow"], route_class=JsonRoute)


@router.post("/sam2/embed_image", response_model=None, summary="Embed an image with SAM 2")
def sam2_embed_image(
    request: Request, body: Annotated[Sam2Body, Body(openapi_examples=example(image=EXAMPLE_IMAGE, image_id="disc"))]
) -> Response:
    """Cache the embedding of an image under `image_id`.

    The response is `{"image_id": ..., "time": seconds}`. If the request has no `image_id`, the response holds a
    generated one. If the request has `point_coords`, the response also has `masks`, as Roboflow's samples expect.
    """
    served = served_model(request, "sam2", body.sam2_version_id, body.model_id)
    return visual.respond_embedded(served, body, context_of(request.scope))


@router.post("/sam2/segment_image", response_model=None, summary="Segment an image with SAM 2")
def sam2_segment_image(
    request: Request,
    body: Annotated[
        Sam2Body,
        Body(
            openapi_examples=example(
                image=EXAMPLE_IMAGE, prompts={"prompts": [{"points": [{"x": 48, "y": 32, "positive": True}]}]}
            )
        ),
    ],
) -> Response:
    """Return the mask with the best predicted score for each prompt.

    The response is `{"predictions": [{"masks": ..., "confidence": score, "format": ...}, ...], "time": seconds}`.

    - `"format": "json"`: `masks` is a list of polygons `[[x, y], ...]`.
    - `"format": "rle"`: `masks` is a run-length encoding of COCO.
    - `"format": "binary"`: the response is a `.npz` file of the arrays `masks` and `low_res_masks`, which hold logits.
    """
    served = served_model(request, "sam2", body.sam2_version_id, body.model_id)
    return visual.respond_segmented(served, body, context_of(request.scope), request.app.state.logits_cache)
