"""Labels that are imported go to their own image, archives are read back, and an added image stays after undo."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, FilePayload, Page, expect

from tests.conftest import ROOT, serve_endpoint
from tests.scoring.online.browser import click, open_page, wait_for_mask, wait_for_picture

CAT, COINS = ROOT / "samples/cat.jpg", ROOT / "samples/coins.png"
SIZE = (384, 303)  # of the coins


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve_endpoint(tmp_path_factory.mktemp("page") / "log") as base:
        yield base


def coco_file(*names: str) -> FilePayload:
    """Return a COCO file of images of the size of the coins, each with one square."""
    width, height = SIZE
    images = [{"id": i, "file_name": name, "width": width, "height": height} for i, name in enumerate(names)]
    squares = [[10 + 40 * i, 10, 40 + 40 * i, 10, 40 + 40 * i, 40, 10 + 40 * i, 40] for i in range(len(names))]
    content = {
        "images": images,
        "categories": [{"id": 1, "name": "cup"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "segmentation": [square]} for i, square in enumerate(squares)
        ],
    }
    return {"name": f"{len(names)}.json", "mimeType": "", "buffer": json.dumps(content).encode()}


def import_labels(page: Page, *files: FilePayload, objects: int) -> None:
    page.set_input_files("#labels", list(files))
    expect(page.locator("#status")).to_contain_text(f"{objects} object{'' if objects == 1 else 's'} imported.")


def assert_images(page: Page, *rows: str) -> None:
    """Check the list of images: each name, and what the list says about the image."""
    expect(page.locator("#images li")).to_have_text(list(rows))


def set_of_photos(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CAT if name.endswith("jpg") else COINS, folder / name)
    return folder


@pytest.mark.parametrize("names", [("train/0001.png", "val/0001.png"), ("coins.png", "sub/coins.png")])
@pytest.mark.parametrize("together", [True, False], ids=["one file", "two files"])
def test_labels_of_images_with_one_name_in_two_folders_stay_apart(
    page: Page, tmp_path: Path, names: tuple[str, str], together: bool
) -> None:
    files = [coco_file(*names)] if together else [coco_file(name) for name in names]
    import_labels(page, *files, objects=2)
    assert_images(page, *(f"{name}file missing · 1 object" for name in names))
    page.set_input_files("#folder", set_of_photos(tmp_path / "set", *names))
    wait_for_picture(page)
    assert_images(page, *(f"{name}1 object" for name in names))


def test_labels_of_another_folder_do_not_go_to_an_image_that_is_here(page: Page, tmp_path: Path) -> None:
    page.set_input_files("#folder", set_of_photos(tmp_path / "set", "train/0001.png"))
    wait_for_picture(page)
    import_labels(page, coco_file("train/0001.png", "val/0001.png"), objects=2)
    assert_images(page, "train/0001.png1 object", "val/0001.pngfile missing · 1 object")


def test_undo_of_an_import_keeps_an_image_that_was_added_since(page: Page) -> None:
    import_labels(page, coco_file("coins.png"), objects=1)
    page.set_input_files("#file", COINS)
    wait_for_picture(page)
    page.keyboard.press("u")
    assert_images(page, "coins.png0 objects")
    click(page, 271, 120)
    wait_for_mask(page)
    page.wait_for_timeout(300)  # the page saves the mask
    page.reload()
    wait_for_picture(page)
    assert_images(page, "coins.png1 object")


def test_redo_of_an_import_gives_its_labels_to_an_image_that_was_added_since(page: Page) -> None:
    import_labels(page, coco_file("coins.png"), objects=1)
    page.click("#undo")
    assert_images(page)
    page.set_input_files("#file", COINS)
    wait_for_picture(page)
    assert_images(page, "coins.png0 objects")
    page.keyboard.press("Shift+U")
    assert_images(page, "coins.png1 object")


def test_masks_of_images_in_a_folder_named_images_are_no_photographs(
    page: Page, browser: Browser, url: str, tmp_path: Path
) -> None:
    page.set_input_files("#folder", set_of_photos(tmp_path / "set", "images/cat.jpg", "images/coins.png"))
    wait_for_picture(page)
    click(page, 262, 240)
    wait_for_mask(page)
    page.click("#open-export")
    page.check("[value=png]")
    page.check("#with-images")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    archive = tmp_path / "masks.zip"
    shutil.copy(download.value.path(), archive)
    rows = "images/cat.jpg1 object", "images/coins.png0 objects"
    page.set_input_files("#labels", archive)
    expect(page.locator("#status")).to_have_text("0 objects imported. 1 was in the data set already.")
    assert_images(page, *rows)
    with open_page(browser, url) as other:
        other.set_input_files("#labels", archive)
        expect(other.locator("#status")).to_have_text("1 object imported.")
        assert_images(other, *rows)


@pytest.mark.parametrize("option", ["yolo", "png"])
def test_images_that_differ_in_their_ending_only_are_not_exported_to_the_same_file(
    page: Page, tmp_path: Path, option: str
) -> None:
    page.set_input_files("#folder", set_of_photos(tmp_path / "set", "a.jpg", "a.png"))
    wait_for_picture(page)
    page.click("#open-export")
    page.check(f"[value={option}]")
    page.get_by_role("button", name="Download").click()
    expect(page.locator("#status")).to_contain_text(
        "The labels cannot be exported. a.jpg and a.png would have the same file in"
    )
