"""The page in a real browser: zoom, pan, right click, opacity, folders, dropped files, addresses, refused requests."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests import pictures
from tests.conftest import serve_endpoint
from tests.scoring.online.browser import (
    at,
    canvas_pixels,
    click,
    drag,
    open_file,
    open_page,
    saved_mask,
    wait_for_drawing,
    wait_for_mask,
    wait_for_picture,
)

Disc = tuple[bytes, np.ndarray]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run an endpoint with the embedded models, and return its URL."""
    with serve_endpoint(tmp_path_factory.mktemp("page") / "log") as base:
        yield base


def view(page: Page) -> np.ndarray:
    """Return the place of the image on the canvas, once it is drawn: scale, x, y."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    place: list[str] = page.locator("#canvas").evaluate("({dataset: {scale, x, y}}) => [scale, x, y]")
    return np.array(place, float)


def move(page: Page, x: float, y: float) -> None:
    """Move the mouse to a pixel of the image."""
    page.locator("#canvas").hover(position=at(page, x, y))


def test_the_wheel_zooms_at_the_mouse_and_the_image_is_moved(page: Page, disc: Disc) -> None:
    open_file(page, disc[0])
    whole, before = view(page), at(page, 110, 80)
    move(page, 110, 80)
    page.mouse.wheel(0, -400)
    zoomed = view(page)
    assert zoomed[0] == pytest.approx(whole[0] * np.exp(300 * 0.0015), rel=0.01)  # one turn has at most 300 pixels
    assert at(page, 110, 80) == pytest.approx(before, abs=1)
    for key, axis, sign in (("d", 1, -1), ("a", 1, 1), ("s", 2, -1), ("w", 2, 1)):
        start = view(page)
        page.keyboard.press(key)
        assert (view(page) - start)[axis] * sign > 20
    start = view(page)
    page.locator("#canvas").focus()
    page.keyboard.down("Space")
    drag(page, (100, 80), (110, 70))
    page.keyboard.up("Space")
    assert view(page)[1:] - start[1:] == pytest.approx([10 * start[0], -10 * start[0]], abs=2)
    expect(page.locator("#objects li")).to_have_count(0)  # to move the image makes no object
    page.keyboard.press("0")
    assert view(page) == pytest.approx(whole)


def test_the_right_button_subtracts_and_opacity_shows_what_is_below(page: Page, disc: Disc) -> None:
    open_file(page, disc[0])
    wait_for_picture(page)
    plain = canvas_pixels(page)
    click(page, 110, 80)
    wait_for_mask(page)
    click(page, 30, 30, button="right")
    expect(page.locator("#candidates label")).to_have_count(0)
    mask = saved_mask(page)
    assert not mask[30, 30] and pictures.iou(mask, disc[1]) > 0.8
    inside = np.asarray(Image.fromarray(mask).resize(plain.shape[1::-1]))
    middle = np.zeros_like(inside)
    middle[
        inside.shape[0] // 2 - 40 : inside.shape[0] // 2 - 10, inside.shape[1] // 2 - 60 : inside.shape[1] // 2 - 40
    ] = True
    assert inside[middle].all()
    page.get_by_text("Display", exact=True).click()
    page.keyboard.press("n")
    move(page, 30, 30)
    for opacity, colour in ((0, plain[middle].mean(0)), (1, np.array([0x00, 0x72, 0xB2]))):
        page.fill("#opacity", str(opacity))
        page.wait_for_timeout(400)
        assert canvas_pixels(page)[middle].mean(0) == pytest.approx(colour, abs=2)


def test_a_folder_is_labelled_in_the_order_of_its_names(page: Page, disc: Disc, tmp_path: Path) -> None:
    (tmp_path / "set" / "street").mkdir(parents=True)
    for name in ("10.png", "2.png", "street/1.png"):
        (tmp_path / "set" / name).write_bytes(disc[0])
    (tmp_path / "set" / "notes.md").write_text("no image")
    coco = {
        "images": [{"id": 1, "file_name": "street/1.png", "width": 240, "height": 160}],
        "categories": [{"id": 7, "name": "disc"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 7,
                "iscrowd": 0,
                "segmentation": [[70, 40, 150, 40, 150, 120, 70, 120]],
            }
        ],
    }
    (tmp_path / "set" / "labels.json").write_text(json.dumps(coco))
    page.set_input_files("#folder", tmp_path / "set")
    expect(page.locator("#status")).to_contain_text("1 object imported.")
    page.get_by_text("All images").click()
    expect(page.locator("#images .title")).to_have_text(["2.png", "10.png", "street/1.png"])
    expect(page.locator("#images .facts").last).to_have_text("1 object")
    expect(page.locator("#progress-text")).to_have_text("2.png: 1 of 3 labelled")
    page.keyboard.press("f")
    expect(page.locator("#progress-text")).to_have_text("10.png: 2 of 3 labelled")
    page.reload()
    expect(page.locator("#progress-text")).to_have_text("10.png: 2 of 3 labelled")


def test_dropped_images_are_opened(page: Page, disc: Disc) -> None:
    page.evaluate(
        """bytes => {
            const data = new DataTransfer();
            for (const name of ["b.png", "a.png"]) {
                data.items.add(new File([new Uint8Array(bytes)], name, {type: "image/png"}));
            }
            for (const kind of ["dragover", "drop"]) {
                const event = new DragEvent(kind, {dataTransfer: data, bubbles: true});
                document.getElementById("stage").dispatchEvent(event);
            }
        }""",
        list(disc[0]),
    )
    expect(page.locator("#progress-text")).to_have_text("a.png: 0 of 2 labelled")


def test_refused_requests_lose_nothing(browser: Browser, disc: Disc, tmp_path: Path) -> None:
    """The key is no longer valid, or the image is too large: the object keeps its click, and is sent again."""
    large = pictures.to_bytes(Image.fromarray(pictures.clutter(300, 300)))
    (tmp_path / "keys").write_text("a-valid-key\n")
    options = ("--body-bytes", 60_000, "--api-keys-file", tmp_path / "keys")
    with serve_endpoint(tmp_path / "log", *options) as url, open_page(browser, url, wait=False) as page:
        status = page.locator("#status")
        page.fill("#key", "a-valid-key")
        page.keyboard.press("Enter")
        expect(page.locator("#model option").first).to_be_attached()
        open_file(page, disc[0])
        click(page, 110, 80)
        wait_for_mask(page)
        page.fill("#key", "another-key")
        page.keyboard.press("Enter")
        expect(status).to_have_text("This endpoint needs an API key. Enter it at the top of the page.")
        click(page, 30, 30, modifiers=["Shift"])
        expect(status).to_have_text(
            "The endpoint needs a valid API key. Enter it at the top of the page, and try again."
        )
        expect(page.locator("#objects .facts")).to_contain_text("px")  # the mask before
        page.fill("#key", "a-valid-key")
        page.keyboard.press("Enter")
        drawn = page.evaluate("performance.getEntriesByName('draw masks').length")
        page.click("#retry")
        wait_for_drawing(page, drawn + 1)
        wait_for_mask(page)
        assert not saved_mask(page)[30, 30]
        open_file(page, large, "large.png")
        click(page, 110, 80)
        expect(status).to_contain_text("The image is too large for the endpoint.")
        expect(page.locator("#objects .facts")).to_have_text("no mask yet")
        page.keyboard.press("PageUp")
        expect(page.locator("#objects-count")).to_have_text("1")


@pytest.fixture
def elsewhere(tmp_path: Path, disc: tuple[bytes, np.ndarray]) -> Iterator[str]:
    """Serve the folder of an image and of a text file on another port. Yields the base URL."""
    (tmp_path / "far.png").write_bytes(disc[0])
    (tmp_path / "secret.txt").write_text("no image")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_an_image_of_another_host_is_fetched_by_the_endpoint(browser: Browser, tmp_path: Path, elsewhere: str) -> None:
    with serve_endpoint(tmp_path / "log", "--hosts", "127.0.0.1") as url, open_page(browser, url) as page:
        page.fill("#url", f"{elsewhere}/far.png")
        page.keyboard.press("Enter")
        expect(page.locator("#progress-text")).to_contain_text("far.png")
        wait_for_picture(page)
        page.click("#another")
        page.fill("#url", f"{elsewhere}/secret.txt")
        page.keyboard.press("Enter")
        expect(page.locator("#status")).to_contain_text("secret.txt cannot be loaded from 127.0.0.1")
        expect(page.locator("#images-count")).to_have_text("1")


def test_an_image_of_a_host_that_is_not_allowed_is_refused(page: Page, elsewhere: str) -> None:
    page.fill("#url", f"{elsewhere}/far.png")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("far.png cannot be loaded from 127.0.0.1")
    expect(page.locator("#status")).to_contain_text("Save the image on this computer, and drop the file here.")
