"""Roboflow's routes for SAM 3: `/sam3/concept_segment`, `/sam3/embed_image` and `/sam3/visual_segment`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from starlette.responses import Response

from sam_endpoint.model.concepts import Concept
from sam_endpoint.model.concepts.predict import find_instances
from sam_endpoint.scoring.online.catalog import Catalog
from sam_endpoint.scoring.online.catalog_file import WELL_KNOWN
from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.dialects.base import JsonRoute
from sam_endpoint.scoring.online.dialects.roboflow import visual
from sam_endpoint.scoring.online.dialects.roboflow.prompts import concept_prompts, concept_thresholds
from sam_endpoint.scoring.online.dialects.roboflow.requests import (
    EXAMPLE_IMAGE,
    ConceptBody,
    Sam2Body,
    answer_images,
    embedded_image,
    example,
    image_count,
)
from sam_endpoint.scoring.online.dialects.roboflow.responses import prediction, respond
from sam_endpoint.scoring.online.served_model import ServedModel

SAM3_NAMES = WELL_KNOWN["sam3"]
router = APIRouter(tags=["Roboflow"], route_class=JsonRoute)


@router.post("/sam3/embed_image", response_model=None, summary="Embed an image with SAM 3")
def sam3_embed_image(
    request: Request, body: Annotated[Sam2Body, Body(openapi_examples=example(image=EXAMPLE_IMAGE, image_id="disc"))]
) -> Response:
    """Cache the embedding of an image under `image_id`. Concepts, points and boxes then use it.

    The response is `{"image_id": ..., "time": seconds}`. If the request has no `image_id`, the response holds a
    generated one. For a list of images, the response is a list.
    """
    return visual.respond_embedded(_served(request, body.model_id), body, context_of(request.scope))


@router.post("/sam3/visual_segment", response_model=None, summary="Segment an image with SAM 3 by points and boxes")
def sam3_visual_segment(
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
    """Return the mask with the best predicted score for each prompt, as `/sam2/segment_image`.

    The response is `{"predictions": [{"masks": ..., "confidence": score, "format": ...}, ...], "time": seconds}`. For a
    list of images, the response is a list.
    """
    served, cache = _served(request, body.model_id), request.app.state.logits_cache
    return visual.respond_segmented(served, body, context_of(request.scope), cache)


@router.post("/sam3/concept_segment", response_model=None, summary="Find the objects that texts or examples describe")
def sam3_concept_segment(
    request: Request,
    body: Annotated[
        ConceptBody,
        Body(
            openapi_examples=example(
                image=EXAMPLE_IMAGE,
                prompts=[{"type": "visual", "boxes": [{"x": 30, "y": 14, "width": 36, "height": 36}]}],
            )
        ),
    ],
) -> Response:
    """Return every object that each of the prompts describes.

    The response is `{"prompt_results": [{"prompt_index", "echo", "predictions": [{"masks", "confidence", "format"}]}],
    "time": seconds}`. Polygons are lists of `[x, y]`; for `"format": "rle"`, `masks` is a run-length encoding of COCO.
    The image is encoded once for all prompts. For a list of images, the response is a list.
    """
    context, served = context_of(request.scope), _served(request, body.model_id)
    engine, defaults = served.engine_for(context), served.defaults.read({})
    concepts = concept_prompts(body, engine.concepts)
    thresholds = concept_thresholds(body, defaults)
    images = image_count(body)
    served.limits.check_prompts(images * sum(max(1, len(concept.boxes)) for concept in concepts))
    served.limits.check_concepts(images * engine.concepts.count_searches(concepts))
    served.limits.check_points(
        images * engine.concepts.compares_examples(concepts), defaults.thresholds.points_per_side**2
    )

    def answer(one: ConceptBody) -> dict[str, Any]:
        started, call = time.perf_counter(), context.call
        predictions: list[list[dict[str, Any]]] = [[] for _ in concepts]
        with embedded_image(engine, one, context, engine.concepts.needs_pixels(concepts)) as image:
            for index, segmentation in find_instances(engine, image, concepts, thresholds, call):
                with call.stage("mask"):
                    (mask,) = engine.cropped_masks(segmentation)
                predictions[index].append(prediction(mask, float(segmentation.scores[0]), body.format, call))
        results = [_result(index, *both) for index, both in enumerate(zip(concepts, predictions, strict=True))]
        return {"prompt_results": results, "time": time.perf_counter() - started}

    return respond(served, answer_images(body, served.limits.rows, answer))


def _result(index: int, concept: Concept, predictions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the result of one prompt."""
    boxes = len(concept.boxes)
    echo = {"prompt_index": index, "type": "visual" if boxes else "text", "text": concept.text, "num_boxes": boxes}
    return {"prompt_index": index, "echo": echo, "predictions": predictions}


def _served(request: Request, model_id: str | None) -> ServedModel:
    """Return the model that a request names, or else the model that answers for SAM 3.

    Roboflow's client always sends a name of SAM 3, so such a name only selects a model if the catalog lists it. The
    model that answers for SAM 3 has such a name; or it is the first loaded model of the family; or the first that takes
    text; or the default model, because every model finds objects by example. The default model counts as the first.

    Raises:
        UnknownModel: no model has the name.
    """
    catalog: Catalog = request.app.state.catalog
    if model_id is not None and model_id not in SAM3_NAMES:
        return catalog.get(model_id)
    listed = [name for name in (model_id, *SAM3_NAMES) if name in catalog.names]
    if listed:
        return catalog.get(listed[0])
    loaded = [catalog.get(), *catalog.loaded()]
    of_family = [served for served in loaded if served.engine.family == "sam3"]
    with_text = [served for served in loaded if served.engine.concepts.capabilities["text"]]
    return (of_family or with_text or loaded)[0]
