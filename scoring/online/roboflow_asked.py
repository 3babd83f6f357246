"""What Roboflow's clients ask: the bodies of their requests, and the prompts in them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from pycocotools import mask as coco
from pydantic import BaseModel, ConfigDict, Field

from model import prompts
from model.contract import LONGEST_ID
from model.errors import BadInput, kind
from model.prompts import NOTHING, Prompt
from model.scorer import Scorer

NPY_FORM = "base64 of a .npy array of numbers"
MOST_VERTICES = 10_000  # of one polygon


class Picture(BaseModel):
    type: str = "base64"
    value: Any = None


class Asked(BaseModel):
    """What every route takes; clients send more, which is not looked at."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())
    image: Picture | str | None = None
    image_id: str | None = Field(None, max_length=LONGEST_ID)
    model_id: str | None = None
    format: str = "json"
    point_coords: Any = None
    point_labels: Any = None
    mask_input: Any = None
    mask_input_format: Literal["json", "binary"] = "json"


class SamAsked(Asked):
    sam_version_id: str | None = None
    embeddings: Any = None
    embeddings_format: Literal["json", "binary"] = "json"
    orig_im_size: tuple[int, int] | None = None
    has_mask_input: bool = False
    use_mask_input_cache: bool = True


class Sam2Asked(Asked):
    sam2_version_id: str | None = None
    prompts: Any = None
    multimask_output: bool = True
    save_logits_to_cache: bool = False
    load_logits_from_cache: bool = False


def flat(asked: Asked, most: int) -> list[Prompt]:
    """One prompt of all the points in `point_coords` and `point_labels`."""
    found = prompts.read(asked.point_coords, asked.point_labels, None, None, most)
    if len(found) > 1:
        raise BadInput("point_coords", "(points, 2) numbers x,y in pixels", f"{len(found)} sets of points")
    return found or [NOTHING]


def prompt_set(asked: Sam2Asked, most: int) -> list[Prompt]:
    """`{"prompts": [p, ...]}`, a list, one `p`, or flat points."""
    given = asked.prompts
    if isinstance(given, dict) and "prompts" in given:
        given = given["prompts"]
    if given is None:
        return flat(asked, most) if asked.point_coords is not None else []
    if isinstance(given, dict):
        given = [given]
    if not isinstance(given, list):
        raise BadInput("prompts", '[{"box": {...}, "points": [...]}, ...]', kind(given))
    prompts.check_count("prompts", len(given), most)
    return [_prompt(one, i) for i, one in enumerate(given)]


def _prompt(given: Any, i: int) -> Prompt:
    where = f"prompts[{i}]"
    if not isinstance(given, dict):
        raise BadInput(where, '{"box": {...}, "points": [...]}', kind(given))
    points, labels, box = None, None, None
    if given.get("box") is not None:
        x, y, width, height = _fields(given["box"], ("x", "y", "width", "height"), f"{where}.box")
        box = [[x - width / 2, y - height / 2, x + width / 2, y + height / 2]]
    if given.get("points"):
        if not isinstance(given["points"], list):
            raise BadInput(f"{where}.points", '[{"x": ..., "y": ..., "positive": true}, ...]', kind(given["points"]))
        points = [[_fields(one, ("x", "y"), f"{where}.points") for one in given["points"]]]
        labels = [[int(bool(one.get("positive", True))) for one in given["points"]]]
    found = prompts.read(points, labels, box, None)
    return found[0] if found else NOTHING


def _fields(given: Any, names: tuple[str, ...], where: str) -> list[float]:
    numbers = [given.get(name) for name in names] if isinstance(given, dict) else [None]
    if not all(isinstance(one, (int, float)) and abs(one) <= prompts.FARTHEST for one in numbers):
        raise BadInput(where, f"numbers {', '.join(names)} within {prompts.FARTHEST:,.0f}", kind(given))
    return [given[name] for name in names]


def check_format(given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise BadInput("format", " or ".join(known), kind(given))


def with_masks(scorer: Scorer, wanted: list[Prompt], asked: Asked) -> list[Prompt]:
    """Prompts with the request's mask inputs: logits, a `.npy` of them, or polygons at the logits' size."""
    height, width = scorer.segmenter.family.low_res_size
    if asked.mask_input_format == "binary":
        given: Any = prompts.npy("mask_input", asked.mask_input, NPY_FORM)
    else:
        try:
            given = np.asarray(asked.mask_input, dtype=np.float32)
        except (ValueError, TypeError, OverflowError):
            given = None
        if given is None or given.shape[-2:] != (height, width):
            given = _filled(asked.mask_input, height, width, scorer.max_prompts)
    if given.ndim < 2 or not given.size or given.dtype.kind not in "fiu":
        raise BadInput("mask_input", f"{height} x {width} logits", kind(given))
    found = prompts.bounded(given.astype(np.float32).reshape(-1, *given.shape[-2:]))
    if len(found) == 1:
        found = np.repeat(found, len(wanted), axis=0)
    if len(found) != len(wanted):
        raise BadInput("mask_input", f"one mask a prompt ({len(wanted)})", f"{len(found)} masks")
    wanted = [replace(prompt, mask=mask) for prompt, mask in zip(wanted, found, strict=True)]
    scorer.check(wanted)
    return wanted


def _filled(polygons: Any, height: int, width: int, most: int) -> np.ndarray:
    """(n, height, width) masks of 0 and 1 of at most `most` polygons [[x, y], ...]."""
    found = []
    if isinstance(polygons, list):
        prompts.check_count("mask_input", len(polygons), most, "masks")
    for polygon in polygons if isinstance(polygons, list) and polygons else [polygons]:
        try:
            flat = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
        except (ValueError, TypeError, OverflowError):
            flat = np.zeros((0, 2))
        # pycocotools walks along every edge, as far as it goes, and all threads wait for it.
        if not 3 <= len(flat) <= MOST_VERTICES or not (np.abs(flat) <= 4 * max(height, width)).all():
            raise BadInput("mask_input", f"{height} x {width} logits, or polygons [[x, y], ...]", kind(polygon))
        found.append(coco.decode(coco.merge(coco.frPyObjects([flat.ravel().tolist()], height, width))))
    return np.stack(found).astype(np.float32)
