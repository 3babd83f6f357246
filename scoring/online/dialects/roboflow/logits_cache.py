"""Cache the logits of earlier responses, which a later request with more points can refine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from threading import Lock

import numpy as np
from cachetools import LRUCache

from sam_endpoint.model.prompts import Prompt

CacheKey = tuple[str, str, str]  # tenant, model, image


@dataclass
class EarlierAnswer:
    """The prompts of an earlier request and the resulting logits.

    Attributes:
        prompts: prompts of the request.
        logits: low-resolution logits (h, w) of the best mask of each prompt.
    """

    prompts: list[Prompt]
    logits: list[np.ndarray]


class LogitsCache:
    """A cache of earlier answers by tenant, model and image. Safe to share between threads.

    When the cache is full, it evicts the least recently used image.

    Args:
        max_bytes: largest size of all logits together.
        max_answers: largest number of answers for one image.
    """

    def __init__(self, max_bytes: int = 256 * 2**20, max_answers: int = 20) -> None:
        self._answers: LRUCache[CacheKey, list[EarlierAnswer]] = LRUCache(max_bytes, getsizeof=_nbytes)
        self._max_answers = max_answers
        self._lock = Lock()

    def get(self, key: CacheKey) -> list[EarlierAnswer]:
        """Return the earlier answers for an image, oldest first.

        Args:
            key: tenant id, name of the model, and id of the image.
        """
        with self._lock:
            return self._answers.get(key, [])

    def add(self, key: CacheKey, answer: EarlierAnswer, replace_all: bool = False) -> None:
        """Add an answer for an image. An answer that is larger than the whole cache is not stored.

        Args:
            key: tenant id, name of the model, and id of the image.
            answer: the answer.
            replace_all: whether to remove all earlier answers for the image.
        """
        with self._lock:
            before = [] if replace_all else self._answers.get(key, [])[1 - self._max_answers :]
            if _nbytes([answer]) > self._answers.maxsize:
                return
            while _nbytes([*before, answer]) > self._answers.maxsize:
                del before[0]
            self._answers[key] = [*before, answer]


def _nbytes(answers: list[EarlierAnswer]) -> int:
    return sum(logits.nbytes for answer in answers for logits in answer.logits)


def with_earlier_logits(prompts: list[Prompt], answers: list[EarlierAnswer]) -> list[Prompt]:
    """Return the prompts with earlier logits as mask inputs.

    An earlier answer fits if each of its prompts is contained in a different prompt of the new request: both have the
    same box, and the new prompt has all points of the earlier prompt. The new request must also have more points or
    more prompts. The fitting answer with the most points is used. If none fits, the prompts are returned unchanged.

    Args:
        prompts: prompts of the new request.
        answers: earlier answers for the same image.
    """
    fitting = [(answer, places) for answer in answers if (places := _subset(answer.prompts, prompts)) is not None]
    if not fitting:
        return prompts
    answer, places = max(fitting, key=lambda fit: sum(_points(prompt) for prompt in fit[0].prompts))
    by_place = dict(zip(places, answer.logits, strict=True))
    return [replace(prompt, mask=by_place.get(i)) for i, prompt in enumerate(prompts)]


def _subset(earlier: list[Prompt], later: list[Prompt]) -> list[int] | None:
    """Return for each earlier prompt the index of the later prompt that contains it.

    Return None if a prompt is not contained in any other, or if the later prompts add nothing.
    """
    places: list[int] = []
    for prompt in earlier:
        for i, candidate in enumerate(later):
            if i not in places and _is_part(prompt, candidate):
                places.append(i)
                break
        else:
            return None
    grown = len(later) > len(earlier) or sum(map(_points, later)) > sum(map(_points, earlier))
    return places if grown else None


def _is_part(prompt: Prompt, candidate: Prompt) -> bool:
    """Return whether `candidate` has the same box as `prompt` and all of its points."""
    same_box = (prompt.box is None and candidate.box is None) or (
        prompt.box is not None and candidate.box is not None and np.array_equal(prompt.box, candidate.box)
    )
    return same_box and _clicks(prompt) <= _clicks(candidate)


def _clicks(prompt: Prompt) -> set[tuple[float, ...]]:
    if prompt.points is None or prompt.labels is None:
        return set()
    return {(*point, label) for point, label in zip(prompt.points.tolist(), prompt.labels.tolist(), strict=True)}


def _points(prompt: Prompt) -> int:
    return len(_clicks(prompt))
