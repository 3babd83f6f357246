"""Rows to answers: each image read and encoded once, its prompts decoded together, masks written as text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from model import images, masks
from model.contract import Params, Row
from model.embeddings import Embeddings
from model.errors import BadInput, UnknownImage
from model.images import ImageLimits
from model.prompts import Prompt
from model.segmenter import Embedding, Segmentation, Segmenter

Answer = dict[str, Any]


class Scorer:
    """A segmenter with its kept embeddings and its rules for images. Safe to share between threads."""

    def __init__(self, segmenter: Segmenter, embeddings: Embeddings, limits: ImageLimits) -> None:
        self.segmenter = segmenter
        self.embeddings = embeddings
        self.limits = limits

    def score(self, rows: Sequence[Row | BadInput], params: Params) -> list[Answer]:
        """One answer a row, in order: `predictions`, `image_id`, `error`.

        Raises the first bad row's BadInput, unless `on_error` is `record`: then it answers with its error and no
        predictions.
        """
        answers: list[Answer | None] = [None] * len(rows)
        for source, members in self._by_image(rows, params, answers).items():
            self._score_image(source, members, rows, params, answers)
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
        if not row.prompts:
            raise BadInput(
                "input_points",
                "input_points, input_boxes or mask_input (segmenting everything in the image is not available yet)",
                "a row without prompts",
            )
        for prompt in row.prompts:
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
            embedding, key = self._embedding(source)
        except BadInput as error:
            for position in members:
                answers[position] = self._refuse(rows[position], position, error, params)
            return
        for wanted in (True, False):
            chosen = [(i, row) for i in members if isinstance(row := rows[i], Row) and row.multimask_output is wanted]
            found = iter(self._segment(embedding, [prompt for _, row in chosen for prompt in row.prompts], wanted))
            for position, row in chosen:
                if row.image_id is not None:
                    self.embeddings.name(row.image_id, key)
                answers[position] = {
                    "predictions": [self._render(next(found), params) for _ in row.prompts],
                    "image_id": row.image_id or key,
                    "error": None,
                }

    def _segment(self, embedding: Embedding, prompts: list[Prompt], multimask_output: bool) -> list[Segmentation]:
        return self.segmenter.segment(embedding, prompts, multimask_output) if prompts else []

    def _embedding(self, source: str | bytes | tuple[str]) -> tuple[Embedding, str]:
        """The embedding of an image, and the key (the hash of its content) under which it is kept."""
        if isinstance(source, tuple):
            kept = self.embeddings.find(source[0])
            if kept is None:
                raise UnknownImage(
                    "image_id", "the id of an image that is still kept (send the image again)", "an unknown id"
                )
            return kept, self.embeddings.key(source[0])
        data = images.read(source, self.limits)
        key = hashlib.sha256(data).hexdigest()
        return self.embeddings.get(key, lambda: self.segmenter.embed([images.decode(data, self.limits)])[0]), key

    def _render(self, segmentation: Segmentation, params: Params) -> dict[str, Any]:
        rendered = []
        for i, mask in enumerate(self.segmenter.masks(segmentation)):
            answer = {**masks.encode(mask, params.mask_encoding), "iou_score": float(segmentation.scores[i])}
            if params.return_logits:
                answer["low_res_logits"] = masks.logits_to_text(segmentation.logits[i].float().cpu().numpy())
            rendered.append(answer)
        return {"mask_per_prediction": rendered}

    @staticmethod
    def _refuse(row: Row | BadInput, position: int, error: BadInput, params: Params) -> Answer:
        at_row = error.at(row.index if isinstance(row, Row) else row.row)
        if params.on_error == "raise":
            raise at_row
        return {"predictions": [], "image_id": row.image_id if isinstance(row, Row) else None, "error": str(at_row)}
