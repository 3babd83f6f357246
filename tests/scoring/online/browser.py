"""Functions that run a browser, act on the page as a person does, and read what the page shows."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, Position, Request, expect, sync_playwright

SHOTS = os.environ.get("SCREENSHOTS")  # a folder for screenshots

PHONE: dict[str, Any] = {
    **{"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2},
    **{"has_touch": True, "is_mobile": True},
}


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a headless Chromium until the block ends."""
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])


@contextmanager
def open_page(browser: Browser, url: str, wait: bool = True, **options: Any) -> Iterator[Page]:
    """Open the page in a context of its own. Fails if it asks another host, or if a script fails.

    Args:
        browser: the browser.
        url: the URL of the page.
        wait: whether to wait until the list of models is loaded.
        **options: options of the context, such as its size.
    """
    context = browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **options})
    page = context.new_page()
    foreign_requests: list[str] = []
    problems: list[str] = []

    def record(request: Request) -> None:
        if not request.url.startswith((urljoin(url, "."), "blob:", "data:")):
            foreign_requests.append(request.url)

    page.on("request", record)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(url)
    if wait:
        expect(page.locator("#model option").first).to_be_attached()
    yield page
    context.close()
    assert not foreign_requests and not problems, (foreign_requests, problems)


def shoot(page: Page, name: str) -> None:
    """Save a screenshot, if the environment variable SCREENSHOTS names a folder."""
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/{name}.png")


def open_file(page: Page, data: bytes, name: str = "disc.png") -> None:
    """Open an image file in the page, and wait until the page shows it."""
    page.set_input_files("#file", {"name": name, "mimeType": "image/*", "buffer": data})
    expect(page.locator("#status")).to_contain_text("Click on an object")


def at(page: Page, x: float, y: float) -> Position:
    """Return the place of the image's pixel (x, y) on the canvas, in CSS pixels, wherever the image is shown."""
    page.wait_for_function("document.getElementById('canvas').dataset.scale")
    view: dict[str, float] = page.locator("#canvas").evaluate(
        "({dataset: {scale, x, y}}) => ({scale: +scale, x: +x, y: +y})"
    )
    return {"x": view["x"] + x * view["scale"], "y": view["y"] + y * view["scale"]}


def click(page: Page, x: float, y: float, **options: Any) -> None:
    """Click on a pixel of the image."""
    page.locator("#canvas").click(position=at(page, x, y), **options)


def drag(page: Page, *points: tuple[float, float]) -> None:
    """Press the mouse at the first pixel of the image, move it over the others, and release it."""
    frame = page.locator("#canvas").bounding_box()
    assert frame
    for i, (x, y) in enumerate(points):
        place = at(page, x, y)
        page.mouse.move(frame["x"] + place["x"], frame["y"] + place["y"], steps=4)
        if not i:
            page.mouse.down()
    page.mouse.up()


def wait_for_picture(page: Page) -> None:
    """Wait until the canvas shows the image: its middle is no longer transparent."""
    # After two frames, the canvas no longer shows the image before.
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    page.wait_for_function(
        """() => {
            const {width, height} = document.getElementById("canvas");
            return document.getElementById("canvas").getContext("2d").getImageData(width / 2, height / 2, 1, 1).data[3];
        }"""
    )


def wait_for_mask(page: Page) -> None:
    """Wait until the page reports a mask."""
    expect(page.locator("#status")).to_contain_text(re.compile(r"pixels, score"), timeout=60_000)


def wait_for_drawing(page: Page, count: int = 1) -> list[dict[str, Any]]:
    """Wait until the page has drawn masks `count` times, and return its measurements: durations in ms, and details."""
    page.wait_for_function("count => performance.getEntriesByName('draw masks').length >= count", arg=count)
    measures: list[dict[str, Any]] = page.evaluate(
        "performance.getEntriesByName('draw masks').map(({duration, detail}) => ({duration, ...detail}))"
    )
    return measures


def canvas_pixels(page: Page) -> np.ndarray:
    """Return the part of the canvas that shows the image, in pixels of the screen, (rows, columns, 3) int."""
    text, (left, top, right, bottom) = page.locator("#canvas").evaluate(
        """canvas => {
            const {scale, x, y, width, height} = canvas.dataset;
            const corners = [+x, +y, +x + width * scale, +y + height * scale];
            return [canvas.toDataURL(), corners.map(value => Math.round(value * devicePixelRatio))];
        }"""
    )
    image = Image.open(io.BytesIO(base64.b64decode(text.partition(",")[2])))
    return np.asarray(image.convert("RGB").crop((left, top, right, bottom))).astype(int)


def downloaded(page: Page, button: str) -> bytes:
    page.locator(button).evaluate("button => { const group = button.closest('details'); if (group) group.open = true }")
    with page.expect_download() as download:
        page.click(button)
    return Path(download.value.path()).read_bytes()


def exported(page: Page, touch: bool = False) -> dict[str, Any]:
    """Export the data set as COCO's run lengths, with two actions. Returns the JSON object."""
    act = "tap" if touch else "click"
    getattr(page.locator("#open-export"), act)()
    with page.expect_download() as download:
        getattr(page.get_by_role("button", name="Download"), act)()
    content: dict[str, Any] = json.loads(Path(download.value.path()).read_text())
    return content


def saved_mask(page: Page) -> np.ndarray:
    """Return the mask that the button "Mask as PNG" saves, (height, width) bool."""
    return np.asarray(Image.open(io.BytesIO(downloaded(page, "#save-png"))).convert("L")) > 0
