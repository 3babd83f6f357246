"""Roboflow Inference's dialect: its SAM and SAM 2 routes, with the logits it keeps of earlier answers."""

from __future__ import annotations

import io
import time
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
from fastapi import APIRouter, Body, Request
from starlette.responses import JSONResponse, Response

from model import masks, prompts
from model.embeddings import tenant
from model.errors import BadInput, UnknownImage, kind
from model.prompts import NOTHING, Prompt
from model.scorer import Kept, Scorer
from model.segmenter import Embedding, Segmentation
from scoring.online import sample
from scoring.online.catalog import Served
from scoring.online.earlier import Earlier, answers, with_earlier
from scoring.online.roboflow_asked import (
    NPY_FORM,
    Asked,
    Picture,
    Sam2Asked,
    SamAsked,
    check_format,
    flat,
    prompt_set,
    with_masks,
)

router = APIRouter(tags=["Roboflow"])
FIELDS = {"input_points": "point_coords", "input_labels": "point_labels", "input_boxes": "box"}
MOST_NUMBERS = {"binary": 50_000_000, "json": 1_000_000_000}  # of the masks of one answer, together
PICTURE = {"type": "base64", "value": sample.PICTURE}


def _examples(**body: Any) -> dict[str, Any]:
    return {"a disc": {"value": body}}


@router.post("/sam2/embed_image", response_model=None)
def sam2_embed_image(
    request: Request, asked: Annotated[Sam2Asked, Body(openapi_examples=_examples(image=PICTURE, image_id="disc"))]
) -> Response | dict[str, Any]:
    """Encodes an image and keeps it under `image_id`, else under the id in the answer. With `point_coords` the answer
    holds masks too, as their samples expect."""
    began = time.perf_counter()
    served = _served(request, "sam2", asked.sam2_version_id, asked.model_id)
    kept = _kept(served.scorer, asked)
    answer: dict[str, Any] = {"image_id": asked.image_id or kept.key}
    if asked.point_coords is not None:
        found = _best(served.scorer, kept, flat(asked, served.scorer.max_prompts), asked.multimask_output)
        answer["masks"] = [_pairs(masks.to_polygons(mask)) for mask, _, _ in found]
    return _answer(served, {**answer, "time": time.perf_counter() - began})


@router.post("/sam2/segment_image", response_model=None)
def sam2_segment_image(
    request: Request,
    asked: Annotated[
        Sam2Asked,
        Body(
            openapi_examples=_examples(
                image=PICTURE, prompts={"prompts": [{"points": [{"x": 48, "y": 32, "positive": True}]}]}
            )
        ),
    ],
) -> Response | dict[str, Any]:
    """The best mask of each prompt, by predicted score."""
    began = time.perf_counter()
    check_format(asked.format, ("json", "rle", "binary"))
    served = _served(request, "sam2", asked.sam2_version_id, asked.model_id)
    kept = _kept(served.scorer, asked)
    wanted = prompt_set(asked, served.scorer.max_prompts) or [NOTHING]
    served.scorer.check(wanted)
    place = (tenant.get(), served.name, kept.key)
    if asked.mask_input is not None:
        wanted = with_masks(served.scorer, wanted, asked)
    elif asked.load_logits_from_cache:
        wanted = with_earlier(wanted, answers.of(place))
    found = _best(served.scorer, kept, wanted, asked.multimask_output, as_logits=asked.format == "binary")
    if asked.save_logits_to_cache:
        bare = [replace(prompt, mask=None) for prompt in wanted]
        answers.keep(place, Earlier(bare, [logits for _, _, logits in found]))
    if asked.format == "binary":
        return _npz(
            served, masks=np.stack([mask for mask, _, _ in found]), low_res_masks=np.stack([one[2] for one in found])
        )
    predictions = [
        {
            "masks": _rle(mask) if asked.format == "rle" else _pairs(masks.to_polygons(mask)),
            "confidence": score,
            "format": "rle" if asked.format == "rle" else "polygon",
        }
        for mask, score, _ in found
    ]
    return _answer(served, {"predictions": predictions, "time": time.perf_counter() - began})


@router.post("/sam/embed_image", response_model=None)
def sam_embed_image(
    request: Request, asked: Annotated[SamAsked, Body(openapi_examples=_examples(image=PICTURE, image_id="disc"))]
) -> Response | dict[str, Any]:
    """The embedding of an image, as nested lists or as a `.npy`, kept under `image_id` as well. With `point_coords`
    the answer holds masks too, as their samples expect."""
    began = time.perf_counter()
    check_format(asked.format, ("json", "binary"))
    served = _served(request, "sam", asked.sam_version_id, asked.model_id)
    kept = _kept(served.scorer, asked)
    features = kept.embedding.features[0].float().cpu().numpy()
    if asked.format == "binary":
        buffer = io.BytesIO()
        np.save(buffer, features)
        return _bytes(served, buffer)
    answer: dict[str, Any] = {"embeddings": features.tolist()}
    if asked.point_coords is not None:
        ((mask, _, logits),) = _best(
            served.scorer, kept, flat(asked, served.scorer.max_prompts), multimask_output=False
        )
        answer |= {"masks": [_largest(mask)], "low_res_masks": [_largest(logits > 0)]}
    return _answer(served, {**answer, "time": time.perf_counter() - began})


@router.post("/sam/segment_image", response_model=None)
def sam_segment_image(
    request: Request,
    asked: Annotated[
        SamAsked, Body(openapi_examples=_examples(image=PICTURE, point_coords=[[48, 32]], point_labels=[1]))
    ],
) -> Response | dict[str, Any]:
    """The mask of one prompt, as its largest contour."""
    began = time.perf_counter()
    check_format(asked.format, ("json", "binary"))
    served = _served(request, "sam", asked.sam_version_id, asked.model_id)
    kept = _given(served, asked) if asked.embeddings is not None else _kept(served.scorer, asked)
    wanted = flat(asked, served.scorer.max_prompts) if asked.point_coords is not None else [NOTHING]
    place = (tenant.get(), served.name, asked.image_id or kept.key)
    if asked.has_mask_input:
        earlier = answers.of(place) if asked.use_mask_input_cache else []
        if earlier:
            wanted = [replace(wanted[0], mask=earlier[-1].logits[0])]
        elif asked.mask_input is not None:
            wanted = with_masks(served.scorer, wanted, asked)
        else:
            raise BadInput("mask_input", "a mask input, or an image_id with an earlier answer", "neither")
    ((mask, _, logits),) = _best(served.scorer, kept, wanted, False, as_logits=asked.format == "binary")
    if asked.image_id:
        answers.keep(place, Earlier(wanted, [logits]), alone=True)
    if asked.format == "binary":
        return _npz(served, masks=mask[None], low_res_masks=logits[None])
    answer = {"masks": [_largest(mask)], "low_res_masks": [_largest(logits > 0)]}
    return _answer(served, {**answer, "time": time.perf_counter() - began})


def refuse(status: int, message: str) -> JSONResponse:
    """An error as Roboflow's clients read it."""
    return JSONResponse({"message": message}, status)


def _served(request: Request, family: str, version: str | None, model_id: str | None) -> Served:
    name = model_id or (f"{family}/{version}" if version else None)
    catalog = request.app.state.catalog
    return catalog.get(name if name else catalog.of_family(family))


def _kept(scorer: Scorer, asked: Asked) -> Kept:
    """The image asked about; one that is kept under its id is not looked at again."""
    if asked.image_id is not None:
        try:
            return scorer.keep((asked.image_id,))
        except UnknownImage:
            if asked.image is None:
                raise
    if asked.image is None:
        raise BadInput("image", "an image, or the image_id of one that is kept", "neither")
    picture = Picture(value=asked.image) if isinstance(asked.image, str) else asked.image
    if picture.type == "numpy":
        raise BadInput("image", "type base64 or url (a numpy image is a pickle, which can run code)", "type numpy")
    if picture.type not in ("base64", "url") or not isinstance(picture.value, str):
        raise BadInput("image", '{"type": "base64" or "url", "value": text}', kind(picture.value))
    kept = scorer.keep(picture.value)
    if asked.image_id is not None:
        scorer.embeddings.name(asked.image_id, kept.key)
    return kept


def _given(served: Served, asked: SamAsked) -> Kept:
    """An embedding that the client brings, with the size of its image."""
    limits, size = served.scorer.limits, asked.orig_im_size
    if size is None or min(size) < 1 or max(size) > limits.max_side or size[0] * size[1] > limits.max_pixels:
        expected = f"[height, width] of the embeddings' image, at most {limits.max_pixels} pixels"
        raise BadInput("orig_im_size", expected, "none" if size is None else "another size")
    if asked.embeddings_format == "binary":
        array = prompts.npy("embeddings", asked.embeddings, NPY_FORM)
    else:
        try:
            array = np.asarray(asked.embeddings, dtype=np.float32)
        except (ValueError, TypeError, OverflowError):
            raise BadInput("embeddings", "(1, channels, height, width) numbers", kind(asked.embeddings)) from None
    family = served.scorer.segmenter.family
    side = family.low_res_size[0] // 4
    shape = (1, family.model.config.prompt_encoder_config.hidden_size, side, side)
    if array.dtype.kind not in "fiu" or array.shape != shape or not (np.abs(array) <= prompts.FARTHEST).all():
        raise BadInput("embeddings", f"finite numbers of shape {shape}", kind(array))
    embedding = Embedding((torch.from_numpy(array.astype(np.float32)),), size, served.name)
    return Kept(embedding, asked.image_id or "", lambda: np.zeros((0, 0, 3), np.uint8))


def _best(
    scorer: Scorer, kept: Kept, wanted: list[Prompt], multimask_output: bool, as_logits: bool = False
) -> list[tuple[np.ndarray, float, np.ndarray]]:
    """Of each prompt the mask with the best score, (h, w) bool or logits, its score, its low-resolution logits."""
    height, width = kept.embedding.size
    most = MOST_NUMBERS["binary" if as_logits else "json"]
    if height * width * len(wanted) > most:
        expected = f"prompts whose masks have at most {most} pixels together"
        raise BadInput("prompts", expected, f"{len(wanted)} on an image of {width} x {height}")
    found = []
    for one in scorer.segment(kept, wanted, multimask_output):
        best = int(one.scores.argmax())
        chosen = Segmentation(one.logits[best : best + 1], one.scores[best : best + 1], one.size)
        full = scorer.segmenter.full(chosen)[0].cpu().numpy() if as_logits else scorer.segmenter.masks(chosen)[0]
        found.append((full, float(one.scores[best]), one.logits[best].float().cpu().numpy()))
    return found


def _pairs(polygons: list[list[float]]) -> list[list[list[float]]]:
    return [[list(pair) for pair in zip(flat[::2], flat[1::2], strict=True)] for flat in polygons]


def _largest(mask: np.ndarray) -> list[list[float]]:
    """The mask's contour that encloses most, as [[x, y], ...]; empty for an empty mask."""
    return max(_pairs(masks.to_polygons(mask)), key=_area, default=[])


def _area(polygon: list[list[float]]) -> float:
    x, y = np.asarray(polygon).T
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2


def _rle(mask: np.ndarray) -> dict[str, Any]:
    rle = masks.to_rle(mask)
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def _answer(served: Served, content: dict[str, Any]) -> JSONResponse:
    return JSONResponse(content, headers={"x-answered-by": served.name})


def _npz(served: Served, **arrays: np.ndarray) -> Response:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return _bytes(served, buffer)


def _bytes(served: Served, buffer: io.BytesIO) -> Response:
    return Response(buffer.getvalue(), media_type="application/octet-stream", headers={"x-answered-by": served.name})
