"""SAM 3: instances of concepts compared with transformers, and what one pass of the vision encoder serves."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.sam3.modeling_sam3 import Sam3ViTModel

from sam_endpoint.model import families
from sam_endpoint.model.call import UNTRACKED
from sam_endpoint.model.concepts import Concept, Instances, Thresholds
from sam_endpoint.model.embedded_image import EmbeddedImage
from sam_endpoint.model.embeddings import EmbeddingCache, Store
from sam_endpoint.model.engine import Engine
from sam_endpoint.model.errors import BadInput
from sam_endpoint.model.images import ImageReader, ImageRef
from sam_endpoint.model.mlflow import package
from sam_endpoint.model.prompts import Prompt
from sam_endpoint.model.saved import SavedModel
from sam_endpoint.model.scorer import Scorer
from sam_endpoint.model.segmenter import Segmentation, Segmenter
from tests import checkpoints, pictures
from tests.engines import score_rows
from tests.model.families import sam3_references
from tests.model.families.sam3_references import CONCEPTS, KINDS, SIZE

CLICK = Prompt(points=np.array([[30, 20]], np.float32), labels=np.array([1]))
TEXTS = [Concept(text) for text in ("cups", "spoon", "table", "order", "a spotted dog")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Save a checkpoint of each kind, and return the folders."""
    return {kind: checkpoints.SAVERS[kind](tmp_path_factory.mktemp(kind)) for kind in KINDS}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Return the name of a checkpoint."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def segmenter(kind: str, folders: dict[str, Path]) -> Segmenter:
    """Load the checkpoint of `kind`."""
    return Segmenter.load(str(folders[kind]), "cpu")


@pytest.fixture(scope="module")
def image(segmenter: Segmenter) -> EmbeddedImage:
    """Encode the image of the references with the checkpoint of `kind`."""
    return EmbeddedImage(segmenter.embed([sam3_references.picture()])[0], "image")


@pytest.fixture
def video(folders: dict[str, Path]) -> Segmenter:
    """Load a checkpoint with a detector and a tracker."""
    return Segmenter.load(str(folders["sam3_video"]), "cpu")


@cache
def references() -> dict[str, np.ndarray]:
    """Return the arrays that sam3_references.py wrote."""
    with np.load(sam3_references.FILE) as file:
        return dict(file)


def concept_of(index: int) -> Concept:
    """Return a concept of the references."""
    text, boxes, labels = CONCEPTS[index]
    return Concept(text, np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int32))


def find(segmenter: Segmenter, image: EmbeddedImage, concepts: list[Concept], score: float) -> list[Instances]:
    """Find concepts with the finder of the segmenter's model."""
    finder = segmenter.family.finder
    assert finder is not None
    return finder.find(segmenter, image, concepts, Thresholds(score), UNTRACKED)


def assert_same(segmenter: Segmenter, kind: str, index: int, instances: Instances) -> None:
    """Check that instances agree with those of transformers in the order of the scores."""
    theirs = {name: references()[f"{kind}/{index}/{name}"] for name in ("scores", "boxes", "masks")}
    order = np.argsort(-theirs["scores"])
    assert 2 < len(order) == len(instances.scores)
    assert np.abs(instances.scores.numpy() - theirs["scores"][order]).max() <= 1e-3
    assert np.abs(instances.boxes.numpy() - theirs["boxes"][order]).max() <= 0.05
    pixels = SIZE[0] * SIZE[1]
    expected = np.unpackbits(theirs["masks"][order], 1, count=pixels).reshape(-1, *SIZE).astype(bool)
    masks = segmenter.masks(Segmentation(instances.logits, instances.scores.numpy(), SIZE))
    assert all(pictures.iou(our, their) >= 0.999 for our, their in zip(masks, expected, strict=True))
    assert masks.any() and not masks.all()


def model_of(segmenter: Segmenter) -> Any:
    """Return the transformers model of a segmenter."""
    return segmenter.family.model


def calls_of(module: torch.nn.Module) -> list[int]:
    """Return a list that receives the batch size of each call of a module."""
    sizes: list[int] = []
    module.register_forward_hook(
        lambda _, inputs, options, output: sizes.append(len(output.last_hidden_state)), with_kwargs=True
    )
    return sizes


def test_the_references_are_of_the_same_weights_and_image(kind: str, folders: dict[str, Path]) -> None:
    assert str(references()[f"{kind}/digest"]) == sam3_references.digest(folders[kind])


@pytest.mark.parametrize("index", range(len(CONCEPTS)))
def test_finds_the_same_instances_as_transformers(
    segmenter: Segmenter, image: EmbeddedImage, kind: str, index: int
) -> None:
    threshold = float(references()[f"{kind}/{index}/threshold"])
    assert_same(segmenter, kind, index, find(segmenter, image, [concept_of(index)], threshold)[0])


def test_finds_several_concepts_as_it_finds_each_alone(segmenter: Segmenter, image: EmbeddedImage, kind: str) -> None:
    together = find(segmenter, image, [concept_of(index) for index in range(len(CONCEPTS))], 0.0)
    for index, instances in enumerate(together):
        found = instances.scores > float(references()[f"{kind}/{index}/threshold"])
        selected = Instances(instances.logits[found], instances.boxes[found], instances.scores[found])
        assert_same(segmenter, kind, index, selected)


def test_finds_nothing_where_no_score_exceeds_the_threshold(segmenter: Segmenter, image: EmbeddedImage) -> None:
    for instances in find(segmenter, image, [concept_of(0), concept_of(4)], 0.99):
        assert instances.logits.shape == (0, *segmenter.family.low_res_size)
        assert instances.boxes.shape == (0, 4) and instances.scores.shape == (0,)


def test_the_fast_vision_transformer_agrees_with_that_of_transformers(video: Segmenter) -> None:
    fast = video.family.vision_encoder.backbone
    plain = Sam3ViTModel(fast.config).eval()
    plain.load_state_dict(fast.state_dict())
    pixels = torch.randn(2, 3, 252, 252, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, actual = (model(pixels).last_hidden_state for model in (plain, fast))
    assert not torch.equal(actual, expected)  # the fast path ran
    assert torch.allclose(actual, expected, rtol=1e-4, atol=1e-5)
    with torch.enable_grad():
        assert torch.equal(fast(pixels).last_hidden_state, plain(pixels).last_hidden_state)


def test_five_texts_and_two_clicks_need_one_encoding(video: Segmenter) -> None:
    encodings = calls_of(video.family.vision_encoder.backbone)
    engine = Engine(video, ImageReader(), EmbeddingCache(2**28))
    content = pictures.to_bytes(Image.fromarray(sam3_references.picture()))
    embedded = engine.embed(ImageRef.content(content))
    found = find(video, embedded, TEXTS, 0.0)
    for _ in range(2):
        again = engine.embed(ImageRef.content(content))
        (clicked,) = engine.segment(again, [replace(CLICK, mask=found[0].logits[0].numpy())])
        assert engine.masks(clicked).shape == (3, *SIZE)
    assert len(found) == 5 and encodings == [1]


def test_a_table_of_texts_examples_and_clicks_on_one_image_needs_one_encoding(video: Segmenter) -> None:
    encodings = calls_of(video.family.vision_encoder.backbone)
    scorer = Scorer(Engine(video, ImageReader(), EmbeddingCache(2**28)))
    content = pictures.to_bytes(Image.fromarray(sam3_references.picture()))
    texts = [str(concept.text) for concept in TEXTS]
    rows = [
        {"image": content, "input_text": json.dumps(texts)},
        {"image": content, "input_exemplars": [sam3_references.LARGE_BOX]},
        {"image": content, "input_points": [[30, 20]]},
        {"image": content, "input_boxes": [[10, 10, 50, 40]]},
    ]
    by_text, by_example, *by_prompt = score_rows(scorer, *rows, mask_encoding="rle", concept_thresh=0.0)
    assert encodings == [1]
    assert [entry["concept"] for entry in by_text["predictions"]] == [text for text in texts for _ in range(20)]
    assert len(by_example["predictions"]) == 20 and {entry["concept"] for entry in by_example["predictions"]} == {None}
    assert [len(answer["predictions"]) for answer in by_prompt] == [1, 1]


@pytest.mark.parametrize("name", ["sam3", "sam3_video"])
def test_the_capabilities_of_a_checkpoint(name: str, folders: dict[str, Path]) -> None:
    engine = Engine(Segmenter.load(str(folders[name]), "cpu"), ImageReader(), EmbeddingCache(2**28))
    prompts = name == "sam3_video"
    assert (
        engine.concepts.capabilities.items()
        >= {
            "points": prompts,
            "boxes": prompts,
            "text": True,
            "exemplars": True,
        }.items()
    )


def test_a_text_is_encoded_once(video: Segmenter) -> None:
    encodings = calls_of(model_of(video).detector_model.text_encoder)
    embedded = EmbeddedImage(video.embed([sam3_references.picture()])[0], "image")
    first = find(video, embedded, TEXTS[:3], 0.0)
    second = find(video, embedded, [*TEXTS[:2], TEXTS[3]], 0.0)
    assert encodings == [3, 1]
    assert torch.equal(first[0].scores, second[0].scores)


def test_rejects_a_text_of_too_many_tokens(video: Segmenter) -> None:
    embedded = EmbeddedImage(video.embed([sam3_references.picture()])[0], "image")
    with pytest.raises(BadInput) as caught:
        find(video, embedded, [Concept("cups"), Concept("z" * 40)], 0.0)
    message = "column 'input_text': expected a text of at most 32 tokens (a noun phrase of up to about 20 words), got "
    assert str(caught.value) == message + "42 tokens"


@pytest.mark.parametrize("name", ["sam3", "sam3_lite_text"])
def test_a_checkpoint_without_a_tracker_names_one_that_takes_points_and_boxes(
    name: str, folders: dict[str, Path]
) -> None:
    segmenter = Segmenter.load(str(folders[name]), "cpu")
    embedding = segmenter.embed([sam3_references.picture()])[0]
    for column, prompt in (("input_points", CLICK), ("input_boxes", Prompt(box=np.array([1, 2, 30, 40], np.float32)))):
        with pytest.raises(BadInput, match=rf"column '{column}'.*package.*facebook/sam3.*detector only"):
            segmenter.segment(embedding, [prompt])


def test_a_checkpoint_without_a_tokenizer_is_rejected(folders: dict[str, Path], tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folders["sam3"] / name).read_bytes())
    with pytest.raises(ValueError, match="has no tokenizer, which SAM 3 needs for texts: copy"):
        families.load(str(tmp_path))


def test_a_saved_checkpoint_holds_the_files_of_transformers_processor(
    segmenter: Segmenter, image: EmbeddedImage, tmp_path: Path
) -> None:
    families.save(segmenter.family, tmp_path)
    written: dict[str, Any] = json.loads((tmp_path / "preprocessor_config.json").read_text())
    processor = written.pop("processor_class")
    assert written == {name: value for name, value in sam3_references.PROCESSING.items() if name != "processor_class"}
    assert processor in {"Sam3Processor", "Sam3VideoProcessor"}
    again = Segmenter.load(str(tmp_path), "cpu")
    assert again.family.fingerprint() == segmenter.family.fingerprint()
    (before,), (after,) = (find(model, image, [concept_of(5)], 0.0) for model in (segmenter, again))
    # The addresses of the weights in memory decide how some processors add, so the last bits can differ.
    torch.testing.assert_close(after.scores, before.scores, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(after.logits, before.logits, rtol=1e-5, atol=1e-5)


def test_the_encoder_fingerprint_covers_both_necks_and_no_decoder(video: Segmenter) -> None:
    family: Any = video.family
    before = family.encoder_fingerprint()
    with torch.no_grad():
        for weight in (
            family.detector.mask_decoder.instance_projection.weight,
            family.detector.text_projection.weight,
            family.model.tracker_model.mask_decoder.iou_token.weight,
        ):
            weight += 1
        assert family.encoder_fingerprint() == before
        for weight in (
            family.vision_encoder.neck.fpn_layers[0].proj1.weight,
            family.model.tracker_neck.fpn_layers[1].proj2.weight,
            family.model.tracker_model.mask_decoder.conv_s0.weight,
        ):
            weight += 1
            assert family.encoder_fingerprint() != before
            weight -= 1


def test_an_embedding_store_holds_the_maps_of_both_necks(video: Segmenter, tmp_path: Path) -> None:
    encodings = calls_of(video.family.vision_encoder.backbone)
    content = pictures.to_bytes(Image.fromarray(sam3_references.picture()))
    scores = []
    for _ in range(2):
        store = Store(str(tmp_path))
        engine = Engine(video, ImageReader(), EmbeddingCache(2**28, store))
        embedded = engine.embed(ImageRef.content(content))
        store.flush()
        scores.append(find(video, embedded, [concept_of(5)], 0.0)[0].scores)
    assert encodings == [1] and torch.equal(*scores)


def test_a_packaged_sam3_finds_concepts_without_the_folder_that_it_was_packaged_from(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    source = shutil.copytree(folders["sam3_video"], tmp_path / "source")
    saved = package.save(source, tmp_path / "model")
    shutil.rmtree(source)
    engine, _ = SavedModel.read(saved).open()
    embedded = engine.embed(ImageRef.content(pictures.to_bytes(Image.fromarray(sam3_references.picture()))))
    threshold = float(references()["sam3_video/5/threshold"])
    (instances,) = find(engine.segmenter, embedded, [concept_of(5)], threshold)
    assert_same(engine.segmenter, "sam3_video", 5, instances)
    (clicked,) = engine.segment(embedded, [CLICK])
    assert engine.masks(clicked).shape == (3, *SIZE)
