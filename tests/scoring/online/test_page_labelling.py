"""A person's work on the page: 24 coins labelled, two corrected by brush, exported, on a desktop and on a phone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from pycocotools import mask as coco
from pycocotools.coco import COCO

from tests import pictures
from tests.conftest import ROOT, serve_endpoint
from tests.scoring.online.browser import (
    PHONE,
    at,
    canvas_pixels,
    chromium,
    click,
    downloaded,
    drag,
    exported,
    open_file,
    open_page,
    saved_mask,
    shoot,
    wait_for_drawing,
    wait_for_mask,
    wait_for_picture,
)

COINS = [
    *((44, 54), (101, 56), (156, 51), (216, 52), (276, 53), (335, 44)),
    *((45, 124), (103, 125), (154, 126), (206, 124), (271, 120), (336, 125)),
    *((44, 197), (103, 196), (155, 198), (213, 193), (274, 195), (347, 187)),
    *((46, 260), (114, 266), (173, 261), (244, 264), (300, 263), (359, 268)),
]
FEW = 60  # the work must take fewer actions


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve_endpoint(tmp_path_factory.mktemp("page") / "log") as base:
        yield base


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    with open_page(browser, url) as page:
        yield page


def read(content: dict[str, Any], folder: Path) -> list[np.ndarray]:
    """Return the masks of COCO's JSON object as pycocotools reads them, each (h, w) bool."""
    (folder / "annotations.json").write_text(json.dumps(content))
    dataset = COCO(str(folder / "annotations.json"))
    annotations = dataset.loadAnns(dataset.getAnnIds())
    for annotation in annotations:
        rle = dataset.annToRLE(annotation)
        assert coco.area(rle) == annotation["area"] and list(coco.toBbox(rle)) == annotation["bbox"]
    return [dataset.annToMask(annotation) > 0 for annotation in annotations]


def assert_on_screen(page: Page, masks: list[np.ndarray]) -> None:
    """Check that the canvas is coloured where a mask is, and grey elsewhere, as the photograph is.

    The pixels within one pixel of an outline are left out, because the outline is drawn over them.
    """
    page.wait_for_timeout(400)
    screen = canvas_pixels(page)
    rows, columns = screen.shape[:2]
    union = Image.fromarray(np.any(masks, axis=0)).resize((columns, rows), Image.Resampling.NEAREST)
    expected = np.asarray(union)
    edge = np.zeros_like(expected)
    for shift in range(1, 5):
        for axis in (0, 1):
            moved = np.roll(expected, shift, axis), np.roll(expected, -shift, axis)
            edge |= (moved[0] != expected) | (moved[1] != expected)
    coloured = screen.max(2) - screen.min(2) > 12
    assert (coloured == expected)[~edge].mean() > 0.999


def coins_found(masks: list[np.ndarray]) -> int:
    """Return the number of coins whose centre is in exactly one mask of a coin's size."""
    fitting = [mask for mask in masks if 700 < mask.sum() < 5000]
    counts = {(x, y): [int(mask.sum()) for mask in fitting if mask[y, x]] for x, y in COINS}
    print("areas of the masks at each coin:", counts)
    return sum(len(areas) == 1 for areas in counts.values())


def test_24_coins_are_labelled_corrected_and_exported(page: Page, tmp_path: Path) -> None:
    actions = 0

    def act(method: Any, *arguments: Any) -> None:
        nonlocal actions
        actions += 1
        method(*arguments)

    act(page.locator("[data-sample]").first.click)
    wait_for_picture(page)
    act(page.keyboard.press, "o")
    for x, y in COINS:
        act(click, page, x, y)
    expect(page.locator("#objects .facts", has_text="px")).to_have_count(24, timeout=60_000)
    rows = page.locator("#objects button.name")
    act(rows.nth(10).click)
    act(page.keyboard.press, "j")
    act(drag, page, (240, 100), (240, 140))
    act(rows.nth(17).click)
    act(drag, page, (310, 200), (320, 225), (335, 228))
    shoot(page, "labelled")
    expect(page.locator("#status")).to_contain_text("Painted")
    actions += 2
    content = exported(page)
    assert actions < FEW
    print("actions:", actions)
    masks = read(content, tmp_path)
    assert len(masks) == 24 and coins_found(masks) == 24
    assert masks[10][120, 241] and masks[17][225, 320]
    page.keyboard.press("p")
    page.keyboard.press("n")
    assert_on_screen(page, masks)

    page.reload()
    wait_for_picture(page)
    wait_for_drawing(page, 1)
    expect(page.locator("#objects-count")).to_have_text("24")
    again = exported(page)
    assert again == content
    assert_on_screen(page, read(again, tmp_path))


def test_the_same_on_a_phone_with_fingers(browser: Browser, url: str, tmp_path: Path) -> None:
    with open_page(browser, url, **PHONE) as page:
        page.locator("[data-sample]").first.tap()
        wait_for_picture(page)
        for name in ("#canvas", "#modes", "#actions", "#report"):
            frame = page.locator(name).bounding_box()
            assert frame and frame["y"] + frame["height"] <= 844, f"{name} is not on the first screen"
        page.locator("#each").tap()
        actions = 2
        for x, y in COINS:
            page.locator("#canvas").tap(position=at(page, x, y))
            actions += 1
        expect(page.locator("#objects .facts", has_text="px")).to_have_count(24, timeout=60_000)
        fingers = Fingers(page)
        page.get_by_text("Brush", exact=True).tap()
        for row, stroke in ((10, [(240, 100), (240, 140)]), (17, [(310, 200), (320, 225)])):
            page.locator("#objects button.name").nth(row).tap()
            page.evaluate("scrollTo(0, 0)")
            page.wait_for_function("() => scrollY === 0")
            fingers.drag(stroke)
            actions += 2
        actions += 3
        content = exported(page, touch=True)
        assert actions < FEW
        masks = read(content, tmp_path)
        assert len(masks) == 24 and coins_found(masks) == 24
        assert masks[10][120, 241] and masks[17][224, 320]
        page.evaluate("scrollTo(0, 0)")
        page.locator("#finish").tap()
        shoot(page, "phone-labelled")
        assert_on_screen(page, masks)
        page.reload()
        wait_for_picture(page)
        expect(page.locator("#objects-count")).to_have_text("24")
        assert exported(page, touch=True) == content


class Fingers:
    """Touches of one or two fingers, in pixels of the image. Playwright itself has taps only."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.session = page.context.new_cdp_session(page)

    def send(self, kind: str, *points: tuple[float, float]) -> None:
        frame = self.page.locator("#canvas").bounding_box()
        assert frame
        places = [at(self.page, *point) for point in points]
        touches = [{"x": frame["x"] + place["x"], "y": frame["y"] + place["y"]} for place in places]
        self.session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

    def drag(self, points: Sequence[tuple[float, float]]) -> None:
        self.send("touchStart", points[0])
        for i in range(1, 9):
            (ax, ay), (bx, by) = points[0], points[-1]
            self.send("touchMove", (ax + (bx - ax) * i / 8, ay + (by - ay) * i / 8))
        self.send("touchEnd")


def test_a_long_press_subtracts_and_two_fingers_zoom(
    browser: Browser, url: str, disc: tuple[bytes, np.ndarray]
) -> None:
    with open_page(browser, url, **PHONE) as page:
        open_file(page, disc[0])
        fingers = Fingers(page)
        page.locator("#canvas").tap(position=at(page, 110, 80))
        wait_for_mask(page)
        fingers.send("touchStart", (30, 30))
        page.wait_for_timeout(700)
        fingers.send("touchEnd")
        expect(page.locator("#candidates label")).to_have_count(0)
        assert not saved_mask(page)[30, 30]
        page.evaluate("scrollTo(0, 0)")
        before = page.evaluate("document.getElementById('canvas').dataset.scale")
        fingers.send("touchStart", (100, 80), (140, 80))
        for width in range(20, 60, 10):
            fingers.send("touchMove", (120 - width / 2, 80), (120 + width / 2, 80))
        for width in (50, 60, 70):
            fingers.send("touchMove", (120 - width / 2, 80), (120 + width / 2, 80))
        fingers.send("touchEnd")
        scaled = "smallest => Number(document.getElementById('canvas').dataset.scale) > smallest"
        page.wait_for_function(scaled, arg=1.2 * float(before), timeout=10_000)
        expect(page.locator("#objects li")).to_have_count(1)


def test_everything_is_proposed_and_accepted_one_by_one_or_all(page: Page) -> None:
    page.set_input_files("#file", ROOT / "samples/coins.png")
    wait_for_picture(page)
    page.keyboard.press("e")
    expect(page.locator("#proposals")).to_be_visible(timeout=60_000)
    count = page.locator("#proposal-list li").count()
    assert count >= 24
    expect(page.locator("#objects-count")).to_have_text("0")
    shoot(page, "proposals")
    click(page, 271, 120)
    expect(page.locator("#objects-count")).to_have_text("1")
    page.keyboard.press("y")  # select the first proposal
    page.keyboard.press("y")  # accept it
    expect(page.locator("#objects-count")).to_have_text("2")
    page.keyboard.press("Delete")  # the next proposal
    expect(page.locator("#proposal-list li")).to_have_count(count - 3)
    page.click("#accept-all")
    expect(page.locator("#objects-count")).to_have_text(str(count - 1))
    for _ in range(4):
        page.keyboard.press("u")
    expect(page.locator("#objects-count")).to_have_text("0")
    for _ in range(4):
        page.keyboard.press("Shift+U")
    expect(page.locator("#objects-count")).to_have_text(str(count - 1))
    assert len(exported(page)["annotations"]) == count - 1


def test_objects_like_the_selected_one_are_proposed(page: Page, tmp_path: Path) -> None:
    page.set_input_files("#file", ROOT / "samples/coins.png")
    wait_for_picture(page)
    expect(page.locator("#similar")).to_be_disabled()
    click(page, *COINS[16])
    wait_for_mask(page)
    page.keyboard.press("g")
    expect(page.locator("#status")).to_contain_text("1 more is labelled already. Click on a proposal", timeout=240_000)
    shoot(page, "similar")
    page.keyboard.press("Shift+Y")
    masks = read(exported(page), tmp_path)
    assert coins_found(masks) >= 20 and len(masks) <= 24
    page.keyboard.press("u")
    page.keyboard.press("u")
    expect(page.locator("#objects li")).to_have_count(1)


def test_objects_are_selected_merged_hidden_reordered_and_named(page: Page, tmp_path: Path) -> None:
    page.set_input_files("#file", ROOT / "samples/coins.png")
    wait_for_picture(page)
    page.keyboard.press("o")
    for number, (x, y) in enumerate(COINS[:4], 1):
        click(page, x, y)
        expect(page.locator("#objects .facts", has_text="px")).to_have_count(number, timeout=60_000)
    page.fill("#class-name", "silver")
    page.click("text=Add class")
    expect(page.locator("#objects .title").nth(3)).to_have_text("4 silver")
    page.keyboard.press("Escape")
    page.locator("#canvas").focus()
    page.keyboard.press("v")
    click(page, *COINS[1])
    expect(page.locator("#objects li.active .title")).to_have_text("2 object")
    page.keyboard.press("Shift+Digit2")
    expect(page.locator("#objects li.active .title")).to_have_text("2 silver")
    page.click("#up")
    expect(page.locator("#objects li.active .title")).to_have_text("3 silver")
    page.get_by_label("Mark 1 object").check()
    page.keyboard.press("m")
    expect(page.locator("#objects li")).to_have_count(3)
    masks = read(exported(page), tmp_path)
    assert any(mask[COINS[0][::-1]] and mask[COINS[1][::-1]] for mask in masks)
    page.keyboard.press("n")
    page.get_by_label("Hide 3 silver").click()
    page.wait_for_timeout(300)
    assert_on_screen(page, masks[:2])
    page.locator("#classes input.name").nth(1).click()
    page.keyboard.press("Control+a")
    page.keyboard.type("denarius")
    page.keyboard.press("Enter")
    expect(page.locator("#objects .title").nth(2)).to_have_text("3 denarius")
    assert [each["name"] for each in exported(page)["categories"]] == ["object", "denarius"]


def test_zoom_keeps_the_mask_and_the_eraser_works_on_single_pixels(page: Page, disc: tuple[bytes, np.ndarray]) -> None:
    open_file(page, disc[0])
    click(page, 110, 80)
    wait_for_mask(page)
    before = saved_mask(page)
    for _ in range(9):
        page.keyboard.press("+")
    page.keyboard.press("k")
    page.keyboard.press("[")
    page.keyboard.press("[")
    box = at(page, 120.5, 80.5)
    assert box["x"] > 0
    page.locator("#canvas").focus()
    page.keyboard.press("Enter")  # erases at the crosshair in the middle, at 120, 80
    expect(page.locator("#status")).to_contain_text("Erased")
    after = saved_mask(page)
    changed = before & ~after
    assert changed[80, 120] and 0 < changed.sum() < 40 and not (after & ~before).any()
    page.keyboard.press("Control+z")
    assert np.array_equal(saved_mask(page), before)
    page.keyboard.press("0")
    click(page, 30, 30, modifiers=["Shift"])  # still the eraser: Shift paints
    expect(page.locator("#status")).to_contain_text("Painted")
    assert pictures.iou(saved_mask(page), before) < 1
    assert json.loads(downloaded(page, "#save-rle"))["area"] == saved_mask(page).sum()


def test_a_preview_of_the_mask_follows_the_mouse(page: Page, disc: tuple[bytes, np.ndarray]) -> None:
    open_file(page, disc[0])
    click(page, 110, 80)
    wait_for_mask(page)
    page.keyboard.press("Delete")
    drawn = page.evaluate("performance.getEntriesByName('draw preview').length")
    for count, (x, y) in enumerate(((100, 75), (30, 30), (115, 85)), drawn + 1):
        page.locator("#canvas").hover(position=at(page, x, y))
        page.wait_for_function("count => performance.getEntriesByName('draw preview').length >= count", arg=count)
    print("preview, ms:", page.evaluate("performance.getEntriesByName('preview').map(({duration}) => duration)"))
    shoot(page, "preview")
    expect(page.locator("#objects li")).to_have_count(0)
