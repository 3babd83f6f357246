"""The evaluation protocol: the positions of clicks, and the results of an object."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from sam_endpoint.evaluation.geometry import Mask, iou
from sam_endpoint.evaluation.protocol import CLICK_PROMPTS, PROMPTS, measure_objects, next_click
from sam_endpoint.evaluation.scenes.dataset import SceneDataset
from sam_endpoint.model.prompts import Prompt
from sam_endpoint.model.segmenter import Segmenter


def test_places_a_click_at_the_center_of_the_larger_error() -> None:
    true = np.zeros((40, 60), bool)
    true[10:31, 20:41] = True
    assert next_click(true, np.zeros_like(true)) == ((30, 20), 1)
    assert next_click(true, true) == ((30, 20), 1)
    predicted = true.copy()
    predicted[:, 45:60] = True
    (x, y), label = next_click(true, predicted)
    assert label == 0 and 45 <= x < 60 and not true[y, x]
    assert x == 52  # the middle of the strip from 45 to the edge of the image


def test_an_objects_results_are_those_of_the_models_masks(tiny: Segmenter, disc: tuple[bytes, Mask]) -> None:
    image, true = np.asarray(Image.open(io.BytesIO(disc[0]))), disc[1]
    (embedding,) = tiny.embed([image])
    (result,) = measure_objects(tiny, embedding, [true])
    assert tuple(result.qualities) == ("box", "box best of 3", "1 click", "1 click, oracle", *CLICK_PROMPTS[1:])
    assert set(result.qualities) == set(PROMPTS)

    (answer,) = tiny.segment(embedding, [Prompt(box=np.array([70, 40, 151, 121], np.float32))], False)
    assert result.qualities["box"].iou == pytest.approx(iou(tiny.masks(answer)[0], true))
    assert result.qualities["box"].score == pytest.approx(answer.scores[0])

    points, labels = [(110, 80)], [1]  # the disc's centre
    (answer,) = tiny.segment(embedding, [Prompt(np.array(points, np.float32), np.array(labels))])
    best = int(answer.scores.argmax())
    ious = [iou(mask, true) for mask in tiny.masks(answer)]
    assert result.qualities["1 click"].iou == pytest.approx(ious[best])
    assert result.qualities["1 click, oracle"].iou == pytest.approx(max(ious))
    for count in (2, 3):
        point, label = next_click(true, tiny.masks(answer)[best])
        points, labels = [*points, point], [*labels, label]
        logits = answer.logits[best].numpy()
        prompt = Prompt(np.array(points, np.float32), np.array(labels), mask=logits)
        (answer,), best = tiny.segment(embedding, [prompt], False), 0
        assert result.qualities[f"{count} clicks"].iou == pytest.approx(iou(tiny.masks(answer)[0], true))


def test_results_do_not_depend_on_the_other_objects_of_an_image(tiny: Segmenter) -> None:
    (image,) = SceneDataset(1)
    (embedding,) = tiny.embed([image.pixels])
    true_masks = [true.mask for true in image.objects]
    assert len(true_masks) > 2
    together = measure_objects(tiny, embedding, true_masks)
    for mask, result in zip(true_masks, together, strict=True):
        (alone,) = measure_objects(tiny, embedding, [mask])
        for prompt in PROMPTS:
            assert result.qualities[prompt].iou == pytest.approx(alone.qualities[prompt].iou, abs=0.02), prompt
