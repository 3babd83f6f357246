"""Encoders of lower precision: their masks, their fingerprints, and the setting."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pytest

from sam_endpoint.model import images
from sam_endpoint.model.images import ImageLimits
from sam_endpoint.model.mlflow import package
from sam_endpoint.model.prompts import Prompt
from sam_endpoint.model.segmenter import Segmenter
from tests import pictures


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
@pytest.mark.parametrize("checkpoint", [package.EMBEDDED, package.EMBEDDED_SAM2], ids=lambda folder: folder.name)
def test_masks_of_lower_precision_are_close_to_exact_masks(
    checkpoint: Path, precision: str, disc: tuple[bytes, np.ndarray]
) -> None:
    exact = Segmenter.load(str(checkpoint), "cpu")
    quantized = Segmenter.load(str(checkpoint), "cpu", precision)
    image = images.decode(disc[0], ImageLimits())
    prompt = Prompt(box=np.array([68, 38, 153, 123], np.float32))
    expected, actual = (segmenter.embed([image])[0] for segmenter in (exact, quantized))
    difference = (expected.features[-1] - actual.features[-1]).norm() / expected.features[-1].norm()
    assert 1e-5 < difference < 0.1  # neither exact nor far off
    masks = [s.masks(s.segment(e, [prompt], False)[0])[0] for s, e in ((exact, expected), (quantized, actual))]
    assert pictures.iou(*masks) > 0.97 and pictures.iou(masks[1], disc[1]) > 0.8
    # Different fingerprints prevent the cache from returning the embedding of one model for the other.
    assert exact.family.fingerprint() != quantized.family.fingerprint()


def test_precision_is_a_setting_of_the_model(packaged: Path, tmp_path: Path) -> None:
    quantized = package.save(package.EMBEDDED, tmp_path / "model", {"precision": "bfloat16"})
    models = [mlflow.pyfunc.load_model(str(folder)) for folder in (packaged, quantized)]
    scores = [
        model.predict(model.input_example)["predictions"][0][0]["mask_per_prediction"][0]["iou_score"]
        for model in models
    ]
    assert scores[0] != scores[1] and scores[0] == pytest.approx(scores[1], abs=0.05)
    restored = mlflow.pyfunc.load_model(str(quantized), model_config={"precision": "float32"})
    score = restored.predict(restored.input_example)["predictions"][0][0]["mask_per_prediction"][0]["iou_score"]
    assert score == pytest.approx(scores[0], abs=1e-4)


def test_rejects_an_unknown_precision() -> None:
    with pytest.raises(ValueError, match="precision 'int4': expected one of float32, bfloat16, int8"):
        Segmenter.load(str(package.EMBEDDED), "cpu", "int4")
