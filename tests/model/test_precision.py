"""Encoders with less than float32: close to exact, never taken for exact, refused where they cannot be."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pytest

from model import images, package
from model.images import ImageLimits
from model.prompts import Prompt
from model.segmenter import Segmenter
from tests import pictures


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
@pytest.mark.parametrize("checkpoint", [package.EMBEDDED, package.EMBEDDED_SAM2], ids=lambda folder: folder.name)
def test_masks_stay_what_they_are(checkpoint: Path, precision: str, disc: tuple[bytes, np.ndarray]) -> None:
    exact = Segmenter.load(str(checkpoint), "cpu")
    lowered = Segmenter.load(str(checkpoint), "cpu", precision)
    image = images.decode(disc[0], ImageLimits())
    prompt = Prompt(box=np.array([68, 38, 153, 123], np.float32))
    one, other = (segmenter.embed([image])[0] for segmenter in (exact, lowered))
    difference = (one.features[-1] - other.features[-1]).norm() / one.features[-1].norm()
    assert 1e-5 < difference < 0.1  # neither exact nor far from it
    masks = [s.masks(s.segment(e, [prompt], False)[0])[0] for s, e in ((exact, one), (lowered, other))]
    assert pictures.iou(*masks) > 0.97 and pictures.iou(masks[1], disc[1]) > 0.8
    # What is kept for one is not found for the other.
    assert exact.family.fingerprint() != lowered.family.fingerprint()


def test_it_is_a_setting_of_the_model(packaged: Path, tmp_path: Path) -> None:
    lowered = package.save(package.EMBEDDED, tmp_path / "model", {"precision": "bfloat16"})
    exact, other = (mlflow.pyfunc.load_model(str(folder)) for folder in (packaged, lowered))
    scores = [
        model.predict(model.input_example)["predictions"][0][0]["mask_per_prediction"][0]["iou_score"]
        for model in (exact, other)
    ]
    assert scores[0] != scores[1] and scores[0] == pytest.approx(scores[1], abs=0.05)
    back = mlflow.pyfunc.load_model(str(lowered), model_config={"precision": "float32"})
    again = back.predict(back.input_example)["predictions"][0][0]["mask_per_prediction"][0]["iou_score"]
    assert again == pytest.approx(scores[0], abs=1e-4)


def test_an_unknown_one_is_refused() -> None:
    with pytest.raises(ValueError, match="precision 'int4': expected one of float32, bfloat16, int8"):
        Segmenter.load(str(package.EMBEDDED), "cpu", "int4")
