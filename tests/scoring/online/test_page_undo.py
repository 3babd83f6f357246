"""Undo on the page brings the earlier masks back, whenever the answers arrive."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import Page, Route, expect

from tests.conftest import ROOT, serve_endpoint
from tests.scoring.online.browser import click, drag, open_file, saved_mask, wait_for_mask, wait_for_picture

COINS = ROOT / "samples/coins.png"
WAIT = 60_000  # ms for an answer


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve_endpoint(tmp_path_factory.mktemp("page") / "log") as base:
        yield base


@pytest.fixture
def coins(page: Page) -> Page:
    """Return a page that shows the coins, with a mask of one coin."""
    page.set_input_files("#file", COINS)
    wait_for_picture(page)
    click(page, 271, 120)
    wait_for_mask(page)
    return page


def areas(page: Page) -> list[str]:
    """Return what the list of objects says about each object, such as "1,943 px"."""
    return page.locator("#objects .facts").all_inner_texts()


def add_click(page: Page, x: float, y: float) -> list[str]:
    """Click into the active object, and return the areas after the answer."""
    before = areas(page)
    click(page, x, y)
    expect(page.locator("#objects .facts")).not_to_have_text(before, timeout=WAIT)
    wait_for_mask(page)
    return areas(page)


def test_undo_restores_the_mask_from_before_a_reload(coins: Page) -> None:
    page, before = coins, areas(coins)
    page.wait_for_timeout(300)  # the page saves the mask
    page.reload()
    wait_for_picture(page)
    page.locator("#objects .name").click()
    assert areas(page) == before
    add_click(page, 300, 193)
    page.keyboard.press("u")
    expect(page.locator("#objects .facts")).to_have_text(before)


def test_undo_restores_a_merged_mask(coins: Page) -> None:
    page = coins
    page.keyboard.press("n")
    click(page, 347, 187)
    wait_for_mask(page)
    page.get_by_label("Mark 1 object").check()
    page.keyboard.press("m")
    expect(page.locator("#objects li")).to_have_count(1)
    merged = areas(page)
    add_click(page, 60, 55)
    page.keyboard.press("u")
    expect(page.locator("#objects .facts")).to_have_text(merged)


def test_undo_takes_a_stroke_back_that_was_painted_before_the_answer(
    page: Page, disc: tuple[bytes, np.ndarray]
) -> None:
    open_file(page, disc[0])
    held: list[Route] = []
    page.route("**/score*", lambda route: held.append(route))
    click(page, 110, 80)
    page.keyboard.press("j")
    drag(page, (20, 140), (60, 140))
    expect(page.locator("#status")).to_contain_text("Painted")
    for route in held:
        route.continue_()
    wait_for_mask(page)
    with_stroke = saved_mask(page)
    page.keyboard.press("u")
    expect(page.locator("#status")).to_contain_text("Undone")
    alone = saved_mask(page)
    assert with_stroke[140, 40] and with_stroke[80, 110] and alone[80, 110] and not alone[140, 40]
    page.keyboard.press("Shift+U")
    expect(page.locator("#status")).to_contain_text("Redone")
    assert np.array_equal(saved_mask(page), with_stroke)


def test_a_click_after_undo_refines_the_mask_that_is_shown(coins: Page) -> None:
    page = coins
    add_click(page, 275, 124)
    add_click(page, 347, 187)  # a mistake
    page.keyboard.press("u")
    expect(page.locator("#status")).to_contain_text("Undone")
    add_click(page, 266, 116)
    after_undo = saved_mask(page)
    page.keyboard.press("u")
    page.keyboard.press("u")
    add_click(page, 275, 124)
    add_click(page, 266, 116)
    assert np.array_equal(saved_mask(page), after_undo)


def test_a_click_with_another_model_gets_a_mask(coins: Page) -> None:
    page = coins
    page.keyboard.press("n")
    other = page.locator("#model option:not(:checked)", has_text="(starter)").first.get_attribute("value")
    page.select_option("#model", other)
    page.locator("#objects .name").click()
    add_click(page, 275, 124)
    expect(page.locator("#answered")).to_contain_text(f"Answered by {other}")
