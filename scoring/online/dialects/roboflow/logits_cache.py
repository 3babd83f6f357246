"""Cache the logits of earlier responses, which a later request with more points can refine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from threading import Lock
from typing import NamedTuple

import numpy as np

from sam_endpoint.model.prompts import Prompt
from sam_endpoint.model.shared_lru import SharedLRU

MAX_CLICKS = 10_000  # a request with more clicks neither reads nor writes the cache
MAX_COMPARED = 20_000  # clicks that one lookup compares, which takes a few milliseconds
CLICK_BYTES = 256  # memory of a click in a Python set


class CacheKey(NamedTuple):
    """Identifies an image of one tenant and one model."""

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
    """The prompts of an earlier request and the resulting logits.

    Args:
        prompts: prompts of the request; their mask inputs are not cached.
        logits: low-resolution logits of the best mask of each prompt, (h, w) float32; they are copied.

    Attributes:
        shapes: boxes and clicks of the prompts.
        logits: the copies.
        clicks: number of clicks in all prompts.
        nbytes: bytes of memory.
    """

    def __init__(self, prompts: Sequence[Prompt], logits: Sequence[np.ndarray]) -> None:
        self.shapes = [PromptShape.of(prompt) for prompt in prompts]
        # The arrays are views of the logits of a whole batch. Copies let the memory of the batch be freed.
        self.logits = [np.array(array) for array in logits]
        self.clicks = sum(len(shape.clicks) for shape in self.shapes)
        self.nbytes = sum(array.nbytes for array in self.logits) + CLICK_BYTES * (self.clicks + len(self.shapes))


class LogitsCache:
    """A cache of earlier answers by tenant, model and image. Safe to share between threads.

    When the cache is full, it evicts the least recently used image of the tenant that uses the most bytes.

    Args:
        max_bytes: maximum size of all answers together.
        max_answers: maximum number of answers for one image.
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
        """Return the earlier answers for an image, oldest first."""
        return self._answers.get(key.tenant, _name(key)) or ()

    def add(
        self, key: CacheKey, prompts: Sequence[Prompt], logits: Sequence[np.ndarray], replace_all: bool = False
    ) -> None:
        """Add an answer for an image.

        An answer that is larger than the whole cache, or has more than MAX_CLICKS clicks, is not cached.

        Args:
            key: tenant, model and image.
            prompts: prompts of the request.
            logits: low-resolution logits of the best mask of each prompt.
            replace_all: whether to remove all earlier answers for the image.
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
    """Return the prompts with earlier logits as mask inputs.

    An earlier answer fits if each of its prompts can be matched with a prompt of the new request that has the same box
    and contains all points of the earlier prompt. No new prompt is matched twice. The new request must also have more
    points or more prompts. The fitting answer with the most points is used. If none fits, or none is found within
    MAX_COMPARED compared clicks, the prompts are returned unchanged.

    Args:
        prompts: prompts of the new request.
        answers: earlier answers for the same image.
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
        """Match each prompt of an earlier answer with a prompt of the request.

        A prompt of the request matches if it has the same box and all clicks of the earlier prompt. No prompt of the
        request is matched twice.

        Returns:
            For each prompt of the answer, the index of its match in the request. None if a prompt has no match, or if
            the request adds neither a click nor a prompt.
        """
        if (len(answer.shapes), answer.clicks) == (len(self._shapes), self._clicks):
            return None
        if len(answer.shapes) > len(self._shapes) or answer.clicks > self._clicks:
            return None
        places: dict[int, int] = {}  # from the number of a prompt in the answer to its index in the request
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
        """Return the first candidate with all clicks of a shape, or None. All candidates have the box of the shape."""
        for place in candidates:
            self._compared += 1 + len(shape.clicks)
            if self._compared > MAX_COMPARED:
                return None
            if shape.clicks <= self._shapes[place].clicks:
                return place
        return None
