"""Objects found by example with the embedded model: coins of a sample picture, and discs of a drawn picture."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw

from sam_endpoint.model.budget import RequestLimits
from sam_endpoint.model.call import Call
from sam_endpoint.model.errors import BadRequest, DeadlineExceeded
from sam_endpoint.model.params import Params
from sam_endpoint.model.scorer import Scorer
from sam_endpoint.model.segmenter import Segmenter
from tests.coins import COINS, PICTURE, match
from tests.engines import engine_of, score_rows, scorer_of

EXAMPLE = COINS[10].tolist()


class CountingSegmenter(Segmenter):
    """A segmenter that counts the images that it encodes and the prompts that it decodes."""

    def __init__(self, plain: Segmenter) -> None:
        super().__init__(plain.family, plain.name)
        self.images = self.prompts = 0

    def embed(self, images: Any, *args: Any, **options: Any) -> Any:
        self.images += len(images)
        return super().embed(images, *args, **options)

    def segment(self, embedding: Any, prompts: Any, *args: Any, **options: Any) -> Any:
        self.prompts += len(prompts)
        return super().segment(embedding, prompts, *args, **options)


@pytest.fixture(scope="module")
def counting(tiny: Segmenter) -> CountingSegmenter:
    return CountingSegmenter(tiny)


@pytest.fixture(scope="module")
def scorer(counting: CountingSegmenter) -> Iterator[Scorer]:
    yield scorer_of(counting)


def coins() -> bytes:
    return PICTURE.read_bytes()


def boxes(answer: dict[str, Any]) -> list[list[float]]:
    return [prediction["mask_per_prediction"][0]["bbox"] for prediction in answer["predictions"]]


def scores(answer: dict[str, Any]) -> list[float]:
    return [prediction["mask_per_prediction"][0]["iou_score"] for prediction in answer["predictions"]]


@pytest.mark.parametrize("number", [0, 10])
def test_one_coin_finds_the_other_coins_and_nothing_else_with_one_encoding(
    number: int, scorer: Scorer, counting: CountingSegmenter
) -> None:
    encoded = counting.images
    (answer,) = score_rows(scorer, {"image": coins(), "input_exemplars": COINS[number].tolist()}, mask_encoding="rle")
    found = match(boxes(answer))
    assert None not in found, "something that is not a coin"
    assert len(set(found)) == len(found), "a coin twice"
    assert len(found) >= 20
    assert scores(answer) == sorted(scores(answer), reverse=True) and 0.9 <= min(scores(answer)) <= 1
    assert {(entry["concept"], entry["concept_index"]) for entry in answer["predictions"]} == {(None, 0)}
    assert counting.images - encoded <= 1  # the second example uses the embedding of the first


def test_a_click_and_an_example_on_one_image_need_one_encoding(tiny: Segmenter) -> None:
    counting = CountingSegmenter(tiny)
    rows = [
        {"image": coins(), "image_id": "tray", "input_points": [[268, 120]]},
        {"image_id": "tray", "input_exemplars": [EXAMPLE]},
        {"image_id": "tray", "input_exemplars": [EXAMPLE], "input_exemplar_labels": [1]},
    ]
    click, first, second = score_rows(scorer_of(counting), *rows, mask_encoding="rle", points_per_side=16)
    assert counting.images == 1
    assert len(click["predictions"]) == 1 and "concept" not in click["predictions"][0]
    assert boxes(first) == boxes(second) and len(first["predictions"]) > 10


def test_points_that_resemble_no_example_are_not_decoded(scorer: Scorer, counting: CountingSegmenter) -> None:
    decoded = counting.prompts
    (answer,) = score_rows(scorer, {"image": coins(), "input_exemplars": [EXAMPLE]}, mask_encoding="rle")
    # The example, the points of the grid near coins, and once more the points of the masks that are kept.
    assert 1 + len(answer["predictions"]) < counting.prompts - decoded < 32 * 32


def picture(shapes: list[tuple[int, int, tuple[int, int, int]]]) -> bytes:
    """Draw discs of radius 26 at x, y in a colour."""
    image = Image.new("RGB", (360, 240), (200, 200, 195))
    for x, y, colour in shapes:
        ImageDraw.Draw(image).ellipse((x - 26, y - 26, x + 26, y + 26), fill=colour)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def around(x: int, y: int) -> list[int]:
    return [x - 28, y - 28, x + 28, y + 28]


BLUE, RED = (40, 60, 160), (190, 40, 40)
PLACES = [(60, 60), (180, 60), (300, 60), (60, 180), (180, 180), (300, 180)]


def centres(answer: dict[str, Any]) -> set[tuple[int, int]]:
    """Return the nearest of PLACES for each box."""
    middles = [(x + width / 2, y + height / 2) for x, y, width, height in boxes(answer)]
    return {min(PLACES, key=lambda place: np.hypot(place[0] - x, place[1] - y)) for x, y in middles}


def test_a_counter_example_removes_objects_like_it(scorer: Scorer) -> None:
    mixed = picture([(*place, BLUE if i % 2 else RED) for i, place in enumerate(PLACES)])
    red, blue = set(PLACES[::2]), set(PLACES[1::2])
    loose = {"mask_encoding": "rle", "exemplar_thresh": 0.3, "points_per_side": 16}
    rows = [
        {"image": mixed, "input_exemplars": [around(*PLACES[0])]},
        {
            "image": mixed,
            "input_exemplars": [around(*PLACES[0]), around(*PLACES[1])],
            "input_exemplar_labels": [1, 0],
        },
    ]
    every, without = score_rows(scorer, *rows, **loose)
    assert centres(every) == red | blue
    assert centres(without) == red


def test_examples_of_another_image_find_objects(scorer: Scorer) -> None:
    sheet = picture([(180, 120, BLUE)])
    shelf = picture([(*place, BLUE) for place in PLACES])
    example = around(180, 120)
    rows = [
        {"image": shelf, "image_id": "shelf", "input_exemplars": [example], "input_exemplar_image": "sheet"},
        {"image": sheet, "image_id": "sheet", "input_exemplars": [example]},
        {"image": shelf, "input_exemplars": [example], "input_exemplar_image": sheet},
    ]
    by_name, itself, by_bytes = score_rows(scorer, *rows, mask_encoding="rle", exemplar_thresh=0.85, points_per_side=16)
    assert centres(by_name) == set(PLACES) and len(by_name["predictions"]) == len(PLACES)
    assert boxes(by_bytes) == boxes(by_name)
    assert len(itself["predictions"]) == 1
    (cached,) = score_rows(
        scorer, {**rows[0], "image": shelf}, mask_encoding="rle", exemplar_thresh=0.85, points_per_side=16
    )
    assert boxes(cached) == boxes(by_name)


def test_the_threshold_and_the_nms_filter_instances(scorer: Scorer) -> None:
    row = {"image": coins(), "input_exemplars": [EXAMPLE]}
    params = {"mask_encoding": "rle", "points_per_side": 16}
    (strict,) = score_rows(scorer, row, exemplar_thresh=0.99, **params)
    (usual,) = score_rows(scorer, row, concept_nms_thresh=0.5, **params)
    assert 1 <= len(strict["predictions"]) < len(usual["predictions"])
    assert min(scores(strict)) >= 0.99
    assert boxes(strict)[0] == boxes(usual)[0]


def test_logits_of_an_instance_refine_it_with_a_click(scorer: Scorer) -> None:
    (answer,) = score_rows(
        scorer,
        {"image": coins(), "input_exemplars": [EXAMPLE]},
        mask_encoding="rle",
        return_logits=True,
        points_per_side=16,
    )
    (mask,) = answer["predictions"][3]["mask_per_prediction"]
    x, y, width, height = mask["bbox"]
    click = {"input_points": [[x + width / 2, y + height / 2]], "mask_input": mask["low_res_logits"]}
    (refined,) = score_rows(scorer, {"image": coins(), **click, "multimask_output": False}, mask_encoding="rle")
    assert match(boxes(refined)) == match([mask["bbox"]])


def test_a_search_by_example_counts_as_a_row_without_prompts(tiny: Segmenter) -> None:
    limited = Scorer(engine_of(tiny), RequestLimits(points=1024))
    with pytest.raises(BadRequest, match="expected at most 1,024 points a request, got 2 rows without prompts"):
        score_rows(limited, *2 * [{"image": coins(), "input_exemplars": [EXAMPLE]}])


def test_a_search_by_example_ends_at_its_deadline(scorer: Scorer) -> None:
    params = Params(mask_encoding="rle")

    frame = pd.DataFrame([{"image": coins(), "input_exemplars": [EXAMPLE]}], dtype=object)
    with pytest.raises(DeadlineExceeded):
        scorer.score_frame(frame, params, Call(seconds=0))
