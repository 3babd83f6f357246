"""Score tables: compute the masks for the image and the prompts of each row.

Each image is embedded once, and its prompts are decoded together.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd

from . import masks
from .answers import PartialAnswer, answers_to_frame, mask_answer, render, text_length
from .budget import NO_LIMITS, RequestLimits
from .call import UNTRACKED, Call
from .concepts.predict import predict_concepts
from .engine import EmbeddedImage, Engine
from .errors import BadInput, Overloaded
from .images import ImageRef
from .params import Params
from .prompts import Prompt
from .prompts.cells import count_values
from .rows import COLUMNS, CONCEPT_COLUMNS, PROMPT_COLUMNS, Row, column_names, read_rows, unfold
from .videos import score_videos

PROMPTS_AT_ONCE = 64  # prompts decoded and encoded together; limits the memory for logits
Answer = dict[str, Any]  # the result for one row: `predictions`, `image_id` and `error`
Prediction = PartialAnswer  # the result for one prompt: `mask_per_prediction`
PlacedRows = dict[int, Row]  # rows by their positions in the request


class Scorer:
    """Scores tables with an Engine. Safe to share between threads.

    Args:
        engine: embeds and segments the images.
        limits: limits on the rows, prompts and points of one table, and on the size of its logits.

    Example:
        >>> from sam_endpoint.model.embeddings import EmbeddingCache
        >>> from sam_endpoint.model.images import ImageLimits, ImageReader
        >>> from sam_endpoint.model.segmenter import Segmenter
        >>> reader = ImageReader(ImageLimits(local_paths=True))
        >>> engine = Engine(Segmenter.load("checkpoints/sam-tiny", "cpu"), reader, EmbeddingCache(2**28))
        >>> frame = pd.DataFrame({"image": ["samples/coffee.jpg"], "input_boxes": ["[[170, 14, 414, 312]]"]})
        >>> answers = Scorer(engine).score_frame(frame, Params(mask_encoding="rle"))
        >>> list(answers), len(answers["predictions"][0][0]["mask_per_prediction"])
        (['predictions', 'image_id', 'error'], 3)
    """

    def __init__(self, engine: Engine, limits: RequestLimits = NO_LIMITS) -> None:
        self.engine, self.limits = engine, limits

    def read(self, frame: pd.DataFrame, params: Params) -> list[Row | BadInput]:
        """Parse the rows of a table. A row that cannot be parsed becomes a BadInput in the result."""
        reference = partial(self.engine.images.reference, upright=params.upright)
        return read_rows(frame, reference, self.engine.max_prompts)

    def score_frame(self, frame: pd.DataFrame, params: Params, call: Call = UNTRACKED) -> pd.DataFrame:
        """Score a table.

        Args:
            frame: a table with the columns of `rows.COLUMNS`, or of `rows.VIDEO_COLUMNS`; other columns are ignored.
            params: the parameters of the request.
            call: deadline, cancellation and memory budget of the request.

        Returns:
            A table with one row per input row and with the same index. Its columns are `rows.OUTPUT_COLUMNS`. If
            `params.response_format` is `azureml`, its only column is `response`.

        Raises:
            BadInput: the table has no column `image`, `image_id` or `video`, or a row is bad (see `score`).
            BadRequest, Overloaded, DeadlineExceeded, ClientDisconnected: see `score`.
        """
        self.limits.check_rows(len(frame))
        frame = frame.rename(columns=column_names(frame.columns))
        has_images = any(name in frame.columns for name in ("image", "image_id"))
        if "video" in frame.columns and not has_images:
            return answers_to_frame(score_videos(self.engine, self.limits, frame, params, call), frame.index, params)
        if not has_images:
            raise BadInput(
                "image",
                f"a table with a column image or image_id, or a column video (all columns: {', '.join(COLUMNS)})",
                "a table without them",
            )
        frame = unfold(frame)
        if self.limits.values is not None:
            cells = (cell for name in (*PROMPT_COLUMNS, *CONCEPT_COLUMNS[:3]) if name in frame for cell in frame[name])
            self.limits.check_values(sum(count_values(cell) for cell in cells if isinstance(cell, str)))
        return answers_to_frame(self.score(self.read(frame, params), params, call), frame.index, params)

    def score(self, rows: Sequence[Row | BadInput], params: Params, call: Call = UNTRACKED) -> list[Answer]:
        """Score parsed rows.

        Args:
            rows: the rows, as returned by `read`.
            params: the parameters of the request.
            call: deadline, cancellation and memory budget of the request.

        Returns:
            One dictionary per row, in order, with `predictions`, `image_id` and `error`. If `params.on_error` is
            `record`, the dictionary of a bad row holds the error and no predictions.

        Raises:
            BadInput: a row is bad, and `params.on_error` is `raise`.
            Overloaded: a queue is full or memory is short, and `params.on_error` is `raise`.
            BadRequest: the rows exceed the limits.
            DeadlineExceeded: the time limit of the call has passed.
            ClientDisconnected: the call was cancelled.
        """
        self._check_cost(rows, params)
        answers: dict[int, Answer] = {}
        for ref, placed_rows in self._by_image(rows, params, answers).items():
            try:
                answers.update(self._score_image(ref, placed_rows, params, call))
            except Overloaded as error:
                if params.on_error == "raise":
                    raise
                answers.update((position, _failure(row.image_id, error)) for position, row in placed_rows.items())
        return [answers[position] for position in range(len(rows))]

    def _check_cost(self, rows: Sequence[Row | BadInput], params: Params) -> None:
        """Raise BadRequest if all rows together exceed the limits."""
        parsed = [row for row in rows if isinstance(row, Row)]
        self.limits.check_rows(len(rows))
        self.limits.check_prompts(sum(row.prompt_count for row in parsed))
        self.limits.check_points(sum(row.is_everything for row in parsed), params.grid.count)
        search, by_example, searches = self.engine.concepts, 0, 0
        for row in parsed:
            if row.concepts:
                by_example += search.compares_examples(row.concepts, row.examples_image is not None)
                searches += search.count_searches(row.concepts, row.examples_image is not None)
        self.limits.check_points(by_example, params.points_per_side**2)
        self.limits.check_concepts(searches)
        if params.return_logits:
            mask_count = sum((3 if row.multimask_output else 1) * len(row.prompts or ()) for row in parsed)
            self.limits.check_logits(mask_count, masks.logits_nbytes(self.engine.low_res_size))

    def _by_image(
        self, rows: Sequence[Row | BadInput], params: Params, answers: dict[int, Answer]
    ) -> dict[ImageRef, PlacedRows]:
        """Group valid rows by image, and add the answers of bad rows to `answers`.

        A row may have an `image_id` but no image. If an earlier row has the same id and an image, the row refers to
        that image. Otherwise the row refers to a cached image.
        """
        named: dict[str, ImageRef] = {}
        grouped: dict[ImageRef, PlacedRows] = {}
        for position, row in enumerate(rows):
            if isinstance(row, BadInput):
                answers[position] = _failed_row(row, row, params)
                continue
            try:
                self.engine.check_prompts(row.prompts or ())
                self.engine.concepts.check(row.concepts or (), row.examples_image is not None)
            except BadInput as error:
                answers[position] = _failed_row(row, error, params)
                continue
            ref = row.image
            if ref is None:
                ref = named.get(row.image_id or "", ImageRef.id(row.image_id or ""))
            elif row.image_id is not None:
                named[row.image_id] = ref
            grouped.setdefault(ref, {})[position] = row
        for placed_rows in grouped.values():  # a second loop, because a later row may name another image
            for position, row in placed_rows.items():
                if row.image_id is not None and named.get(row.image_id) != row.image:
                    placed_rows[position] = row = replace(row, image=None)  # a later row gives the id to another image
                if row.examples_image is not None and row.examples_image.kind == "id":
                    known = named.get(str(row.examples_image.value), row.examples_image)
                    placed_rows[position] = replace(row, examples_image=known)
        return grouped

    def _score_image(self, ref: ImageRef, placed_rows: PlacedRows, params: Params, call: Call) -> dict[int, Answer]:
        """Score the rows of one image, and return their answers by position."""
        concepts = [concept for row in placed_rows.values() for concept in row.concepts or ()]
        with ExitStack() as stack:
            try:
                image = stack.enter_context(
                    self.engine.embedded(ref, self.engine.concepts.needs_pixels(concepts), call)
                )
            except BadInput as error:
                return {position: _failed_row(row, error, params) for position, row in placed_rows.items()}
            return self._score_rows(image, placed_rows, params, call)

    def _score_rows(
        self, image: EmbeddedImage, placed_rows: PlacedRows, params: Params, call: Call
    ) -> dict[int, Answer]:
        """Score the rows of one embedded image, and return their answers by position."""
        answers: dict[int, Answer] = {}
        predictions: dict[int, list[Prediction]] = {i: [] for i, row in placed_rows.items() if row.prompts == []}
        for multimask_output in (True, False):
            placed = [
                (position, prompt)
                for position, row in placed_rows.items()
                if row.multimask_output is multimask_output
                for prompt in row.prompts or ()
            ]
            placed_predictions = self.predict(image, [prompt for _, prompt in placed], multimask_output, params, call)
            for (position, _), prediction in zip(placed, placed_predictions, strict=True):
                predictions.setdefault(position, []).append(prediction)
        for position, row in placed_rows.items():
            if row.concepts is not None:
                try:
                    predictions[position] = predict_concepts(self.engine, image, row, params, call)
                except BadInput as error:
                    answers[position] = _failed_row(row, error, params)
        unprompted = {position: row for position, row in placed_rows.items() if row.is_everything}
        try:
            objects = self.predict_everything(image, params, call) if unprompted else []
            predictions.update((position, objects) for position in unprompted)
            # `predict_everything` has counted the objects for the first of these rows. Each further row repeats them.
            lengths = sum(text_length(mask) for item in objects for mask in item["mask_per_prediction"])
            call.count_answer(lengths * (len(unprompted) - 1 if unprompted else 0))
        except BadInput as error:
            answers.update((position, _failed_row(row, error, params)) for position, row in unprompted.items())
        for position, row in placed_rows.items():
            if position not in predictions or position in answers:
                continue
            try:
                if row.image_id is not None and row.image is not None:
                    self.engine.name(row.image_id, image)
                image_id = row.image_id or image.key
                answers[position] = {"predictions": predictions[position], "image_id": image_id, "error": None}
            except BadInput as error:
                answers[position] = _failed_row(row, error, params)
        return answers

    def predict(
        self,
        image: EmbeddedImage,
        prompts: Sequence[Prompt],
        multimask_output: bool,
        params: Params,
        call: Call = UNTRACKED,
    ) -> list[Prediction]:
        """Segment an image by prompts and encode the masks.

        Args:
            image: the image.
            prompts: the prompts; each selects one object.
            multimask_output: True for 3 masks per prompt, False for 1 mask per prompt.
            params: the parameters of the request.
            call: deadline, cancellation and memory budget of the request.

        Returns:
            One dictionary per prompt, in order. Its only key is `mask_per_prediction`, the list of the prompt's masks.

        Raises:
            BadRequest: the response is larger than the call allows.
            Overloaded, DeadlineExceeded, ClientDisconnected: see `score`.
        """
        predictions = []
        for piece in call.pieces(len(prompts), PROMPTS_AT_ONCE):
            for segmentation in self.engine.segment(image, prompts[piece], multimask_output, call):
                predictions.append(render(self.engine, segmentation, params, call))
        return predictions

    def predict_everything(self, image: EmbeddedImage, params: Params, call: Call = UNTRACKED) -> list[Prediction]:
        """Segment every object in an image and encode the masks.

        Args:
            image: the image.
            params: the parameters of the request.
            call: deadline, cancellation and memory budget of the request.

        Returns:
            One dictionary per object, in descending order of predicted IoU. Its only key is `mask_per_prediction`, a
            list with the mask of the object.

        Raises:
            BadInput: `params.crop_n_layers` is above 0, and only the embedding of the image is known.
            BadRequest, Overloaded, DeadlineExceeded, ClientDisconnected: see `predict`.
        """
        objects = self.engine.everything(image, params.grid, params.return_logits, call)
        predictions = []
        for item in objects:
            with call.stage("render"):
                mask = masks.encode_rle(item.rle, params.mask_encoding)
                answer = mask_answer(mask, item.score, item.logits, params)
            call.count_answer(text_length(answer))
            predictions.append(PartialAnswer(mask_per_prediction=[answer]))
        return predictions


def _failed_row(row: Row | BadInput, error: BadInput, params: Params) -> Answer:
    """Return the answer of a bad row, or raise its error if `params.on_error` is `raise`."""
    index = row.index if isinstance(row, Row) else row.row
    if params.on_error == "raise":
        raise error.at(index)
    return _failure(row.image_id, error.at(index))


def _failure(image_id: str | None, error: Exception) -> Answer:
    return {"predictions": [], "image_id": image_id, "error": str(error)}
