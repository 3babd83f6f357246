"""Rows to answers: each image read and encoded once, its prompts decoded together, masks written as text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from threading import BoundedSemaphore
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from model import images, masks, threads
from model.contract import COLUMNS, MaskAnswer, Params, Row, answers_to_frame, read_rows, unfolded
from model.embeddings import Embeddings
from model.errors import BadInput, Busy, UnknownImage
from model.everything import Box, everything
from model.images import ImageLimits
from model.prompts import Prompt, check_count
from model.segmenter import Embedding, Segmentation, Segmenter

PROMPTS_AT_ONCE = 64
Answer = dict[str, Any]
Watch = Callable[[str], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Kept:
    """An image that is being scored: its embedding, the key that is kept under, and its pixels (h, w, 3), which raise
    BadInput where the image came as the name of a kept one."""

    embedding: Embedding
    key: str
    pixels: Callable[[], np.ndarray]


class Pixels:
    """The pixels (h, w, 3) of an image, decoded when asked for, and held until they are to be forgotten."""

    def __init__(self, decode: Callable[[], np.ndarray]) -> None:
        self._decode = decode
        self._made: np.ndarray | None = None

    def __call__(self) -> np.ndarray:
        if self._made is None:
            self._made = self._decode()
        return self._made

    def forget(self) -> None:
        self._made = None


class Scorer:
    """A segmenter with its kept embeddings and its rules for images. Safe to share between threads.

    watch: entered around each stage of the work, by name: fetch, decode, encode, prompt, mask, render.
    max_prompts: most prompts that one row may hold, and most points of one of them.
    params: what a deployment has set for requests that do not say.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        embeddings: Embeddings,
        limits: ImageLimits,
        watch: Watch = nullcontext,
        max_prompts: int = 10_000,
        params: Params | None = None,
    ) -> None:
        self.segmenter = segmenter
        self.embeddings = embeddings
        self.limits = limits
        self.watch = watch
        self.max_prompts = max_prompts
        self.params = params or Params()
        # More images than can be encoded soon need not be held decoded: they are larger than all else.
        self._decoding = BoundedSemaphore(segmenter.images_per_batch + threads.COUNT)

    def score_frame(self, frame: pd.DataFrame, params: Params) -> pd.DataFrame:
        """The answers to a table of the contract's columns, under its index. Raises BadInput, as `score` does."""
        if not any(name in frame.columns for name in ("image", "image_id")):
            raise BadInput("image", f"a table with the columns {', '.join(COLUMNS)}", "a table without it")
        frame = unfolded(frame)
        return answers_to_frame(self.score(read_rows(frame, self.max_prompts), params), frame.index, params)

    def score(self, rows: Sequence[Row | BadInput], params: Params) -> list[Answer]:
        """One answer a row, in order: `predictions`, `image_id`, `error`.

        Raises the first bad row's BadInput, unless `on_error` is `record`: then it answers with its error and no
        predictions.
        """
        answers: list[Answer | None] = [None] * len(rows)
        for source, members in self._by_image(rows, params, answers).items():
            try:
                self._score_image(source, members, rows, params, answers)
            except Busy as error:
                if params.on_error == "raise":
                    raise
                for position in members:
                    answers[position] = {"predictions": [], "image_id": None, "error": str(error)}
        return [answer for answer in answers if answer is not None]

    def _by_image(
        self, rows: Sequence[Row | BadInput], params: Params, answers: list[Answer | None]
    ) -> dict[str | bytes | tuple[str], list[int]]:
        """Positions of the rows of each image, by the image as it came, or by (image_id,) for one already kept.

        An `image_id` names the image that an earlier row of the request gave it to, else a kept one.
        """
        named: dict[str, str | bytes] = {}
        grouped: dict[str | bytes | tuple[str], list[int]] = {}
        for position, row in enumerate(rows):
            try:
                if isinstance(row, BadInput):
                    raise row
                self._check(row)
                if row.image is not None and row.image_id is not None:
                    named[row.image_id] = row.image
                source = row.image if row.image is not None else named.get(row.image_id or "", (row.image_id or "",))
                grouped.setdefault(source, []).append(position)
            except BadInput as error:
                answers[position] = self._refuse(row, position, error, params)
        return grouped

    def _check(self, row: Row) -> None:
        if row.image is not None and not isinstance(row.image, (str, bytes)):
            images.read(row.image, self.limits)  # raises, in its own words
        self.check(row.prompts)

    def check(self, asked: Sequence[Prompt]) -> None:
        """Raises BadInput for too many prompts or points, and for a mask input that is not of the model's size."""
        column = "input_boxes" if asked and asked[0].box is not None else "input_points"
        check_count(column, len(asked), self.max_prompts)
        for prompt in asked:
            if prompt.points is not None:
                check_count("input_points", len(prompt.points), self.max_prompts, "points a prompt")
            if prompt.mask is not None and prompt.mask.shape != self.segmenter.family.low_res_size:
                height, width = self.segmenter.family.low_res_size
                raise BadInput("mask_input", f"logits of {height} x {width}", "x".join(map(str, prompt.mask.shape)))

    def _score_image(
        self,
        source: str | bytes | tuple[str],
        members: list[int],
        rows: Sequence[Row | BadInput],
        params: Params,
        answers: list[Answer | None],
    ) -> None:
        try:
            kept = self.keep(source)
        except BadInput as error:
            for position in members:
                answers[position] = self._refuse(rows[position], position, error, params)
            return
        chosen = [(position, row) for position in members if isinstance(row := rows[position], Row)]
        unprompted = [(position, row) for position, row in chosen if not row.prompts]
        predictions: dict[int, list[dict[str, Any]]] = {}
        for multimask in (True, False):
            prompted = [one for one in chosen if one[1].prompts and one[1].multimask_output is multimask]
            asked = [(position, prompt) for position, row in prompted for prompt in row.prompts]
            # Some at a time: their logits need not all be held, and other requests get their turn in between.
            for start in range(0, len(asked), PROMPTS_AT_ONCE):
                some = asked[start : start + PROMPTS_AT_ONCE]
                found = self.segment(kept, [prompt for _, prompt in some], multimask)
                for (position, _), segmentation in zip(some, found, strict=True):
                    predictions.setdefault(position, []).append(self._render(segmentation, params))
        try:
            objects = self._everything(kept, params) if unprompted else []
            predictions.update((position, objects) for position, _ in unprompted)
        except BadInput as error:
            for position, row in unprompted:
                answers[position] = self._refuse(row, position, error, params)
        for position, row in chosen:
            if position in predictions:
                if row.image_id is not None:
                    self.embeddings.name(row.image_id, kept.key)
                image_id = row.image_id or kept.key
                answers[position] = {"predictions": predictions[position], "image_id": image_id, "error": None}

    def keep(self, source: str | bytes | tuple[str]) -> Kept:
        """The image, as base64 text, a URL, bytes or (image_id,), with its embedding under the hash of its content.

        Raises BadInput for what is no image, UnknownImage for an id under which none is kept.
        """
        if isinstance(source, tuple):
            embedding = self.embeddings.find(source[0])
            if embedding is None:
                raise UnknownImage(
                    "image_id", "the id of an image that is still kept (send the image again)", "an unknown id"
                )
            return Kept(embedding, self.embeddings.key(source[0]), _no_pixels)
        key, pixels = self.open(source)

        def embed() -> Embedding:
            with self._decoding:
                made = self._encode(pixels())
                pixels.forget()
                return made

        return Kept(self.embeddings.get(key, embed), key, pixels)

    def open(self, source: str | bytes) -> tuple[str, Pixels]:
        """The hash of an image's content, and its pixels. Raises BadInput."""
        with self.watch("fetch"):
            data = images.read(source, self.limits)
            key = hashlib.sha256(data).hexdigest()
        return key, Pixels(partial(self._decode, data))

    def _decode(self, data: bytes) -> np.ndarray:
        with self.watch("decode"):
            return images.decode(data, self.limits)

    def _encode(self, pixels: np.ndarray) -> Embedding:
        with self.watch("encode"):
            return self.segmenter.embed([pixels])[0]

    def segment(self, kept: Kept, prompts: Sequence[Prompt], multimask_output: bool = True) -> list[Segmentation]:
        """One segmentation a prompt, in order."""
        if not prompts:
            return []
        with self.watch("prompt"):
            return self.segmenter.segment(kept.embedding, prompts, multimask_output)

    def _everything(self, kept: Kept, params: Params) -> list[dict[str, Any]]:
        """Every object in the image, one prediction of one mask each."""

        def crop(box: Box) -> Embedding:
            x1, y1, x2, y2 = box
            key = f"{kept.key} {x1},{y1},{x2},{y2}"
            return self.embeddings.get(key, lambda: self._encode(kept.pixels()[y1:y2, x1:x2]))

        with self.watch("prompt"):
            objects = everything(self.segmenter, kept.embedding, crop, params.grid, params.return_logits)
        with self.watch("render"):
            return [
                {
                    "mask_per_prediction": [
                        _answer(masks.encode_rle(found.rle, params.mask_encoding), found.score, found.logits, params)
                    ]
                }
                for found in objects
            ]

    def _render(self, segmentation: Segmentation, params: Params) -> dict[str, Any]:
        with self.watch("mask"):
            cuts = self.segmenter.cuts(segmentation)
        with self.watch("render"):
            made = masks.encode_all(cuts, params.mask_encoding)
            found = zip(made, segmentation.scores, segmentation.logits, strict=True)
            return {"mask_per_prediction": [_answer(one, score, logits, params) for one, score, logits in found]}

    @staticmethod
    def _refuse(row: Row | BadInput, position: int, error: BadInput, params: Params) -> Answer:
        at_row = error.at(row.index if isinstance(row, Row) else row.row)
        if params.on_error == "raise":
            raise at_row
        return {"predictions": [], "image_id": row.image_id if isinstance(row, Row) else None, "error": str(at_row)}


def _answer(described: dict[str, Any], score: float, logits: Tensor | None, params: Params) -> dict[str, Any]:
    answer = MaskAnswer(**described, iou_score=float(score))
    if params.return_logits and logits is not None:
        answer["low_res_logits"] = masks.logits_to_text(logits.float().cpu().numpy())
    return answer


def _no_pixels() -> np.ndarray:
    raise BadInput("image", "the image itself, since crop_n_layers looks at parts of it", "only an image_id")
