"""Label files that the tests write, and a reader that uses other projects' packages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.conftest import run_with_clients

SIZE = (64, 96)
LINE = "0 0.5 0.5 0.25 0.5"
VOC_BOX = "<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>30</xmax><ymax>60</ymax></bndbox>"


def coco_file(file: Path, names: list[str], **content: Any) -> Path:
    """Write a COCO file with one box in each image. The x coordinate of a box is the position of its image in `names`.

    Args:
        file: file to write.
        names: names of the images.
        **content: lists that replace those of the file: `images`, `annotations` or `categories`.

    Returns:
        The file.
    """
    annotations = [{"id": i, "image_id": i, "category_id": 1, "bbox": [i, 2, 30, 40]} for i, _ in enumerate(names)]
    images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
    whole = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "disc"}]}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({**whole, **content}))
    return file


def write_files(folder: Path, *names: str, text: str = "") -> None:
    """Write files with the same text into a folder and its subfolders."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def voc(*objects: str, head: str = "") -> str:
    """Return the content of a VOC file, from the content of each object."""
    return f"<annotation>{head}{''.join(f'<object>{item}</object>' for item in objects)}</annotation>"


def read_with_clients(kind: str, *files: Path) -> Any:
    """Read label files with another project's package.

    Args:
        kind: package and format, as in `readers.py`.
        *files: files and folders that the package reads.

    Returns:
        The content, as `readers.py` prints it.
    """
    return run_with_clients(Path(__file__).with_name("readers.py"), kind, *files)
