"""Logits of earlier answers, with which the decoder starts when a prompt has grown since."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from threading import Lock
from typing import NamedTuple

import numpy as np

from sam_endpoint.model.embeddings.shared_lru import SharedLRU
from sam_endpoint.model.prompts import Prompt

MAX_CLICKS = 10_000  # of one answer; answers with more are not kept, and no earlier answer is looked up for them
MAX_COMPARED = 20_000  # clicks that one lookup compares, a few milliseconds
CLICK_BYTES = 256  # of a click in a set of Python's


class CacheKey(NamedTuple):
    """Names an image of one tenant and one model."""

    tenant: str
    model: str
    image: str


class PromptShape(NamedTuple):
    """A prompt's box and clicks, without their order.

    Attributes:
        box: the box's numbers, or None.
        clicks: the points, each (x, y, label).
    """

    box: bytes | None
    clicks: frozenset[tuple[float, ...]]

    @classmethod
    def of(cls, prompt: Prompt) -> PromptShape:
        """Return the shape of a prompt."""
        box = None if prompt.box is None else prompt.box.tobytes()
        if prompt.points is None or prompt.labels is None:
            return cls(box, frozenset())
        pairs = zip(prompt.points.tolist(), prompt.labels.tolist(), strict=True)
        return cls(box, frozenset((*point, label) for point, label in pairs))


class EarlierAnswer:
    """Prompts that were answered, and copies of the low-resolution logits (h, w) of the best mask of each.

    Args:
        prompts: the prompts; their mask inputs are not kept.
        logits: one (h, w) float32 array a prompt.

    Attributes:
        shapes: boxes and clicks of the prompts.
        logits: the copies.
        clicks: number of clicks in all prompts.
        nbytes: bytes of memory.
    """

    def __init__(self, prompts: Sequence[Prompt], logits: Sequence[np.ndarray]) -> None:
        self.shapes = [PromptShape.of(prompt) for prompt in prompts]
        # Copies, since the arrays are views of the logits of a whole batch, which would stay in memory with them.
        self.logits = [np.array(array) for array in logits]
        self.clicks = sum(len(shape.clicks) for shape in self.shapes)
        self.nbytes = sum(array.nbytes for array in self.logits) + CLICK_BYTES * (self.clicks + len(self.shapes))


class LogitsCache:
    """Earlier answers by tenant, model and image. Safe to share between threads.

    A full cache evicts the least recently used image of the tenant that holds most.

    Args:
        max_bytes: memory for the answers.
        max_answers: largest number of answers kept for one image.
    """

    def __init__(self, max_bytes: int = 256 * 2**20, max_answers: int = 20) -> None:
        self._answers: SharedLRU[tuple[EarlierAnswer, ...]] = SharedLRU(max_bytes, _nbytes)
        self._max_answers = max_answers
        self._lock = Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of all answers."""
        return self._answers.size

    def get(self, key: CacheKey) -> tuple[EarlierAnswer, ...]:
        """Return the earlier answers of an image, the latest last."""
        return self._answers.get(key.tenant, _name(key)) or ()

    def add(
        self, key: CacheKey, prompts: Sequence[Prompt], logits: Sequence[np.ndarray], replace_all: bool = False
    ) -> None:
        """Add an answer to those of an image, or replace them all by it.

        An answer larger than the cache, or of more than MAX_CLICKS clicks, is not kept.
        """
        if sum(map(_points, prompts)) > MAX_CLICKS or sum(array.nbytes for array in logits) > self._answers.max_size:
            return
        answer = EarlierAnswer(prompts, logits)
        if answer.nbytes > self._answers.max_size:
            return
        with self._lock:
            answers, nbytes = [answer], answer.nbytes
            for earlier in () if replace_all else reversed(self.get(key)):
                nbytes += earlier.nbytes
                if len(answers) == self._max_answers or nbytes > self._answers.max_size:
                    break
                answers.append(earlier)
            self._answers.put(key.tenant, _name(key), tuple(reversed(answers)))


def _name(key: CacheKey) -> str:
    return f"{key.model}\0{key.image}"


def _nbytes(answers: tuple[EarlierAnswer, ...]) -> int:
    return sum(answer.nbytes for answer in answers)


def _points(prompt: Prompt) -> int:
    return 0 if prompt.points is None else len(prompt.points)


def with_earlier_logits(prompts: list[Prompt], answers: Sequence[EarlierAnswer]) -> list[Prompt]:
    """Return prompts with the logits of the largest earlier answer to a strict subset of them, if there is one.

    The work is bounded: an answer that is not found within MAX_COMPARED compared clicks is not used.
    """
    if not answers or sum(map(_points, prompts)) > MAX_CLICKS:
        return prompts
    search = _Search([PromptShape.of(prompt) for prompt in prompts])
    for answer in sorted(answers, key=lambda answer: -answer.clicks):
        if (places := search.places(answer)) is not None:
            by_place = dict(zip(places, answer.logits, strict=True))
            return [replace(prompt, mask=by_place.get(i)) for i, prompt in enumerate(prompts)]
    return prompts


class _Search:
    """Looks for the prompts of earlier answers in those of a request.

    Args:
        shapes: the prompts of the request.
    """

    def __init__(self, shapes: Sequence[PromptShape]) -> None:
        self._shapes = shapes
        self._clicks = sum(len(shape.clicks) for shape in shapes)
        self._compared = 0

    def places(self, answer: EarlierAnswer) -> list[int] | None:
        """Return which prompt each prompt of an answer has become.

        Returns:
            The places of the prompts; None unless each has a prompt of its own with the same box and all its clicks,
            and a click or a prompt was added.
        """
        if (len(answer.shapes), answer.clicks) == (len(self._shapes), self._clicks):
            return None
        if len(answer.shapes) > len(self._shapes) or answer.clicks > self._clicks:
            return None
        places: dict[int, int] = {}  # of the answer's prompts by their number
        equal: dict[PromptShape, list[int]] = defaultdict(list)
        for place, shape in reversed(list(enumerate(self._shapes))):
            equal[shape].append(place)
        for number, shape in enumerate(answer.shapes):
            if equal.get(shape):
                places[number] = equal[shape].pop()
        left: dict[bytes | None, dict[int, None]] = defaultdict(dict)
        taken = set(places.values())
        for place, shape in enumerate(self._shapes):
            if place not in taken:
                left[shape.box][place] = None
        for number, shape in enumerate(answer.shapes):
            if number not in places:
                grown = self._grown(shape, left[shape.box])
                if grown is None:
                    return None
                places[number] = grown
                del left[shape.box][grown]
        return [places[number] for number in range(len(answer.shapes))]

    def _grown(self, shape: PromptShape, candidates: dict[int, None]) -> int | None:
        """Return the first of the candidates, prompts with the same box, that has all clicks of a shape."""
        for place in candidates:
            self._compared += 1 + len(shape.clicks)
            if self._compared > MAX_COMPARED:
                return None
            if shape.clicks <= self._shapes[place].clicks:
                return place
        return None
