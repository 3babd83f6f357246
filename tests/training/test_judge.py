"""Figures of one object, by values worked out by hand."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from model.prompts import Prompt
from model.segmenter import Segmenter
from training.ground_truth import Scenes, box_of
from training.judge import CLICKED, PROMPTS, boundary_f, centre, iou, judge, next_click


def square(left: int, top: int, side: int = 20) -> np.ndarray:
    mask = np.zeros((100, 100), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_boundary_f_of_shifted_squares() -> None:
    """In 100 x 100 pixels the tolerance is 2: 0.8 % of 141.4, rounded up."""
    true = square(30, 30)
    assert boundary_f(true, true) == 1
    assert boundary_f(true, square(32, 30)) == 1
    # Shifted by 3, of 76 boundary pixels stay within 2: 19 at the top, 19 at the bottom, 4 on the far side.
    assert boundary_f(true, square(33, 30)) == pytest.approx(42 / 76)
    assert boundary_f(true, square(70, 70)) == 0


def test_boundary_f_weighs_what_is_found_and_what_is_missed() -> None:
    true, found = square(30, 30), square(30, 30) | square(70, 70)
    # Half of the found boundary is right, all of the true one is found.
    assert boundary_f(true, found) == boundary_f(found, true) == pytest.approx(2 * 0.5 * 1 / 1.5)


def test_boundary_f_where_the_image_ends() -> None:
    half, less, least, full = (np.arange(100)[:, None] < np.full(100, rows) for rows in (50, 48, 47, 100))
    assert boundary_f(half, less) == 1 and boundary_f(half, least) == 0
    assert boundary_f(full, full) == 1 and boundary_f(full, half) == 0 and boundary_f(half, ~full) == 0


def test_iou() -> None:
    assert iou(square(30, 30), square(40, 30)) == pytest.approx(200 / 600)
    assert iou(square(0, 0, 0), square(0, 0, 0)) == 1 and iou(square(0, 0), square(0, 0, 0)) == 0


def test_clicks_are_placed_at_the_centre() -> None:
    true = np.zeros((40, 60), bool)
    true[10:31, 20:41] = True
    assert box_of(true).tolist() == [20, 10, 41, 31]
    assert centre(true) == (30, 20)
    assert next_click(true, np.zeros_like(true)) == ((30, 20), 1)
    assert next_click(true, true) == ((30, 20), 1)
    found = true.copy()
    found[:, 45:60] = True
    (x, y), label = next_click(true, found)
    assert label == 0 and 45 <= x < 60 and not true[y, x]
    assert x == 52  # the middle of a strip that the image's edge bounds


def test_a_click_keeps_from_a_thin_part() -> None:
    """A disc with a long handle: its middle, not that of the whole."""
    y, x = np.mgrid[:60, :120]
    spoon = ((x - 20) ** 2 + (y - 30) ** 2 <= 15**2) | ((abs(y - 30) <= 2) & (x >= 20) & (x < 110))
    assert centre(spoon) == (20, 30)


def test_the_figures_are_those_of_the_models_answers(tiny: Segmenter, disc: tuple[bytes, np.ndarray]) -> None:
    image, true = np.asarray(Image.open(io.BytesIO(disc[0]))), disc[1]
    (embedding,) = tiny.embed([image])
    (judged,) = judge(tiny, embedding, [true])
    assert tuple(judged.figures) == ("box", "box best of 3", "1 click", "1 click, oracle", *CLICKED[1:])
    assert set(judged.figures) == set(PROMPTS)

    (answer,) = tiny.segment(embedding, [Prompt(box=np.array([70, 40, 151, 121], np.float32))], False)
    assert judged.figures["box"].iou == pytest.approx(iou(tiny.masks(answer)[0], true))
    assert judged.figures["box"].score == pytest.approx(answer.scores[0])

    points, labels = [(110, 80)], [1]  # the disc's centre
    (answer,) = tiny.segment(embedding, [Prompt(np.array(points, np.float32), np.array(labels))])
    best = int(answer.scores.argmax())
    ious = [iou(mask, true) for mask in tiny.masks(answer)]
    assert judged.figures["1 click"].iou == pytest.approx(ious[best])
    assert judged.figures["1 click, oracle"].iou == pytest.approx(max(ious))
    for count in (2, 3):
        point, label = next_click(true, tiny.masks(answer)[best])
        points, labels = [*points, point], [*labels, label]
        logits = answer.logits[best].numpy()
        prompt = Prompt(np.array(points, np.float32), np.array(labels), mask=logits)
        (answer,), best = tiny.segment(embedding, [prompt], False), 0
        assert judged.figures[f"{count} clicks"].iou == pytest.approx(iou(tiny.masks(answer)[0], true))


def test_things_judged_together_are_judged_as_alone(tiny: Segmenter) -> None:
    (picture,) = Scenes(1)
    (embedding,) = tiny.embed([picture.image])
    true = [thing.mask for thing in picture.things]
    assert len(true) > 2
    together = judge(tiny, embedding, true)
    for mask, one in zip(true, together, strict=True):
        (alone,) = judge(tiny, embedding, [mask])
        for prompt in PROMPTS:
            assert one.figures[prompt].iou == pytest.approx(alone.figures[prompt].iou, abs=0.02), prompt
