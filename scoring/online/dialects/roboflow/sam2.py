"""Roboflow's routes for SAM 2: `/sam2/embed_image` and `/sam2/segment_image`."""

from __future__ import annotations

import time
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Body, Request
from starlette.responses import Response

from sam_endpoint.model.prompts import EMPTY_PROMPT
from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.dialects.base import JsonRoute
from sam_endpoint.scoring.online.dialects.best_masks import best_masks, polygons
from sam_endpoint.scoring.online.dialects.roboflow.logits_cache import CacheKey, LogitsCache, with_earlier_logits
from sam_endpoint.scoring.online.dialects.roboflow.prompts import flat_prompt, prompt_set, with_mask_inputs
from sam_endpoint.scoring.online.dialects.roboflow.requests import (
    EXAMPLE_IMAGE,
    Sam2Body,
    embed_image,
    example,
)
from sam_endpoint.scoring.online.dialects.roboflow.responses import respond, respond_npz, rle, served_model

router = APIRouter(tags=["Roboflow"], route_class=JsonRoute)


@router.post("/sam2/embed_image", response_model=None, summary="Embed an image with SAM 2")
def sam2_embed_image(
    request: Request, body: Annotated[Sam2Body, Body(openapi_examples=example(image=EXAMPLE_IMAGE, image_id="disc"))]
) -> Response | dict[str, Any]:
    """Cache the embedding of an image under `image_id`.

    The response is `{"image_id": ..., "time": seconds}`. If the request has no `image_id`, the response holds a
    generated one. If the request has `point_coords`, the response also has `masks`, as Roboflow's samples expect.
    """
    started, context = time.perf_counter(), context_of(request.scope)
    served = served_model(request, "sam2", body.sam2_version_id, body.model_id)
    engine = served.engine_for(context)
    image = embed_image(engine, body, context)
    answer: dict[str, Any] = {"image_id": body.image_id or image.key}
    if body.point_coords is not None:
        prompts = flat_prompt(body, engine.max_prompts)
        results = best_masks(engine, image, prompts, body.multimask_output, context.call)
        answer["masks"] = [polygons(result.mask, context.call) for result in results]
    return respond(served, {**answer, "time": time.perf_counter() - started})


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
) -> Response | dict[str, Any]:
    """Return the mask with the best predicted score for each prompt.

    The response is `{"predictions": [{"masks": ..., "confidence": score, "format": ...}, ...], "time": seconds}`.

    - `"format": "json"`: `masks` is a list of polygons `[[x, y], ...]`.
    - `"format": "rle"`: `masks` is a run-length encoding of COCO.
    - `"format": "binary"`: the response is a `.npz` file of the arrays `masks` and `low_res_masks`, which hold logits.
    """
    started, context = time.perf_counter(), context_of(request.scope)
    served = served_model(request, "sam2", body.sam2_version_id, body.model_id)
    engine = served.engine_for(context)
    image = embed_image(engine, body, context)
    prompts = prompt_set(body, engine.max_prompts) or [EMPTY_PROMPT]
    cache: LogitsCache = request.app.state.logits_cache
    key = CacheKey(context.tenant or "", engine.fingerprint, image.key)
    if body.mask_input is not None:
        prompts = with_mask_inputs(engine, prompts, body)
    elif body.load_logits_from_cache:
        prompts = with_earlier_logits(prompts, cache.get(key))
    engine.check_prompts(prompts)
    results = best_masks(engine, image, prompts, body.multimask_output, context.call, body.format == "binary")
    if body.save_logits_to_cache:
        cache.add(key, prompts, [result.logits for result in results])
    if body.format == "binary":
        masks = np.stack([result.array() for result in results])
        return respond_npz(served, masks=masks, low_res_masks=np.stack([result.logits for result in results]))
    predictions = [
        {
            "masks": rle(result.mask) if body.format == "rle" else polygons(result.mask, context.call),
            "confidence": result.score,
            "format": "rle" if body.format == "rle" else "polygon",
        }
        for result in results
    ]
    return respond(served, {"predictions": predictions, "time": time.perf_counter() - started})
