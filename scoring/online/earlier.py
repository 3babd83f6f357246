"""Earlier answers' logits, from which a prompt that has grown since may start."""

from __future__ import annotations

from dataclasses import dataclass, replace
from threading import Lock

import numpy as np
from cachetools import LRUCache

from model.prompts import Prompt


@dataclass
class Earlier:
    """Prompts that were answered, and the low-resolution logits (h, w) of each one's best mask."""

    prompts: list[Prompt]
    logits: list[np.ndarray]


Place = tuple[str, str, str]  # tenant, model, image


class Answers:
    """Earlier answers by where they were given, the least recently asked first out. Safe to share between threads.

    max_bytes: of their logits; most: of one image.
    """

    def __init__(self, max_bytes: int = 256 * 2**20, most: int = 20) -> None:
        self._kept: LRUCache[Place, list[Earlier]] = LRUCache(max_bytes, getsizeof=_nbytes)
        self._most = most
        self._lock = Lock()

    def of(self, place: Place) -> list[Earlier]:
        """What was answered there, the latest last."""
        with self._lock:
            return self._kept.get(place, [])

    def keep(self, place: Place, answer: Earlier, alone: bool = False) -> None:
        """Adds an answer to those there, or puts it in the place of all of them. One too large is not kept."""
        with self._lock:
            before = [] if alone else self._kept.get(place, [])[1 - self._most :]
            if _nbytes([answer]) > self._kept.maxsize:
                return
            while _nbytes([*before, answer]) > self._kept.maxsize:
                del before[0]
            self._kept[place] = [*before, answer]


def _nbytes(answers: list[Earlier]) -> int:
    return sum(logits.nbytes for one in answers for logits in one.logits)


answers = Answers()


def with_earlier(wanted: list[Prompt], earlier: list[Earlier]) -> list[Prompt]:
    """Prompts with the logits of the largest earlier answer to a strict subset of them; as they are without one."""
    fitting = [(one, places) for one in earlier if (places := _subset(one.prompts, wanted)) is not None]
    if not fitting:
        return wanted
    one, places = max(fitting, key=lambda fit: sum(_points(prompt) for prompt in fit[0].prompts))
    by_place = dict(zip(places, one.logits, strict=True))
    return [replace(prompt, mask=by_place.get(i)) for i, prompt in enumerate(wanted)]


def _subset(earlier: list[Prompt], later: list[Prompt]) -> list[int] | None:
    """Which of the later prompts each earlier one went into; None unless all did and something was added."""
    places: list[int] = []
    for one in earlier:
        for i, other in enumerate(later):
            if i not in places and _within(one, other):
                places.append(i)
                break
        else:
            return None
    grown = len(later) > len(earlier) or sum(map(_points, later)) > sum(map(_points, earlier))
    return places if grown else None


def _within(one: Prompt, other: Prompt) -> bool:
    """Whether all of one prompt's points are the other's too, and its box the same."""
    same_box = (one.box is None and other.box is None) or (
        one.box is not None and other.box is not None and np.array_equal(one.box, other.box)
    )
    return same_box and _clicks(one) <= _clicks(other)


def _clicks(prompt: Prompt) -> set[tuple[float, ...]]:
    if prompt.points is None or prompt.labels is None:
        return set()
    return {(*point, label) for point, label in zip(prompt.points.tolist(), prompt.labels.tolist(), strict=True)}


def _points(prompt: Prompt) -> int:
    return len(_clicks(prompt))
