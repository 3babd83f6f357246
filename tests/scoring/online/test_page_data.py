"""Data sets on the page: several images, import and export, and what goes wrong, with nothing lost."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, FilePayload, Page, Route, expect
from pycocotools import mask as coco
from pycocotools.coco import COCO

from tests.conftest import ROOT, serve_endpoint
from tests.scoring.online.browser import (
    chromium,
    click,
    open_file,
    open_page,
    shoot,
    wait_for_mask,
    wait_for_picture,
)

CAT, COINS = ROOT / "samples/cat.jpg", ROOT / "samples/coins.png"


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


@pytest.fixture
def labelled(page: Page) -> Page:
    """Return a page with two images: the coins with two objects of two classes, and the cat with one object."""
    page.set_input_files("#file", [COINS, CAT])
    wait_for_picture(page)
    for x, y, name in ((271, 120, "coin"), (347, 187, "large coin")):
        page.keyboard.press("n")
        page.fill("#class-name", name)
        page.keyboard.press("Enter")
        click(page, x, y)
        wait_for_mask(page)
    page.keyboard.press("PageDown")
    expect(page.locator("#images-count")).to_have_text("2 of 2")
    wait_for_picture(page)
    click(page, 262, 240)
    wait_for_mask(page)
    page.keyboard.press("n")
    return page


def export(page: Page, option: str, images: bool = False, objects: int = 3) -> bytes:
    page.click("#open-export")
    page.check(f"[value={option}]")
    page.set_checked("#with-images", images)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    expect(page.locator("#status")).to_contain_text(f"Exported: {objects} objects in 2 images")
    return Path(download.value.path()).read_bytes()


def import_files(page: Page, *files: tuple[str, bytes]) -> None:
    payloads: list[FilePayload] = [{"name": name, "mimeType": "", "buffer": data} for name, data in files]
    page.set_input_files("#labels", payloads)


def archive(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as files:
        assert files.testzip() is None
        return {name: files.read(name) for name in files.namelist()}


def masks_of(content: bytes, folder: Path) -> list[np.ndarray]:
    (folder / "annotations.json").write_bytes(content)
    dataset = COCO(str(folder / "annotations.json"))
    return [dataset.annToMask(annotation) for annotation in dataset.loadAnns(dataset.getAnnIds())]


def test_every_format_has_the_same_masks(labelled: Page, tmp_path: Path) -> None:
    exact = export(labelled, "coco-rle")
    masks = masks_of(exact, tmp_path)
    assert [image["file_name"] for image in json.loads(exact)["images"]] == ["coins.png", "cat.jpg"]
    polygons = masks_of(export(labelled, "coco-polygons"), tmp_path)
    assert all(np.array_equal(a, b) for a, b in zip(masks, polygons, strict=True))

    yolo = archive(export(labelled, "yolo"))
    lines = yolo["labels/coins.txt"].decode().split("\n")[:2]
    assert [line.split()[0] for line in lines] == ["1", "2"] and b'2: "large coin"' in yolo["data.yaml"]
    for line, mask in zip(lines, masks, strict=False):
        height, width = mask.shape
        corners = (np.array(line.split()[1:], float).reshape(-1, 2) * (width, height)).ravel().tolist()
        assert np.array_equal(coco.decode(coco.frPyObjects([corners], height, width))[..., 0], mask)

    files = archive(export(labelled, "png"))
    classes, objects = (
        np.asarray(Image.open(io.BytesIO(files[f"{name}/coins.png"]))) for name in ("classes", "objects")
    )
    assert files["classes.txt"] == b"object\ncoin\nlarge coin\n"
    for number, mask in enumerate(masks[:2], 1):
        assert np.array_equal(objects == number, mask > 0) and set(classes[mask > 0]) == {number + 1}


@pytest.mark.parametrize("option", ["coco-rle", "coco-polygons", "yolo", "png"])
def test_an_export_with_images_goes_on_in_another_browser(
    labelled: Page, browser: Browser, url: str, option: str, tmp_path: Path
) -> None:
    exact = masks_of(export(labelled, "coco-rle"), tmp_path)
    content = export(labelled, option, images=True)
    assert archive(content)["images/cat.jpg"] == CAT.read_bytes()
    with open_page(browser, url) as other:
        import_files(other, ("set.zip", content))
        expect(other.locator("#status")).to_contain_text("3 objects imported.")
        expect(other.locator("#images-count")).to_have_text("1 of 2")
        masks = masks_of(export(other, "coco-rle"), tmp_path)
        assert sorted(mask.tobytes() for mask in masks) == sorted(mask.tobytes() for mask in exact)
        wait_for_picture(other)
        click(other, 60, 55)  # the image files are there as well
        wait_for_mask(other)


def test_progress_and_undo_span_the_images(labelled: Page) -> None:
    page = labelled
    expect(page.locator("#progress-text")).to_have_text("cat.jpg: 2 of 2 labelled")
    page.keyboard.press("u")
    expect(page.locator("#objects li")).to_have_count(0)
    expect(page.locator("#progress-text")).to_have_text("cat.jpg: 1 of 2 labelled")
    page.keyboard.press("u")  # the last change of the other image
    expect(page.locator("#images-count")).to_have_text("1 of 2")
    expect(page.locator("#objects li")).to_have_count(1)
    page.keyboard.press("f")
    expect(page.locator("#images-count")).to_have_text("2 of 2")
    page.reload()
    expect(page.locator("#images-count")).to_have_text("2 of 2")
    page.click("text=All images")
    expect(page.locator("#images li").first).to_contain_text("1 object · done")
    shoot(page, "images")


def test_two_tabs_do_not_overwrite_each_other(labelled: Page, url: str) -> None:
    first = labelled
    second = first.context.new_page()
    second.goto(url)
    expect(second.locator("#images-count")).to_have_text("2 of 2")
    wait_for_picture(second)
    expect(first.locator("#taken-over")).to_be_visible()
    shoot(first, "taken-over")
    first.keyboard.press("Control+z")  # changes nothing below the dialog
    click(second, 60, 55)
    wait_for_mask(second)
    second.keyboard.press("PageUp")
    expect(second.locator("#images-count")).to_have_text("1 of 2")
    first.get_by_role("button", name="Label in this tab").click()
    expect(first.locator("#images-count")).to_have_text("1 of 2")
    wait_for_picture(first)
    expect(first.locator("#taken-over")).to_be_hidden()
    expect(second.locator("#taken-over")).to_be_visible()
    assert len(json.loads(export(first, "coco-rle", objects=4))["annotations"]) == 4
    click(first, 44, 54)
    wait_for_mask(first)
    second.evaluate(
        "import('./page/state.js').then(({ update, get }) => update({ project: { ...get().project, images: [] } }))"
    )
    second.wait_for_timeout(300)
    first.reload()
    wait_for_picture(first)
    assert len(json.loads(export(first, "coco-rle", objects=5))["annotations"]) == 5


def test_labels_whose_images_are_missing_wait_for_them(labelled: Page, browser: Browser, url: str) -> None:
    content = export(labelled, "coco-rle")
    yolo = export(labelled, "yolo")
    with open_page(browser, url) as page:
        import_files(page, ("yolo.zip", yolo))
        expect(page.locator("#status")).to_contain_text("0 objects imported. 2 label files (labels/coins.txt")
        import_files(page, ("annotations.json", content))
        expect(page.locator("#status")).to_contain_text("2 images (coins.png, cat.jpg) are not in this browser")
        expect(page.locator("#status")).to_contain_text("The labels are kept")
        shoot(page, "missing")
        assert json.loads(export(page, "coco-rle"))["annotations"] == json.loads(content)["annotations"]
        page.set_input_files("#file", [COINS, CAT])
        wait_for_picture(page)
        expect(page.locator("#images-count")).to_have_text("1 of 2")
        expect(page.locator("#objects-count")).to_have_text("2")


def test_bad_files_are_named_and_nothing_is_lost(labelled: Page) -> None:
    page, status = labelled, labelled.locator("#status")
    huge = io.BytesIO()
    Image.new("1", (10_100, 10_000)).save(huge, "PNG")
    for name, data, message in (
        ("notes.txt", b"no image", "notes.txt is not an image this browser can read"),
        ("huge.png", huge.getvalue(), "huge.png has 101 megapixels. The page opens images of at most 100 megapixels"),
    ):
        page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": data})
        expect(status).to_contain_text(message)
    for name, data, message in (
        ("a.json", b"{", "Nothing was imported. a.json is not a JSON file."),
        ("b.json", b"[]", "Nothing was imported. The JSON file is not in COCO's format"),
        ("c.zip", b"PK", "Nothing was imported. The file is not a ZIP archive"),
        ("cat.txt", b"0 0.5\n", "Nothing was imported. Line 1 of cat.txt is not a class number"),
    ):
        import_files(page, (name, data))
        expect(status).to_contain_text(message)
    expect(page.locator("#images-count")).to_have_text("2 of 2")
    assert len(json.loads(export(page, "coco-rle"))["annotations"]) == 3


def test_an_endpoint_that_is_down_or_full_loses_nothing(page: Page, disc: tuple[bytes, np.ndarray]) -> None:
    open_file(page, disc[0])
    full = json.dumps({"error": {"code": "overloaded", "message": "too many requests"}})
    down: Callable[[Route], None] = lambda route: route.abort()  # noqa: E731
    busy: Callable[[Route], None] = lambda route: route.fulfill(status=503, body=full)  # noqa: E731
    for answer, message in ((down, "The endpoint cannot be reached"), (busy, "The endpoint has too many requests")):
        page.route("**/score*", answer)
        click(page, 110, 80)
        expect(page.locator("#status")).to_contain_text(message)
        expect(page.locator("#objects .facts")).to_have_text("no mask yet")
        page.unroute("**/score*")
        page.click("#retry")
        wait_for_mask(page)
        expect(page.locator("#objects .facts")).to_contain_text("px")
        page.keyboard.press("Delete")


def test_an_endpoint_that_asks_for_a_key(
    browser: Browser, tmp_path: Path, disc: tuple[bytes, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAM_API_KEYS", "secret-key-of-16")
    with serve_endpoint(tmp_path / "log") as url, open_page(browser, url, wait=False) as page:
        expect(page.locator("#status")).to_contain_text(
            "This endpoint needs an API key. Enter it at the top of the page."
        )
        page.fill("#key", "secret-key-of-16")
        page.keyboard.press("Enter")
        expect(page.locator("#model option").first).to_be_attached()
        open_file(page, disc[0])
        click(page, 110, 80)
        wait_for_mask(page)


def test_an_image_is_pasted(page: Page, disc: tuple[bytes, np.ndarray], url: str) -> None:
    paste = """bytes => {
        const data = new DataTransfer();
        if (typeof bytes === "string") data.setData("text/plain", bytes);
        else data.items.add(new File([new Uint8Array(bytes)], "pasted.png", {type: "image/png"}));
        document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true}));
    }"""
    page.evaluate(paste, list(disc[0]))
    expect(page.locator("#progress-text")).to_contain_text("pasted.png")
    page.evaluate(paste, f"{url}/page/samples/coins.png")
    expect(page.locator("#progress-text")).to_contain_text("coins.png")
    expect(page.locator("#images-count")).to_have_text("2 of 2")
