"""Roboflow's routes for SAM: `/sam/embed_image` and `/sam/segment_image`."""

from __future__ import annotations

import io
import time
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Body, Request
from starlette.responses import Response

from sam_endpoint.model.call import Call
from sam_endpoint.model.engine import EmbeddedImage, Engine
from sam_endpoint.model.errors import BadInput, kind
from sam_endpoint.model.prompts import EMPTY_PROMPT
from sam_endpoint.model.prompts.parsing import decode_npy
from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.dialects.base import JsonRoute
from sam_endpoint.scoring.online.dialects.best_masks import BestMask, best_masks, largest_polygon
from sam_endpoint.scoring.online.dialects.roboflow.logits_cache import CacheKey, LogitsCache
from sam_endpoint.scoring.online.dialects.roboflow.prompts import NPY_FORM, flat_prompt, with_mask_inputs
from sam_endpoint.scoring.online.dialects.roboflow.requests import (
    EXAMPLE_IMAGE,
    SamBody,
    embed_image,
    example,
)
from sam_endpoint.scoring.online.dialects.roboflow.responses import respond, respond_bytes, respond_npz, served_model

router = APIRouter(tags=["Roboflow"], route_class=JsonRoute)


@router.post("/sam/embed_image", response_model=None, summary="Embed an image with SAM")
def sam_embed_image(
    request: Request, body: Annotated[SamBody, Body(openapi_examples=example(image=EXAMPLE_IMAGE, image_id="disc"))]
) -> Response | dict[str, Any]:
    """Return the embedding of an image, and cache the embedding under `image_id`.

    The response is `{"embeddings": nested lists (1 x channels x height x width), "time": seconds}`. With `"format":
    "binary"` the response is the array as a `.npy` file. If the request has `point_coords`, the JSON response also has
    `masks` and `low_res_masks`, as Roboflow's samples expect.
    """
    started, context = time.perf_counter(), context_of(request.scope)
    served = served_model(request, "sam", body.sam_version_id, body.model_id)
    engine = served.engine_for(context)
    image = embed_image(engine, body, context)
    features = image.embedding.features[0].float().cpu().numpy()
    if body.format == "binary":
        buffer = io.BytesIO()
        np.save(buffer, features)
        return respond_bytes(served, buffer)
    answer: dict[str, Any] = {"embeddings": features.tolist()}
    if body.point_coords is not None:
        prompts = flat_prompt(body, engine.max_prompts)
        (result,) = best_masks(engine, image, prompts, False, context.call)
        answer |= _polygons(result, context.call)
    return respond(served, {**answer, "time": time.perf_counter() - started})


@router.post("/sam/segment_image", response_model=None, summary="Segment an image with SAM")
def sam_segment_image(
    request: Request,
    body: Annotated[
        SamBody, Body(openapi_examples=example(image=EXAMPLE_IMAGE, point_coords=[[48, 32]], point_labels=[1]))
    ],
) -> Response | dict[str, Any]:
    """Return the mask of one prompt.

    The response is `{"masks": [polygon], "low_res_masks": [polygon], "time": seconds}`. A polygon is the largest outer
    contour of the mask, `[[x, y], ...]`. With `"format": "binary"` the response is a `.npz` file of the arrays `masks`
    and `low_res_masks`, which hold logits.
    """
    started, context = time.perf_counter(), context_of(request.scope)
    served = served_model(request, "sam", body.sam_version_id, body.model_id)
    engine = served.engine_for(context)
    has_embeddings = body.embeddings is not None
    image = _image_of_embeddings(engine, body) if has_embeddings else embed_image(engine, body, context)
    prompts = flat_prompt(body, engine.max_prompts) if body.point_coords is not None else [EMPTY_PROMPT]
    cache: LogitsCache = request.app.state.logits_cache
    key = CacheKey(context.tenant or "", engine.fingerprint, body.image_id or image.key)
    if body.has_mask_input:
        earlier = cache.get(key) if body.use_mask_input_cache else []
        if earlier:
            prompts = [replace(prompts[0], mask=earlier[-1].logits[0])]
        elif body.mask_input is not None:
            prompts = with_mask_inputs(engine, prompts, body)
        else:
            raise BadInput("mask_input", "a mask input, or the image_id of an earlier response", "neither")
    engine.check_prompts(prompts)
    (result,) = best_masks(engine, image, prompts, False, context.call, body.format == "binary")
    if body.image_id:
        cache.add(key, prompts, [result.logits], replace_all=True)
    if body.format == "binary":
        return respond_npz(served, masks=result.array()[None], low_res_masks=result.logits[None])
    answer = _polygons(result, context.call)
    return respond(served, {**answer, "time": time.perf_counter() - started})


def _polygons(result: BestMask, call: Call) -> dict[str, Any]:
    """Return the largest contours of a mask and of its low-resolution mask."""
    return {"masks": [largest_polygon(result.mask, call)], "low_res_masks": [largest_polygon(result.logits > 0, call)]}


def _image_of_embeddings(engine: Engine, body: SamBody) -> EmbeddedImage:
    """Return an image whose embedding the client sends in place of its pixels.

    Args:
        engine: engine of the model.
        body: a request body with `embeddings` and `orig_im_size`.

    Raises:
        BadInput: `orig_im_size` is missing or too large, or the embedding does not fit the model.
    """
    limits, size = engine.images.limits, body.orig_im_size
    if size is None or min(size) < 1 or max(size) > limits.max_side or size[0] * size[1] > limits.max_pixels:
        expected = f"[height, width] of the embeddings' image, at most {limits.max_pixels} pixels"
        raise BadInput("orig_im_size", expected, "none" if size is None else "another size")
    if body.embeddings_format == "binary":
        features = decode_npy("embeddings", body.embeddings, NPY_FORM)
    else:
        try:
            features = np.asarray(body.embeddings, dtype=np.float32)
        except (ValueError, TypeError, OverflowError):
            raise BadInput("embeddings", "(1, channels, height, width) numbers", kind(body.embeddings)) from None
    return engine.from_features(features, size, body.image_id or "")
