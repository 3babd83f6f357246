"""Preprocessing of read-only images, which the image decoder returns."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sam_endpoint.model import families
from tests import checkpoints, pictures


@pytest.fixture(autouse=True)
def _every_warning_is_an_error() -> Iterator[None]:
    """Raise every warning as an error."""
    torch.set_warn_always(True)  # otherwise torch emits each warning only once per process
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    torch.set_warn_always(False)


@pytest.mark.parametrize("name", ["sam", "sam2"])
@pytest.mark.parametrize("part", [slice(None), slice(7, 61)], ids=["image", "crop"])
def test_preprocesses_a_read_only_image_without_warning_or_change(name: str, part: slice, tmp_path: Path) -> None:
    family = families.load(str(checkpoints.SAVERS[name](tmp_path)))
    image = pictures.clutter(80, 120)
    read_only = image.copy()
    read_only.flags.writeable = False
    actual, expected = (family.preprocess(pixels[part, part]) for pixels in (read_only, image))
    assert torch.equal(actual, expected)
    assert (read_only == image).all()
