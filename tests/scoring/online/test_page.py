"""The page in a real browser: clicked, keyed and tapped, with nothing fetched from elsewhere."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright
from pycocotools import mask as coco

from tests import pictures
from tests.conftest import ROOT, free_port, server
from tests.warm import python

SHOTS = os.environ.get("SCREENSHOTS")  # a folder to look at what the browser shows


@pytest.fixture(scope="module")
def url(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    log = tmp_path_factory.mktemp("page") / "log"
    command = [python(), "-m", "sam_endpoint", "serve", "--port", str(port), "--model", str(packaged)]
    with server(command, port, "/ready", log, PYTHONPATH=str(ROOT)) as base:
        yield base


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium")
        yield playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1200, "height": 800}, permissions=["clipboard-write"])
    page = context.new_page()
    elsewhere: list[str] = []
    problems: list[str] = []

    def note(request: Request) -> None:
        if not request.url.startswith((url, "blob:", "data:")):
            elsewhere.append(request.url)

    page.on("request", note)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(url)
    yield page
    context.close()
    assert not elsewhere and not problems


def shoot(page: Page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/{name}.png")


def open_disc(page: Page, disc: tuple[bytes, np.ndarray]) -> None:
    page.set_input_files("#file", {"name": "disc.png", "mimeType": "image/png", "buffer": disc[0]})
    expect(page.locator("#canvas")).to_be_visible()


def click(page: Page, x: float, y: float, **how: Any) -> None:
    """On a pixel of the image, wherever it is shown."""
    width = page.locator("#canvas").evaluate("canvas => canvas.width")
    frame = page.locator("#canvas").bounding_box()
    assert frame
    unit = frame["width"] / width
    page.locator("#canvas").click(position={"x": x * unit, "y": y * unit}, **how)


def answered(page: Page) -> None:
    expect(page.locator("#status")).to_contain_text(re.compile(r"pixels, score"), timeout=60_000)


def downloaded(page: Page, button: str) -> bytes:
    with page.expect_download() as download:
        page.click(button)
    return Path(download.value.path()).read_bytes()


def mask_of(page: Page) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(downloaded(page, "#save-png"))).convert("L")) > 0


def test_click_subtract_step_undo_and_take_away(page: Page, disc: tuple[bytes, np.ndarray]) -> None:
    open_disc(page, disc)
    click(page, 110, 80)
    answered(page)
    expect(page.locator("#candidates label")).to_have_count(3)
    shoot(page, "click")
    masks = []
    for key in "123":
        page.keyboard.press(key)
        masks.append(mask_of(page))
    assert max(pictures.iou(mask, disc[1]) for mask in masks) > 0.7
    rle = json.loads(downloaded(page, "#save-rle"))
    assert rle["size"] == [160, 240]
    decoded = coco.decode({"size": rle["size"], "counts": rle["counts"]}) > 0
    assert np.array_equal(decoded, masks[2]) and decoded.sum() == rle["area"]
    overlay = np.asarray(Image.open(io.BytesIO(downloaded(page, "#save-overlay"))).convert("RGB")).astype(int)
    plain = np.asarray(Image.open(io.BytesIO(disc[0])).convert("RGB")).astype(int)
    changed = np.abs(overlay - plain).sum(2) > 20
    assert changed[masks[2]].mean() > 0.9

    click(page, 30, 30, modifiers=["Shift"])
    expect(page.locator("#candidates label")).to_have_count(0)
    answered(page)
    refined = mask_of(page)
    assert not refined[30, 30]
    page.click("#undo")
    expect(page.locator("#candidates label")).to_have_count(3)
    assert np.array_equal(mask_of(page), masks[2])
    page.click("#clear")
    expect(page.locator("#save-png")).to_be_disabled()


def test_a_dragged_box_everything_and_the_curl(page: Page, disc: tuple[bytes, np.ndarray], tmp_path: Path) -> None:
    open_disc(page, disc)
    frame = page.locator("#canvas").bounding_box()
    assert frame
    unit = frame["width"] / 240
    page.mouse.move(frame["x"] + 68 * unit, frame["y"] + 38 * unit)
    page.mouse.down()
    page.mouse.move(frame["x"] + 120 * unit, frame["y"] + 90 * unit, steps=4)
    page.mouse.move(frame["x"] + 153 * unit, frame["y"] + 123 * unit, steps=4)
    page.mouse.up()
    answered(page)
    shoot(page, "box")
    seen = mask_of(page)
    assert pictures.iou(seen, disc[1]) > 0.8
    page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text }")
    page.click("#copy-curl")
    expect(page.locator("#status")).to_contain_text("clipboard")
    (tmp_path / "disc.png").write_bytes(disc[0])
    command = page.evaluate("window.copied")
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    found = json.loads(done.stdout)[0]["predictions"][0]["mask_per_prediction"]
    best = max(found, key=lambda one: one["iou_score"])
    again = coco.decode({"size": best["size"], "counts": best["encoded_binary_mask"]}) > 0
    assert np.array_equal(again, seen)
    page.keyboard.press("e")
    expect(page.locator("#status")).to_contain_text(re.compile(r"\d+ objects?,"), timeout=60_000)
    shoot(page, "everything")


def test_by_keyboard_alone(page: Page, disc: tuple[bytes, np.ndarray]) -> None:
    open_disc(page, disc)
    expect(page.locator("#canvas")).to_be_focused()
    page.keyboard.press("Enter")  # the cross begins in the middle, at 120, 80
    answered(page)
    assert mask_of(page)[80, 120]
    page.locator("#canvas").focus()
    page.keyboard.press("Escape")
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
    for _ in range(8):
        page.keyboard.press("ArrowUp")  # to 70, 40
    page.keyboard.press("b")
    for _ in range(16):
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
    shoot(page, "keyboard")
    page.keyboard.press("b")
    answered(page)
    assert pictures.iou(mask_of(page), disc[1]) > 0.8


def test_a_phone_and_a_sample(browser: Browser, url: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(url)
    page.locator("[data-sample='coins.png']").tap()
    expect(page.locator("#canvas")).to_be_visible()
    frame = page.locator("#canvas").bounding_box()
    assert frame and frame["x"] >= 0 and frame["x"] + frame["width"] <= 390
    page.touchscreen.tap(frame["x"] + frame["width"] * 0.7, frame["y"] + frame["height"] * 0.64)
    answered(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    shoot(page, "phone")
    page.get_by_text("Subtract", exact=True).tap()
    page.touchscreen.tap(frame["x"] + frame["width"] * 0.9, frame["y"] + frame["height"] * 0.9)
    answered(page)
    context.close()


def test_what_goes_wrong_is_said(page: Page) -> None:
    page.set_input_files("#file", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no image"})
    expect(page.locator("#status")).to_contain_text("notes.txt is not an image this browser can read")
    shoot(page, "wrong")


def test_switching_the_model_asks_again(page: Page, disc: tuple[bytes, np.ndarray]) -> None:
    open_disc(page, disc)
    click(page, 110, 80)
    answered(page)
    with page.expect_response(lambda answer: "score?model=sam%2Fvit_h" in answer.url) as asked:
        page.select_option("#model", "sam/vit_h")
    assert asked.value.ok and asked.value.headers["x-answered-by"] == "sam-tiny"


def test_the_api_page_works_offline_and_its_examples_can_be_tried(page: Page, url: str) -> None:
    page.goto(f"{url}/docs")
    page.get_by_text("/sam/segment_image").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table .response .response-col_status").first).to_contain_text(
        "200", timeout=30_000
    )
    shoot(page, "docs")
