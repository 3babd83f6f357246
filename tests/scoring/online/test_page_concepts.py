"""Text prompts on the page, and the list of proposals with its threshold."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import torch
import yaml
from playwright.sync_api import Browser, Page, expect
from pycocotools import mask as coco

from sam_endpoint.model.mlflow import package
from tests.checkpoints import save_sam3
from tests.conftest import ROOT, serve_endpoint
from tests.detectors import grounding_dino
from tests.scoring.online.accessibility import violations
from tests.scoring.online.browser import (
    PHONE,
    click,
    exported,
    open_file,
    open_page,
    shoot,
    wait_for_mask,
    wait_for_picture,
)

COINS = ROOT / "samples/coins.png"


@pytest.fixture(scope="module")
def url(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run an endpoint with the embedded model, the same model with a detector, and a small random SAM 3."""
    folder = tmp_path_factory.mktemp("endpoint")
    torch.manual_seed(1)
    grounding_dino(folder / "detector")
    (folder / "sam3").mkdir()
    save_sam3(folder / "sam3", seed=10)
    package.save(package.EMBEDDED, folder / "texts", {}, detector=folder / "detector")
    models = {
        "tiny": {"model": str(packaged)},
        "texts": {"model": str(folder / "texts"), "warm": True},
        "sam3": {"checkpoint": str(folder / "sam3")},
    }
    (folder / "catalog.yaml").write_text(yaml.safe_dump({"default": "tiny", "models": models}))
    with serve_endpoint(folder / "log", "--catalog", folder / "catalog.yaml") as url:
        yield url


def open_coins(page: Page, model: str) -> list[str]:
    """Open the coins with a model. Return a list that grows by the body of each scoring request."""
    bodies: list[str] = []
    page.on("request", lambda request: bodies.append(request.post_data or "") if "/score" in request.url else None)
    page.select_option("#model", model)
    page.set_input_files("#file", COINS)
    wait_for_picture(page)
    return bodies


def expected_instances(url: str, model: str, **params: float) -> list[dict[str, Any]]:
    """Return what the endpoint itself answers to the two texts."""
    image = base64.b64encode(COINS.read_bytes()).decode()
    row = {"image": image, "input_text": ["cup", "spoon"]}
    body: Any = {"input_data": [row], "params": {"mask_encoding": "rle", **params}}
    answer = requests.post(f"{url}/score?model={model}", json=body, timeout=60)
    predictions: list[dict[str, Any]] = answer.json()[0]["predictions"]
    return predictions


def find(page: Page, text: str) -> None:
    page.keyboard.press("q")
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.type(text)
    page.keyboard.press("Enter")
    expect(page.locator("#proposals")).to_be_visible(timeout=60_000)


def slide(page: Page, value: float) -> None:
    page.locator("#threshold").fill(f"{value:.2f}")


def test_texts_are_proposals_by_concept_and_the_slider_filters_them_without_a_request(page: Page, url: str) -> None:
    bodies = open_coins(page, "texts")
    find(page, "cup, spoon")
    (body,) = [json.loads(text) for text in bodies]
    (row,) = body["input_data"]
    assert row["input_text"] == ["cup", "spoon"] and body["params"]["concept_thresh"] == pytest.approx(0.1)
    rows = page.locator("#proposal-list li")
    for threshold in (0.25, 0.9, 0.6, 0.21):
        slide(page, threshold)
        found = expected_instances(url, "texts", concept_thresh=threshold, concept_nms_thresh=0.8)
        expected = [(each["concept"], each["mask_per_prediction"][0]["iou_score"]) for each in found]
        assert len(found) > 3
        texts = [f"{concept}score {value:.2f}" for concept, value in expected]
        expect(rows).to_have_text(texts)
        assert page.locator("#threshold").get_attribute("aria-valuetext") == (
            f"{max(threshold, 0.21):.2f}: {len(found)} of 10 proposals"
        )
    assert len(bodies) == 1
    shoot(page, "texts")


def test_each_concept_becomes_a_class_when_its_proposals_are_accepted(page: Page, url: str) -> None:
    open_coins(page, "texts")
    find(page, "cup, spoon")
    expect(page.locator("#proposals-count")).to_have_text("9 of 10")
    assert page.locator("#classes li").count() == 1
    page.get_by_role("button", name="Accept spoon, score 0.99").click()
    expect(page.locator("#classes .name")).to_have_count(2)
    page.get_by_role("button", name="Reject spoon, score 0.86").click()
    slide(page, 0.97)
    page.locator("#canvas").focus()
    page.keyboard.press("Shift+Y")
    expect(page.locator("#objects .title")).to_have_count(5)
    content = exported(page)
    names = {each["id"]: each["name"] for each in content["categories"]}
    assert sorted(names[each["category_id"]] for each in content["annotations"]) == ["cup"] * 3 + ["spoon"] * 2
    expect(page.locator("#proposals-count")).to_have_text("0 of 4")
    slide(page, 0)
    expect(page.locator("#proposals-count")).to_have_text("4")
    page.reload()
    wait_for_picture(page)
    expect(page.locator("#proposals-count")).to_have_text("4")
    expect(page.locator("#objects .title")).to_have_count(5)
    page.keyboard.press("y")
    page.keyboard.press("y")
    expect(page.locator("#objects .title")).to_have_count(6)
    page.click("#discard")
    expect(page.locator("#proposals")).to_be_hidden()
    page.keyboard.press("u")
    expect(page.locator("#proposals-count")).to_have_text("3")


def test_a_click_on_a_proposal_accepts_it_with_the_class_of_its_concept(page: Page, url: str) -> None:
    open_coins(page, "texts")
    find(page, "cup, spoon")
    best = max(
        (each for each in expected_instances(url, "texts") if each["concept"] == "spoon"),
        key=lambda each: each["mask_per_prediction"][0]["area"],
    )["mask_per_prediction"][0]
    inside = coco.decode({"size": best["size"], "counts": best["encoded_binary_mask"]})
    pixels = np.argwhere(inside)
    y, x = (int(value) for value in pixels[len(pixels) // 2])
    click(page, x, y)
    expect(page.locator("#objects .title")).to_have_text("1 spoon")


def test_each_image_keeps_its_threshold(page: Page, disc: tuple[bytes, np.ndarray]) -> None:
    open_coins(page, "texts")
    find(page, "cup, spoon")
    slide(page, 0.9)
    count = page.locator("#proposals-count").text_content()
    open_file(page, disc[0])
    page.keyboard.press("e")
    expect(page.locator("#proposals")).to_be_visible(timeout=60_000)
    page.keyboard.press("PageUp")
    expect(page.locator("#proposals-count")).to_have_text(count or "")
    expect(page.locator("#threshold-text")).to_have_text("0.90")


def test_a_model_that_takes_no_text_says_so(page: Page) -> None:
    open_coins(page, "tiny")
    expect(page.locator("#text-form")).to_be_hidden()
    expect(page.locator("#text-note")).to_have_text(
        "The model tiny takes no text. To find more objects like one, select it and choose Similar."
    )
    page.keyboard.press("q")
    expect(page.locator("#status")).to_contain_text("tiny takes no text")
    page.select_option("#model", "texts")
    expect(page.locator("#text-form")).to_be_visible()


def test_an_unusable_text_is_a_plain_message(page: Page) -> None:
    open_coins(page, "texts")
    page.keyboard.press("q")
    page.keyboard.type(" , ")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_text("Type what to find, for example: cup, spoon.")
    page.fill("#text", "x" * 3000)
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("input_text", timeout=30_000)
    expect(page.locator("#status")).to_have_class("wrong")


def test_sam_3_finds_texts_on_the_kept_image_and_low_scores_are_a_slide_away(page: Page, url: str) -> None:
    """The model is not loaded when the page opens, and no score of its random weights reaches its threshold of 0.5."""
    open_coins(page, "sam3")
    find(page, "cup, spoon")
    expect(page.locator("#status")).to_contain_text("0 objects (9 more with lower scores)")
    expect(page.locator("#proposal-list li")).to_have_count(0)
    slide(page, 0.33)
    found = expected_instances(url, "sam3", concept_thresh=0.33, concept_nms_thresh=0.8)
    expect(page.locator("#proposal-list li")).to_have_count(len(found))
    assert 0 < len(found) < 9


def test_objects_like_one_are_filtered_by_the_same_slider(page: Page) -> None:
    bodies = open_coins(page, "tiny")
    click(page, 268, 120)
    wait_for_mask(page)
    page.keyboard.press("g")
    expect(page.locator("#status")).to_contain_text("23 objects", timeout=240_000)
    scores = [float(text.split()[-1]) for text in page.locator("#proposal-list .facts").all_text_contents()]
    assert len(scores) == 23 and min(scores) >= 0.9 and scores == sorted(scores, reverse=True)
    median = scores[11]
    slide(page, median)
    above = [score for score in scores if score >= median]
    assert 11 <= page.locator("#proposal-list li").count() <= len(above) < 23
    assert len([body for body in bodies if "input_exemplars" in body]) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_a_phone_with_proposals(browser: Browser, url: str, scheme: Any) -> None:
    with open_page(browser, url, **PHONE, color_scheme=scheme) as page:
        open_coins(page, "texts")
        page.locator("#text").tap()
        page.keyboard.type("cup, spoon")
        page.get_by_role("button", name="Find", exact=True).tap()
        expect(page.locator("#proposal-list li")).to_have_count(9, timeout=60_000)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390
        page.evaluate("scrollTo(0, 400)")
        shoot(page, f"texts-phone-{scheme}")
        assert not violations(page)
        slide(page, 0.98)
        page.get_by_role("button", name="Accept all").tap()
        expect(page.locator("#objects .title").first).to_be_visible()
