"""Parse the prompts and mask inputs in the request bodies of Roboflow's clients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from pycocotools import mask as coco
from pydantic import TypeAdapter, ValidationError

from sam_endpoint.model.concepts import Concept, Thresholds
from sam_endpoint.model.concepts.parsing import MAX_TEXTS, parse_concepts
from sam_endpoint.model.concepts.search import ConceptSearch
from sam_endpoint.model.engine import Engine
from sam_endpoint.model.errors import BadInput, kind
from sam_endpoint.model.params import Params
from sam_endpoint.model.prompts import EMPTY_PROMPT, Prompt, parse_prompts
from sam_endpoint.model.prompts.cells import check_count
from sam_endpoint.model.prompts.parsing import MAX_COORDINATE, check_logits, decode_npy
from sam_endpoint.scoring.online.dialects.roboflow.requests import ConceptBody, ConceptPrompt, Sam2Body, SegmentBody

NPY_FORM = "base64 of a .npy array of numbers"
MAX_VERTICES = 10_000  # vertices of one polygon
_BOOL = TypeAdapter(bool)


def flat_prompt(body: SegmentBody, max_points: int) -> list[Prompt]:
    """Return one prompt with all points of `point_coords` and `point_labels`.

    Args:
        body: the request body.
        max_points: largest number of points.

    Returns:
        A list of one prompt.

    Raises:
        BadInput: the points or labels have a wrong form, or belong to several prompts.
    """
    prompts = parse_prompts(body.point_coords, body.point_labels, None, None, max_points)
    if len(prompts) > 1:
        raise BadInput("point_coords", "(points, 2) numbers x,y in pixels", f"{len(prompts)} sets of points")
    return prompts or [EMPTY_PROMPT]


def prompt_set(body: Sam2Body, max_prompts: int) -> list[Prompt]:
    """Return the prompts of a `/sam2/` request.

    The field `prompts` holds `{"prompts": [prompt, ...]}`, a list of prompts, or one prompt. Without this field, the
    points in `point_coords` are one prompt.

    Args:
        body: the request body.
        max_prompts: largest number of prompts.

    Returns:
        The prompts; an empty list if the request has none.

    Raises:
        BadInput: a prompt has a wrong form, or there are too many prompts.
    """
    items = body.prompts
    if isinstance(items, dict) and "prompts" in items:
        items = items["prompts"]
    if items is None:
        return flat_prompt(body, max_prompts) if body.point_coords is not None else []
    if isinstance(items, dict):
        items = [items]
    if not isinstance(items, list):
        raise BadInput("prompts", '[{"box": {...}, "points": [...]}, ...]', kind(items))
    check_count("prompts", len(items), max_prompts)
    return [_prompt(item, f"prompts[{i}]") for i, item in enumerate(items)]


def _prompt(item: Any, place: str) -> Prompt:
    if not isinstance(item, dict):
        raise BadInput(place, '{"box": {...}, "points": [...]}', kind(item))
    points, labels, box = None, None, None
    if item.get("box") is not None:
        x, y, width, height = _numbers(item["box"], ("x", "y", "width", "height"), f"{place}.box")
        box = [[x - width / 2, y - height / 2, x + width / 2, y + height / 2]]  # x, y is the box's centre
    if item.get("points"):
        if not isinstance(item["points"], list):
            raise BadInput(f"{place}.points", '[{"x": ..., "y": ..., "positive": true}, ...]', kind(item["points"]))
        points = [[_numbers(point, ("x", "y"), f"{place}.points") for point in item["points"]]]
        labels = [[int(_flag(point.get("positive", True), f"{place}.points")) for point in item["points"]]]
    prompts = parse_prompts(points, labels, box, None)
    return prompts[0] if prompts else EMPTY_PROMPT


def concept_prompts(body: ConceptBody, search: ConceptSearch) -> list[Concept]:
    """Return the concepts of a request.

    Args:
        body: the request body.
        search: checks whether the model takes the concepts.

    Raises:
        BadInput: there is no prompt or there are too many, a prompt has a wrong form, or the model does not take it.
    """
    if not body.prompts:
        raise BadInput("prompts", f"1 to {MAX_TEXTS} prompts", "none")
    check_count("prompts", len(body.prompts), MAX_TEXTS)
    concepts = []
    for number, prompt in enumerate(body.prompts):
        place = f"prompts[{number}]"
        try:
            concept = _concept(prompt, place)
            search.check([concept])
        except BadInput as error:
            fields = {"input_text": "text", "input_exemplars": "boxes", "input_exemplar_labels": "box_labels"}
            raise error.renamed({column: f"{place}.{name}" for column, name in fields.items()}) from None
        concepts.append(concept)
    return concepts


def _concept(prompt: ConceptPrompt, place: str) -> Concept:
    boxes = [_corners(box, f"{place}.boxes[{number}]") for number, box in enumerate(prompt.boxes or ())]
    labels = None if prompt.box_labels is None else [int(label) for label in prompt.box_labels]
    text = [prompt.text] if prompt.text or (prompt.text is not None and not boxes) else None
    parsed = parse_concepts(text, boxes or None, labels)
    if not parsed:
        raise BadInput(place, "a text, boxes around examples, or both", "neither")
    return replace(parsed[0], min_score=_share(prompt.output_prob_thresh, f"{place}.output_prob_thresh"))


def _corners(box: dict[str, Any], place: str) -> list[float]:
    """Return a box as x1,y1,x2,y2."""
    if "x0" in box:
        return _numbers(box, ("x0", "y0", "x1", "y1"), place)
    x, y, width, height = _numbers(box, ("x", "y", "width", "height"), place)
    return [x, y, x + width, y + height]


def concept_thresholds(body: ConceptBody, defaults: Params) -> Thresholds:
    """Return the thresholds of a request. Raises BadInput if one is outside of 0 to 1.

    Args:
        body: the request body.
        defaults: params of the model, for thresholds that the request does not set.
    """
    score = _share(body.output_prob_thresh, "output_prob_thresh")
    nms = _share(body.nms_iou_threshold, "nms_iou_threshold")
    thresholds = defaults.thresholds if nms is None else replace(defaults.thresholds, nms=nms)
    return thresholds if score is None else replace(thresholds, score=score)


def _share(value: float | None, place: str) -> float | None:
    if value is not None and not 0 <= value <= 1:
        raise BadInput(place, "a number from 0 to 1", kind(value))
    return value


def _flag(value: Any, place: str) -> bool:
    """Return a boolean as Roboflow's own server parses it: the texts "false", "no", "off" and "0" are false."""
    try:
        return _BOOL.validate_python(value)
    except ValidationError:
        raise BadInput(place, "positive: true or false", kind(value)) from None


def _numbers(item: Any, names: tuple[str, ...], place: str) -> list[float]:
    numbers = [item.get(name) for name in names] if isinstance(item, dict) else [None]
    if not all(isinstance(number, (int, float)) and abs(number) <= MAX_COORDINATE for number in numbers):
        raise BadInput(
            place, f"numbers {', '.join(names)} from -{MAX_COORDINATE:,.0f} to {MAX_COORDINATE:,.0f}", kind(item)
        )
    return [item[name] for name in names]


def with_mask_inputs(engine: Engine, prompts: list[Prompt], body: SegmentBody) -> list[Prompt]:
    """Return the prompts with the mask inputs of a request.

    `mask_input` holds low-resolution logits as nested lists, base64 of a `.npy` file of logits, or polygons in the
    coordinates of the logits. If there is a single mask input, it applies to all prompts.

    Args:
        engine: engine of the model; it defines the size of the logits.
        prompts: prompts without mask inputs.
        body: the request body.

    Raises:
        BadInput: the mask inputs have a wrong form, or their number is neither one nor the number of prompts.
    """
    height, width = engine.low_res_size
    if body.mask_input_format == "binary":
        array: Any = decode_npy("mask_input", body.mask_input, NPY_FORM)
    else:
        try:
            array = np.asarray(body.mask_input, dtype=np.float32)
        except (ValueError, TypeError, OverflowError):
            array = None
        if array is None or array.shape[-2:] != (height, width):
            array = _fill_polygons(body.mask_input, height, width, engine.max_prompts)
    if array.ndim < 2 or not array.size or array.dtype.kind not in "fiu":
        raise BadInput("mask_input", f"{height} x {width} logits", kind(array))
    masks = list(check_logits(array.astype(np.float32).reshape(-1, *array.shape[-2:])))
    if len(masks) not in (1, len(prompts)):
        raise BadInput("mask_input", f"one mask, or one for each of the {len(prompts)} prompts", f"{len(masks)} masks")
    masks = masks * len(prompts) if len(masks) == 1 else masks  # all prompts share the array of a single mask
    return [replace(prompt, mask=mask) for prompt, mask in zip(prompts, masks, strict=True)]


def _fill_polygons(polygons: Any, height: int, width: int, max_polygons: int) -> np.ndarray:
    """Return polygons [[x, y], ...] as filled masks: an array (polygons, height, width) of 0.0 and 1.0, float32."""
    masks = []
    if isinstance(polygons, list):
        check_count("mask_input", len(polygons), max_polygons, "masks")
    for polygon in polygons if isinstance(polygons, list) and polygons else [polygons]:
        try:
            vertices = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
        except (ValueError, TypeError, OverflowError):
            vertices = np.zeros((0, 2))
        # pycocotools takes time in proportion to the length of the edges, and holds the GIL meanwhile.
        if not 3 <= len(vertices) <= MAX_VERTICES or not (np.abs(vertices) <= 4 * max(height, width)).all():
            raise BadInput("mask_input", f"{height} x {width} logits, or polygons [[x, y], ...]", kind(polygon))
        masks.append(coco.decode(coco.merge(coco.frPyObjects([vertices.ravel().tolist()], height, width))))
    return np.stack(masks).astype(np.float32)
