"""Answer the requests of the SAM 2 and SAM 3 routes that embed an image, or segment it by points and boxes."""

from __future__ import annotations

import time
from typing import Any

from starlette.responses import Response

from sam_endpoint.model.prompts import EMPTY_PROMPT
from sam_endpoint.scoring.online.context import RequestContext
from sam_endpoint.scoring.online.dialects.best_masks import BestMask, best_masks, polygons
from sam_endpoint.scoring.online.dialects.roboflow.logits_cache import CacheKey, LogitsCache, with_earlier_logits
from sam_endpoint.scoring.online.dialects.roboflow.prompts import flat_prompt, prompt_set, with_mask_inputs
from sam_endpoint.scoring.online.dialects.roboflow.requests import Sam2Body, answer_images, embed_image
from sam_endpoint.scoring.online.dialects.roboflow.responses import prediction, respond, respond_masks
from sam_endpoint.scoring.online.served_model import ServedModel


def embed(served: ServedModel, body: Sam2Body, context: RequestContext) -> dict[str, Any]:
    """Cache the embedding of an image, and return the answer `{"image_id": ..., "time": seconds}`.

    If the request has `point_coords`, the answer also has `masks`, as Roboflow's samples expect.

    Args:
        served: the model.
        body: the request body.
        context: context of the request.
    """
    started, engine = time.perf_counter(), served.engine_for(context)
    image = embed_image(engine, body, context)
    answer: dict[str, Any] = {"image_id": body.image_id or image.key}
    if body.point_coords is not None:
        prompts = flat_prompt(body, engine.max_prompts)
        results = best_masks(engine, image, prompts, body.multimask_output, context.call)
        answer["masks"] = [polygons(result.mask, context.call) for result in results]
    return {**answer, "time": time.perf_counter() - started}


def segment(served: ServedModel, body: Sam2Body, context: RequestContext, cache: LogitsCache) -> list[BestMask]:
    """Return the mask with the best predicted score for each prompt; logits if the format is `binary`.

    Args:
        served: the model.
        body: the request body.
        context: context of the request.
        cache: the logits of earlier answers.
    """
    engine = served.engine_for(context)
    image = embed_image(engine, body, context)
    prompts = prompt_set(body, engine.max_prompts) or [EMPTY_PROMPT]
    key = CacheKey(context.tenant or "", engine.fingerprint, image.key)
    if body.mask_input is not None:
        prompts = with_mask_inputs(engine, prompts, body)
    elif body.load_logits_from_cache:
        prompts = with_earlier_logits(prompts, cache.get(key))
    engine.check_prompts(prompts)
    results = best_masks(engine, image, prompts, body.multimask_output, context.call, body.format == "binary")
    if body.save_logits_to_cache:
        cache.add(key, prompts, [result.logits for result in results])
    return results


def respond_embedded(served: ServedModel, body: Sam2Body, context: RequestContext) -> Response:
    """Return the response to a request that embeds an image or a list of images."""
    return respond(served, answer_images(body, served.limits.rows, lambda one: embed(served, one, context)))


def respond_segmented(served: ServedModel, body: Sam2Body, context: RequestContext, cache: LogitsCache) -> Response:
    """Return the response to a request that segments an image or a list of images."""
    if body.format == "binary":
        return respond_masks(served, segment(served, body, context, cache))

    def answer(one: Sam2Body) -> dict[str, Any]:
        started = time.perf_counter()
        results = segment(served, one, context, cache)
        predictions = [prediction(result.mask, result.score, body.format, context.call) for result in results]
        return {"predictions": predictions, "time": time.perf_counter() - started}

    if isinstance(body.image, list):
        served.limits.check_prompts(len(body.image) * len(prompt_set(body, served.engine.max_prompts)))
    return respond(served, answer_images(body, served.limits.rows, answer))
