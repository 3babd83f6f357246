"""Objects found by text with a detector beside SAM, in small models with random weights."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from mlflow.pyfunc import load_model
from PIL import Image

from sam_endpoint.model.budget import MemoryBudget, RequestLimits
from sam_endpoint.model.call import Call
from sam_endpoint.model.concepts import Concept, Thresholds
from sam_endpoint.model.concepts.detector import MAX_INSTANCES, load
from sam_endpoint.model.concepts.predict import find_instances
from sam_endpoint.model.embeddings import EmbeddingCache
from sam_endpoint.model.engine import Engine
from sam_endpoint.model.errors import BadRequest
from sam_endpoint.model.images import ImageReader, ImageRef
from sam_endpoint.model.images.reader import OpenedImage
from sam_endpoint.model.mlflow import package
from sam_endpoint.model.scorer import Scorer
from sam_endpoint.model.segmenter import Segmenter
from sam_endpoint.scoring.runtime import open_model
from tests import pictures
from tests.detectors import detr, grounding_dino, owl, rt_detr
from tests.engines import engine_of, score_rows, scorer_of

SaveDetector = Callable[[Path], None]
PIXELS = pictures.clutter(120, 160)


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module", params=[grounding_dino, owl, detr, rt_detr], ids=lambda save: str(save.__name__))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a detector of each kind and return its folder."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("detector")
    request.param(folder)
    return folder


class CountingReader(ImageReader):
    """A reader that counts how often images are decoded."""

    def __init__(self) -> None:
        super().__init__()
        self.decoded = 0

    def open(self, *args: Any, **options: Any) -> OpenedImage:
        image = super().open(*args, **options)

        def pixels(call: Any) -> np.ndarray:
            self.decoded += 1
            return original(call)

        original = image._decode
        return OpenedImage(image.key, pixels, image.memory_needed)


def test_a_text_request_decodes_the_image_once_and_segments_the_boxes_of_the_detector(
    folder: Path, sam_folder: Path
) -> None:
    segmenter = Segmenter.load(str(sam_folder), "cpu", detector=str(folder))
    reader = CountingReader()
    scorer = Scorer(Engine(segmenter, reader, EmbeddingCache(2**28)))
    row = {"image": png(), "input_text": '["cup", "Spoon", "plate"]'}
    (answer,) = score_rows(scorer, row, mask_encoding="rle", concept_thresh=0.0)
    assert reader.decoded == 1
    assert answer["predictions"]
    indices = [entry["concept_index"] for entry in answer["predictions"]]
    assert indices == sorted(indices)
    names = dict(enumerate(["cup", "Spoon", "plate"]))
    assert [entry["concept"] for entry in answer["predictions"]] == [names[index] for index in indices]
    for index in set(indices):
        scores = [
            entry["mask_per_prediction"][0]["iou_score"]
            for entry in answer["predictions"]
            if entry["concept_index"] == index
        ]
        assert scores == sorted(scores, reverse=True)
    # The embedding is cached now, so the image is decoded for the detector only.
    score_rows(scorer, row, mask_encoding="rle", concept_thresh=0.0)
    assert reader.decoded == 2


def test_a_box_of_the_detector_gives_the_mask_of_this_box_as_a_prompt(sam_folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    owl(tmp_path)
    segmenter = Segmenter.load(str(sam_folder), "cpu", detector=str(tmp_path))
    processor = transformers.AutoProcessor.from_pretrained(tmp_path)
    model = transformers.AutoModelForZeroShotObjectDetection.from_pretrained(tmp_path)
    with torch.inference_mode():
        output = model(**processor(images=[PIXELS], text=[["cup"]], return_tensors="pt"))
    (expected,) = processor.post_process_grounded_object_detection(
        output, threshold=0.0, target_sizes=[PIXELS.shape[:2]]
    )
    best = int(expected["scores"].argmax())
    scorer = scorer_of(segmenter)
    box = expected["boxes"][best].clamp(min=0).minimum(torch.tensor([160.0, 120, 160, 120])).tolist()
    rows: list[dict[str, Any]] = [
        {"image": png(), "input_text": "cup"},
        {"image": png(), "input_boxes": [box], "multimask_output": False},
    ]
    by_text, by_box = score_rows(scorer, *rows, mask_encoding="rle", concept_thresh=0.0)
    found, prompted = by_text["predictions"][0]["mask_per_prediction"][0], by_box["predictions"][0]
    assert found["iou_score"] == pytest.approx(float(expected["scores"][best]), abs=1e-5)
    assert found["encoded_binary_mask"] == prompted["mask_per_prediction"][0]["encoded_binary_mask"]


def test_the_answer_to_a_text_does_not_depend_on_other_texts(folder: Path, sam_folder: Path) -> None:
    scorer = scorer_of(Segmenter.load(str(sam_folder), "cpu", detector=str(folder)))
    names = ["cup", "spoon", "plate"]
    rows: list[dict[str, Any]] = [{"image": png(), "input_text": text} for text in (names, *names)]
    together, *alone = score_rows(scorer, *rows, mask_encoding="rle", concept_thresh=0.0)
    assert together["predictions"]
    assert [pictures.tolerant(entry["mask_per_prediction"][0]) for entry in together["predictions"]] == [
        pictures.tolerant(entry["mask_per_prediction"][0]) for answer in alone for entry in answer["predictions"]
    ]


def test_texts_that_a_detector_cannot_search_for_are_errors(sam_folder: Path, tmp_path: Path) -> None:
    expected = {
        grounding_dino: ("zzz", "a text with words that the detector's tokenizer knows, got unknown words"),
        owl: ("abcdefghijklmnopqrstuvw", "a text of at most 16 tokens, got 25 tokens"),
        detr: ("fork", "a class of the detector (cup, spoon, plate), got another text"),
    }
    for save, (text, message) in expected.items():
        folder = tmp_path / save.__name__
        save(folder)
        scorer = scorer_of(Segmenter.load(str(sam_folder), "cpu", detector=str(folder)))
        (answer,) = score_rows(scorer, {"image": png(), "input_text": text}, on_error="record")
        assert message in answer["error"]
        rows = [
            {"image": png(), "image_id": "seen", "input_boxes": [[10, 10, 50, 50]]},
            {"image": png(), "input_text": "cup", "input_exemplars": [[10, 10, 50, 50]]},
        ]
        _, both = score_rows(scorer, *rows, on_error="record", mask_encoding="rle")
        assert both["error"].startswith("row 1, column 'input_exemplars': expected either input_text or input_exempl")
        (by_id,) = score_rows(scorer, {"image_id": "seen", "input_text": "cup"}, on_error="record")
        assert "the image itself, because the detector of this model needs its pixels" in by_id["error"]


def test_a_model_with_a_detector_is_packaged_loaded_and_described(
    folder: Path, sam_folder: Path, tmp_path: Path
) -> None:
    kind = type(load(str(folder))).usual_threshold
    saved = package.save(sam_folder, tmp_path / "model", {"mask_encoding": "rle"}, detector=folder)
    loaded: Any = load_model(str(saved))
    assert loaded.metadata.metadata["capabilities"] == {
        "points": True,
        "boxes": True,
        "text": True,
        "exemplars": True,
        "video": False,
    }
    assert loaded.metadata.metadata["detector"] == folder.name
    row = {"image": png(), "input_text": '["cup", "spoon", "plate"]'}
    frame = pd.DataFrame([row])
    (by_mlflow,) = loaded.predict(frame, params={"concept_thresh": 0.0})["predictions"]
    opened = open_model(saved, "cpu")
    assert opened.defaults.read({}).concept_thresh == kind
    (by_engine,) = score_rows(Scorer(opened.engine), row, mask_encoding="rle", concept_thresh=0.0)
    assert by_mlflow and len(by_mlflow) == len(by_engine["predictions"])
    weights = saved / "artifacts" / "detector" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(Exception, match="differ from the packaged weights"):
        open_model(saved, "cpu")


def test_memory_for_the_masks_is_held_during_a_search(sam_folder: Path, tmp_path: Path) -> None:
    owl(tmp_path)
    engine = engine_of(Segmenter.load(str(sam_folder), "cpu", detector=str(tmp_path)))
    budget = MemoryBudget(2**30)
    call, concepts, thresholds = Call(memory=budget), [Concept("cup"), Concept("spoon")], Thresholds(score=0.0)
    with engine.embedded(ImageRef.content(png()), True, call) as image:
        pixels = budget.held
        held = [budget.held - pixels for _ in find_instances(engine, image, concepts, thresholds, call)]
        assert budget.held == pixels
    height, width = engine.low_res_size
    assert held and set(held) == {2 * MAX_INSTANCES * 4 * height * width}
    assert budget.held == 0
    small = Call(memory=MemoryBudget(held[0] - 1))
    with (
        engine.embedded(ImageRef.content(png()), True) as image,
        pytest.raises(
            BadRequest, match=f"needs at most {held[0] - 1:,} bytes of memory, got {held[0]:,}: send several"
        ),
    ):
        next(find_instances(engine, image, concepts, thresholds, small))


def test_a_limit_on_texts_counts_all_rows_before_any_work(sam_folder: Path, tmp_path: Path) -> None:
    owl(tmp_path)
    engine = engine_of(Segmenter.load(str(sam_folder), "cpu", detector=str(tmp_path)))
    scorer = Scorer(engine, RequestLimits(concepts=2))
    rows: list[dict[str, Any]] = [
        {"image": png(), "input_text": ["cup", "spoon"]},
        {"image": png(), "input_text": "cup"},
    ]
    with pytest.raises(BadRequest, match="expected at most 2 texts and other concepts in all rows of a request, got 3"):
        score_rows(scorer, *rows)
    assert (
        len(score_rows(scorer, rows[0], {"image": png(), "input_exemplars": [[10, 10, 50, 50]]}, points_per_side=2))
        == 2
    )


def test_checkpoints_that_are_no_detectors_are_errors(sam_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="or a detector with a fixed set of classes, got a 'sam'"):
        load(str(sam_folder))
    with pytest.raises(ValueError, match="no detector can be loaded from"):
        load(str(tmp_path / "none"))
