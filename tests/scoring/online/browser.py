"""Functions that run a browser, act on the page as a person does, and read what the page shows."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright

SHOTS = os.environ.get("SCREENSHOTS")  # a folder for screenshots


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a headless Chromium until the block ends."""
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])


@contextmanager
def open_page(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """Open a page in a new browser context until the block ends.

    Fails if the page requests anything from another host, or if a script fails.

    Args:
        browser: browser to use.
        url: URL of the endpoint.
        **options: options of the context.
    """
    context = browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **options})
    page = context.new_page()
    foreign_requests: list[str] = []
    problems: list[str] = []

    def record(request: Request) -> None:
        if not request.url.startswith((url, "blob:", "data:")):
            foreign_requests.append(request.url)

    page.on("request", record)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(url)
    expect(page.locator("#model option").first).to_be_attached()
    yield page
    context.close()
    assert not foreign_requests and not problems


def shoot(page: Page, name: str) -> None:
    """Save a screenshot, if the environment variable SCREENSHOTS names a folder."""
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/{name}.png")


def open_file(page: Page, data: bytes, name: str = "disc.png") -> None:
    """Open an image file in the page, and wait until the page shows it."""
    page.set_input_files("#file", {"name": name, "mimeType": "image/*", "buffer": data})
    expect(page.locator("#status")).to_contain_text("Click on an object")


def click(page: Page, x: float, y: float, width: int = 240, **options: Any) -> None:
    """Click on a pixel of the image, wherever the page shows it.

    Args:
        page: page to use.
        x: column of the pixel.
        y: row of the pixel.
        width: width of the image.
        **options: options of Playwright's `click`.
    """
    frame = page.locator("#canvas").bounding_box()
    assert frame
    unit = frame["width"] / width
    page.locator("#canvas").click(position={"x": x * unit, "y": y * unit}, **options)


def wait_for_picture(page: Page) -> None:
    """Wait until the canvas shows the image, so that its center is not transparent."""
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
    """Return the pixels of the canvas, (height, width, 3) int."""
    text = page.locator("#canvas").evaluate("canvas => canvas.toDataURL()")
    image = Image.open(io.BytesIO(base64.b64decode(text.partition(",")[2])))
    return np.asarray(image.convert("RGB")).astype(int)


def downloaded(page: Page, button: str) -> bytes:
    """Click on a button, and return the content of the file that the browser downloads."""
    with page.expect_download() as download:
        page.click(button)
    return Path(download.value.path()).read_bytes()


def saved_mask(page: Page) -> np.ndarray:
    """Return the mask that the button "Mask as PNG" saves, (height, width) bool."""
    return np.asarray(Image.open(io.BytesIO(downloaded(page, "#save-png"))).convert("L")) > 0
