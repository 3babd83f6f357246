"""The page's accessibility: axe-core's rules of WCAG 2.2 AA in each state, at both sizes and in both colour schemes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.conftest import ROOT, serve_endpoint
from tests.scoring.online.accessibility import violations
from tests.scoring.online.browser import chromium, click, open_page, shoot, wait_for_mask, wait_for_picture

SIZES: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 800}},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True},
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve_endpoint(tmp_path_factory.mktemp("page") / "log") as base:
        yield base


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_nothing_in_any_state(browser: Browser, url: str, size: str, scheme: str) -> None:
    problems: dict[str, list[str]] = {}
    with open_page(browser, url, **SIZES[size], color_scheme=scheme) as page:

        def check(state: str) -> None:
            page.wait_for_timeout(100)
            shoot(page, f"{size}-{scheme}-{state}")
            problems[state] = violations(page)

        check("start")
        page.set_input_files("#file", ROOT / "samples/coins.png")
        wait_for_picture(page)
        page.keyboard.press("e")
        expect(page.locator("#proposals")).to_be_visible(timeout=60_000)
        page.wait_for_timeout(300)
        check("proposals")
        for _ in range(3):
            page.keyboard.press("y")
        page.click("#discard")
        page.fill("#class-name", "coin")
        page.keyboard.press("Enter")
        click(page, 347, 187)
        wait_for_mask(page)
        for details in page.locator("details").all():
            details.evaluate("details => { details.open = true }")
        check("labelled")
        page.set_input_files("#file", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"no image"})
        expect(page.locator("#status")).to_contain_text("not an image")
        check("wrong")
        page.click("#open-keys")
        check("keys")
        page.keyboard.press("Escape")
        page.click("#open-export")
        check("export")
        page.keyboard.press("Escape")
        page.click("#anew")
        check("confirm")
        page.keyboard.press("Escape")
        expect(page.locator("#images-count")).to_have_text("1 of 1")
        page.context.new_page().goto(url)
        expect(page.locator("#taken-over")).to_be_visible()
        check("taken-over")
    assert not any(problems.values()), problems


def test_every_control_is_reached_by_tab_and_keys_can_be_turned_off(browser: Browser, url: str) -> None:
    with open_page(browser, url) as page:
        page.set_input_files("#file", ROOT / "samples/coins.png")
        wait_for_picture(page)
        page.locator("#model").focus()
        reached = {"model"}
        for _ in range(60):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.id || document.activeElement.name"))
        assert {
            "model",
            "open-keys",
            "canvas",
            "zoom-in",
            "mode",
            "everything",
            "class-name",
            "done",
            "open-export",
        } <= reached
        page.locator("#canvas").focus()
        page.keyboard.press("j")
        expect(page.locator("[value=brush]")).to_be_checked()
        page.keyboard.press("?")
        page.get_by_label("Single keys are shortcuts").uncheck()
        page.keyboard.press("Escape")
        page.locator("#canvas").focus()
        page.keyboard.press("k")
        expect(page.locator("[value=brush]")).to_be_checked()
