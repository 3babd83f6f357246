"""The page for videos: frames, clicks, tracking, corrections and downloads, with a real server and a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from sam_endpoint.model.masks import decode
from tests.conftest import serve_endpoint
from tests.pictures import iou
from tests.scoring.online.accessibility import violations
from tests.scoring.online.browser import PHONE, at, canvas_pixels, click, downloaded, open_page, shoot
from tests.scoring.online.endpoint import in_flight
from tests.videos import HEIGHT, WIDTH, disc_frames, write_video

COUNT = 16
FRAMES, MASKS = disc_frames(COUNT)
SIZES: dict[str, dict[str, Any]] = {"desktop": {"viewport": {"width": 1280, "height": 800}}, "phone": PHONE}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve_endpoint(tmp_path_factory.mktemp("page") / "log", "--public-metrics", "true") as base:
        yield base


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a video of a disc that moves 2 pixels per frame."""
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", FRAMES)


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    with open_page(browser, f"{url}/video") as page:
        yield page


def open_clip(page: Page, file: Path, count: int = COUNT) -> None:
    """Open a video, and wait until all its frames have arrived."""
    page.set_input_files("#file", file)
    expect(page.locator("#position")).to_have_text(re.compile(rf"of {count - 1}, .* s$"), timeout=30_000)


def show(page: Page, frame: int) -> None:
    """Show a frame by the slider, and wait until it is drawn."""
    page.locator("#scrub").fill(str(frame))
    expect(page.locator("#canvas")).to_have_attribute("data-frame", str(frame))


def click_disc(page: Page, frame: int) -> None:
    show(page, frame)
    click(page, 30 + 2 * frame, 48)
    expect(page.locator("#status")).to_contain_text(re.compile(rf"on frame {frame}: [\d,]+ pixels"), timeout=30_000)


def track(page: Page) -> None:
    page.keyboard.press("t")
    expect(page.locator("#status")).to_contain_text("Tracked to the last frame", timeout=120_000)


def saved_tracks(page: Page) -> dict[tuple[int, int], dict[str, Any]]:
    """Return the records of the downloaded JSON lines by frame and object."""
    records = [json.loads(line) for line in downloaded(page, "#save-lines").splitlines()]
    return {(record["frame"], record["object"]): record for record in records}


def mask_of(record: dict[str, Any]) -> np.ndarray:
    mask = decode(record["encoded_binary_mask"], "rle", (HEIGHT, WIDTH))
    assert record["area"] == mask.sum() and record["size"] == [HEIGHT, WIDTH]
    return mask


def disc_on_screen(page: Page) -> int:
    """Return the column of the disc's centre in the frame that the canvas shows."""
    screen = canvas_pixels(page)
    bright = np.argwhere(screen[..., 0] > 135)
    column: float = bright[:, 1].mean() * WIDTH / screen.shape[1]
    return round(column)


def test_an_object_is_clicked_on_a_later_frame_tracked_corrected_and_saved(page: Page, clip: Path) -> None:
    bodies: list[str] = []
    page.on("request", lambda request: bodies.append(request.url) if request.url.endswith("/track") else None)
    open_clip(page, clip)
    expect(page.locator("#track")).to_be_disabled()
    click_disc(page, 5)
    shoot(page, "video-clicked")
    page.keyboard.press("t")
    expect(page.locator("#canvas")).not_to_have_attribute("data-frame", "5", timeout=60_000)  # the view follows
    expect(page.locator("#status")).to_contain_text("Tracked to the last frame", timeout=120_000)
    shoot(page, "video-tracked")
    first = saved_tracks(page)
    assert set(first) == {(frame, 1) for frame in range(5, COUNT)}
    for (frame, _), record in first.items():
        assert iou(mask_of(record), MASKS[frame]) > 0.8

    show(page, 10)
    page.locator("#canvas").focus()
    click(page, 30 + 2 * 10 + 5, 48)  # a correction of the mask
    expect(page.locator("#status")).to_contain_text(re.compile(r"on frame 10: [\d,]+ pixels"))
    page.keyboard.press("n")
    click(page, 8, 8)  # the background is a second object
    expect(page.locator("#objects .title")).to_have_count(2)
    expect(page.locator("#status")).to_contain_text(re.compile(r"Object 2 on frame 10"))
    track(page)
    second = saved_tracks(page)
    assert {frame for frame, number in second if number == 2} == set(range(10, COUNT))
    assert {place: second[place] for place in second if place[0] < 10} == {
        place: first[place] for place in first if place[0] < 10
    }
    for frame in range(10, COUNT):
        assert iou(mask_of(second[frame, 1]), MASKS[frame]) > 0.8
    assert len(bodies) == 2

    vis = json.loads(downloaded(page, "#save-vis"))
    assert vis["videos"][0]["length"] == COUNT and [each["id"] for each in vis["annotations"]] == [1, 2]
    assert vis["annotations"][0]["segmentations"][:5] == [None] * 5
    assert vis["annotations"][0]["segmentations"][7]["counts"] == second[7, 1]["encoded_binary_mask"]
    prompts = json.loads(downloaded(page, "#save-prompts"))
    assert [(prompt["frame"], prompt["object"]) for prompt in prompts] == [(5, 1), (10, 1), (10, 2)]

    page.keyboard.press("u")  # undoes the second tracking
    expect(page.locator("#objects .facts").first).to_have_text(re.compile(r"score 0\.\d\d"))
    assert len(saved_tracks(page)) == len(first) + 1


@pytest.mark.parametrize("ending", [".webm", ".gif"])
def test_the_page_shows_exactly_the_frames_of_the_tracker(page: Page, ending: str, tmp_path: Path) -> None:
    """The webm file has frames of 10 ms to 500 ms. A browser's own player would show some of them never."""
    times = [int(time) for time in np.cumsum([0, 10, 500, 40, 10, 10, 300, 20, 10, 33, 100])]
    frames = disc_frames(len(times), 6)[0]
    options = {"milliseconds": times} if ending == ".webm" else {}
    open_clip(page, write_video(tmp_path / f"clip{ending}", frames, **options), len(times))
    for frame in (0, 7, 3, 10, 1, 2):
        show(page, frame)
        assert disc_on_screen(page) == pytest.approx(30 + 6 * frame, abs=1)
        seconds = times[frame] / 1000 if ending == ".webm" else frame * 0.04
        assert page.locator("#position").text_content() == f"Frame {frame} of {len(times) - 1}, {seconds:.2f} s"


def test_a_large_video_is_shown_reduced_and_tracked_at_its_own_size(page: Page, tmp_path: Path) -> None:
    """The frames have 1664 x 1248 pixels, and the page gets them as images of 1280 x 960."""
    large = FRAMES[:3].repeat(13, axis=1).repeat(13, axis=2)
    open_clip(page, write_video(tmp_path / "large.gif", large), 3)
    click(page, 30 * 13, 48 * 13)
    expect(page.locator("#status")).to_contain_text("Object 1 on frame 0", timeout=30_000)
    track(page)
    for (frame, _), record in saved_tracks(page).items():
        assert record["size"] == [HEIGHT * 13, WIDTH * 13]
        mask = decode(record["encoded_binary_mask"], "rle", (HEIGHT * 13, WIDTH * 13))
        assert iou(mask[6::13, 6::13], MASKS[frame]) > 0.8


def test_frames_are_reached_by_keys_and_the_clip_plays(page: Page, clip: Path) -> None:
    open_clip(page, clip)
    canvas = page.locator("#canvas")
    canvas.focus()
    for key, frame in ((".", 1), (".", 2), (",", 1), ("PageDown", 11), ("End", 15), ("Home", 0)):
        page.keyboard.press(key)
        expect(canvas).to_have_attribute("data-frame", str(frame))
    page.locator("#scrub").focus()
    page.keyboard.press("ArrowRight")
    expect(canvas).to_have_attribute("data-frame", "1")
    canvas.focus()
    page.keyboard.press(" ")
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    expect(canvas).to_have_attribute("data-frame", "15", timeout=10_000)
    expect(page.get_by_role("button", name="Play", exact=True)).to_be_visible()


def test_the_keyboard_alone_selects_an_object(page: Page, clip: Path) -> None:
    open_clip(page, clip)
    page.locator("#canvas").focus()
    for _ in range(7):
        page.keyboard.press("ArrowLeft")  # the crosshair starts at 64, 48
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("Object 1 on frame 0")
    page.keyboard.press("c")
    expect(page.locator("#objects .facts")).to_have_text("no mask here")
    page.keyboard.press("u")
    expect(page.locator("#objects .facts")).to_contain_text("clicked")
    page.keyboard.press("Delete")
    expect(page.locator("#objects li")).to_have_count(0)


def test_stopping_frees_the_server_and_keeps_the_masks(page: Page, url: str, tmp_path: Path) -> None:
    frames = disc_frames(120, 0)[0]
    frames[np.arange(120), 0, np.arange(120) % 100] = 255  # otherwise Pillow would write equal frames once
    open_clip(page, write_video(tmp_path / "long.webp", frames), 120)
    click_disc(page, 0)
    page.keyboard.press("t")
    expect(page.locator("#progress-text")).to_contain_text(re.compile(r"Frame [3-9] of 119"), timeout=60_000)
    assert in_flight(url) >= 1
    page.keyboard.press("t")
    expect(page.locator("#status")).to_contain_text(re.compile(r"Stopped after frame \d+"))
    page.wait_for_timeout(3000)
    assert in_flight(url) == 0
    assert 3 < len(saved_tracks(page)) < 119


def test_what_is_no_video_is_a_plain_message_and_a_correct_file_can_follow(
    page: Page, clip: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.mp4").write_text("not a video")
    page.set_input_files("#file", tmp_path / "notes.mp4")
    expect(page.locator("#status")).to_contain_text("expected an mp4, mov, webm, mkv, avi, GIF or WebP file")
    expect(page.locator("#drop")).to_be_visible()
    open_clip(page, clip)
    click_disc(page, 0)
    page.set_input_files("#file", tmp_path / "notes.mp4")
    expect(page.locator("#confirm")).to_contain_text("not saved")
    page.keyboard.press("Escape")
    expect(page.locator("#objects li")).to_have_count(1)


def test_undo_of_a_click_during_tracking_keeps_the_tracked_masks(page: Page, clip: Path) -> None:
    open_clip(page, clip)
    click_disc(page, 0)
    page.keyboard.press("t")
    expect(page.locator("#progress-text")).to_contain_text(re.compile(r"Frame [1-4] of"), timeout=60_000)
    page.keyboard.press("n")
    click(page, 110, 10)
    expect(page.locator("#objects li")).to_have_count(2)
    expect(page.locator("#stop")).to_be_visible()
    expect(page.locator("#track")).to_be_visible(timeout=120_000)
    before = {place for place in saved_tracks(page) if place[1] == 1}
    page.keyboard.press("u")
    expect(page.locator("#objects li")).to_have_count(1)
    assert set(saved_tracks(page)) == before == {(frame, 1) for frame in range(COUNT)}


def test_undo_of_a_click_keeps_answers_and_hiding_that_came_after_it(page: Page, clip: Path) -> None:
    open_clip(page, clip)
    held: list[Route] = []
    page.route("**/score*", lambda route: held.append(route))
    click(page, 30, 48)
    page.keyboard.press("n")
    click(page, 110, 10)
    facts = page.locator("#objects .facts")
    expect(facts).to_have_text(["no mask here"] * 2)
    page.wait_for_timeout(300)
    for route in held:
        route.continue_()
    page.unroute("**/score*")
    expect(facts).to_have_text([re.compile(r"clicked, 0\.\d\d")] * 2, timeout=60_000)
    page.get_by_label("Hide object 1").click()
    page.keyboard.press("u")
    expect(facts).to_have_text([re.compile(r"clicked, 0\.\d\d")])
    expect(page.get_by_label("Show object 1")).to_be_visible()


def test_a_second_click_goes_to_the_model_chosen_since(page: Page, clip: Path) -> None:
    open_clip(page, clip)
    click_disc(page, 0)
    page.select_option("#model", page.locator("#model option:not(:checked)").first.get_attribute("value"))
    before = page.locator("#status").inner_text()
    click(page, 36, 48)
    expect(page.locator("#status")).not_to_have_text(before)
    expect(page.locator("#status")).to_contain_text("Object 1 on frame 0", timeout=60_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_nothing_in_any_state(browser: Browser, url: str, tmp_path: Path, size: str, scheme: Any) -> None:
    problems: dict[str, list[str]] = {}
    with open_page(browser, f"{url}/video", **SIZES[size], color_scheme=scheme) as page:

        def check(state: str) -> None:
            page.wait_for_timeout(100)
            shoot(page, f"video-{size}-{scheme}-{state}")
            problems[state] = violations(page)

        check("start")
        open_clip(page, write_video(tmp_path / "short.gif", FRAMES[:6]), 6)
        if size == "phone":
            page.locator("#canvas").tap(position=at(page, 30, 48))
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            for name in ("#canvas", "#transport", "#report", "#track"):
                frame = page.locator(name).bounding_box()
                assert frame and frame["y"] + frame["height"] <= 844, f"{name} is not on the first screen"
        else:
            click(page, 30, 48)
        expect(page.locator("#status")).to_contain_text("Object 1 on frame 0", timeout=30_000)
        check("clicked")
        page.click("#track")
        expect(page.locator("#progress-text")).to_be_visible(timeout=30_000)
        check("tracking")
        expect(page.locator("#status")).to_contain_text("Tracked to the last frame", timeout=120_000)
        check("tracked")
        page.click("#open-keys")
        check("keys")
    assert not any(problems.values()), problems
