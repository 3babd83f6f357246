"""Masks and scores of this project, compared with transformers' processor, model and post_process_masks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import (
    EdgeTamModel,
    PreTrainedModel,
    Sam2Model,
    Sam3TrackerModel,
    SamHQModel,
    SamHQProcessor,
    SamModel,
    SamProcessor,
)

from sam_endpoint.model import families, images
from sam_endpoint.model.images import ImageLimits
from sam_endpoint.model.mlflow import package
from sam_endpoint.model.prompts import Prompt, parse_prompts
from sam_endpoint.model.segmenter import Segmenter, SegmentRequest
from tests import checkpoints, pictures
from tests.model.encodings import cache_encoder, cached_embedding

SIZES = [(16, 12), (10, 300), (300, 10), (64, 64), (163, 240), (1100, 1500), (1301, 700)]
MODES = ["L", "P", "RGBA", "CMYK", "1", "LA", "YCbCr"]

Reference = tuple[np.ndarray, np.ndarray]


def prompts_of(height: int, width: int) -> dict[str, dict[str, Any]]:
    """Return prompts of every kind, with coordinates for an image of this size."""
    x, y = width / 100, height / 100
    return {
        "one point": {"input_points": [[[30 * x, 40 * y]]]},
        "two prompts": {"input_points": [[[30 * x, 40 * y]], [[70 * x, 60 * y]]]},
        "several points": {"input_points": [[[30 * x, 40 * y], [60 * x, 20 * y]]], "input_labels": [[1, 0]]},
        "padding": {"input_points": [[[30 * x, 40 * y], [0, 0], [-10, -10]]], "input_labels": [[1, -1, -10]]},
        "one box": {"input_boxes": [[10 * x, 20 * y, 60 * x, 80 * y]]},
        "two boxes": {"input_boxes": [[10 * x, 20 * y, 60 * x, 80 * y], [40 * x, 10 * y, 95 * x, 50 * y]]},
        "boxes and points": {
            "input_boxes": [[10 * x, 20 * y, 60 * x, 80 * y], [40 * x, 10 * y, 95 * x, 50 * y]],
            "input_points": [[[30 * x, 40 * y]], [[70 * x, 60 * y]]],
            "input_labels": [[1], [0]],
        },
    }


@cache
def load_once(kind: Any, folder: Path) -> Any:
    """Load a model or processor with transformers. A model caches the outputs of its image encoder."""
    model_or_processor = kind.from_pretrained(folder)
    is_model = isinstance(model_or_processor, PreTrainedModel)
    return cache_encoder(model_or_processor) if is_model else model_or_processor


def sam_reference(
    classes: tuple[Any, Any],
    folder: Path,
    picture: Image.Image,
    prompt: dict[str, Any],
    multimask: bool,
    **options: Any,
) -> Reference:
    """Segment an image with transformers, as its users do, with the processor of SAM or SAM-HQ.

    Returns:
        Masks, (prompts, masks, height, width) bool, and scores, (prompts, masks).
    """
    # The processor reads preprocessor_config.json, so the tests also cover this file.
    processor, model = (load_once(kind, folder) for kind in classes)
    nested = {name: [value] for name, value in prompt.items()}
    inputs = processor(picture, **nested, return_tensors="pt")
    sizes = inputs.pop("original_sizes"), inputs.pop("reshaped_input_sizes")
    with torch.no_grad():
        inputs = {name: value.float() if value.is_floating_point() else value for name, value in inputs.items()}
        out = model(**inputs, multimask_output=multimask, **options)
    return processor.post_process_masks(out.pred_masks, *sizes)[0].numpy(), out.iou_scores[0].numpy()


def sam2_reference(
    classes: tuple[Any], folder: Path, picture: Image.Image, prompt: dict[str, Any], multimask: bool, **options: Any
) -> Reference:
    """Segment an image with transformers' SAM 2 or a related model.

    Does the work of the processors itself, because the processors need torchvision.

    Returns:
        Masks, (prompts, masks, height, width) bool, and scores, (prompts, masks).
    """
    model = load_once(classes[0], folder)
    side = model.config.prompt_encoder_config.image_size
    image = torch.from_numpy(np.asarray(picture.convert("RGB")).copy()).permute(2, 0, 1)[None]
    height, width = image.shape[-2:]
    pixels = F.interpolate(image, (side, side), mode="bilinear", antialias=True)
    half, imagenet = ([0.5] * 3, [0.5] * 3), ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    statistics = half if classes[0] is Sam3TrackerModel else imagenet
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in statistics)
    scale = torch.tensor([side / width, side / height])
    inputs: dict[str, Any] = {}
    if "input_points" in prompt:
        inputs["input_points"] = torch.tensor([prompt["input_points"]], dtype=torch.float32) * scale
        if "input_labels" in prompt:
            inputs["input_labels"] = torch.tensor([prompt["input_labels"]])
    if "input_boxes" in prompt:
        inputs["input_boxes"] = torch.tensor([prompt["input_boxes"]], dtype=torch.float32) * scale.repeat(2)
    with torch.no_grad():
        out = model((pixels.float() - mean * 255) / (std * 255), **inputs, multimask_output=multimask, **options)
    masks = F.interpolate(out.pred_masks[0], (height, width), mode="bilinear", align_corners=False) > 0
    return masks.numpy(), out.iou_scores[0].numpy()


REFERENCES = {
    "sam": partial(sam_reference, (SamProcessor, SamModel)),
    "sam_hq": partial(sam_reference, (SamHQProcessor, SamHQModel)),
    "sam2": partial(sam2_reference, (Sam2Model,)),
    "edgetam": partial(sam2_reference, (EdgeTamModel,)),
    "sam3_tracker": partial(sam2_reference, (Sam3TrackerModel,)),
    "sam3": partial(sam2_reference, (Sam3TrackerModel,)),
}


EMBEDDED = {"sam-tiny": package.EMBEDDED, "sam2-tiny": package.EMBEDDED_SAM2}
WITHOUT_PROMPTS = {"sam3", "sam3_lite_text"}  # checkpoints that take concepts only; see families/test_sam3.py


@pytest.fixture(
    scope="session", params=[*EMBEDDED, *(name for name in checkpoints.SAVERS if name not in WITHOUT_PROMPTS)]
)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Segmenter, Path, Any]:
    """Return a segmenter, a folder from which transformers loads the same checkpoint, and the reference function."""
    if request.param in EMBEDDED:
        source = EMBEDDED[request.param]
    else:
        source = checkpoints.SAVERS[request.param](tmp_path_factory.mktemp("random"))
    segmenter = Segmenter.load(str(source), "cpu")
    folder = tmp_path_factory.mktemp("resaved")
    families.save(segmenter.family, folder)
    return segmenter, folder, REFERENCES[segmenter.family.name]


def segment(segmenter: Segmenter, image: np.ndarray, prompts: Sequence[Prompt], multimask: bool) -> Reference:
    """Segment an image with this project. Returns masks and scores in the shapes of the reference functions."""
    answers = segmenter.segment(cached_embedding(segmenter, image), prompts, multimask)
    return np.stack([segmenter.masks(answer) for answer in answers]), np.stack([answer.scores for answer in answers])


def assert_same(ours: Reference, theirs: Reference) -> None:
    """Check that scores agree within 1e-3, and that each pair of masks has an IoU of at least 0.999."""
    assert ours[0].shape == theirs[0].shape and ours[1].shape == theirs[1].shape
    assert np.abs(ours[1] - theirs[1]).max() <= 1e-3
    for our, their in zip(
        ours[0].reshape(-1, *ours[0].shape[2:]), theirs[0].reshape(-1, *theirs[0].shape[2:]), strict=True
    ):
        assert pictures.iou(our, their) >= 0.999


def read_prompts(prompt: dict[str, Any]) -> list[Prompt]:
    """Parse prompts from a dict of columns."""
    return parse_prompts(prompt.get("input_points"), prompt.get("input_labels"), prompt.get("input_boxes"), None)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_agrees_for_images_of_every_size(subject: tuple[Segmenter, Path, Any], size: tuple[int, int]) -> None:
    segmenter, folder, reference = subject
    image = pictures.clutter(*size, seed=size[0])
    prompt = prompts_of(*size)["boxes and points"]
    ours = segment(segmenter, image, read_prompts(prompt), True)
    assert_same(ours, reference(folder, Image.fromarray(image), prompt, True))
    assert ours[0].any() and not ours[0].all()  # neither empty nor full


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("kind", list(prompts_of(1, 1)))
def test_agrees_for_prompts_of_every_kind(subject: tuple[Segmenter, Path, Any], kind: str, multimask: bool) -> None:
    segmenter, folder, reference = subject
    image = pictures.clutter(170, 233, seed=5)
    prompt = prompts_of(170, 233)[kind]
    ours = segment(segmenter, image, read_prompts(prompt), multimask)
    assert_same(ours, reference(folder, Image.fromarray(image), prompt, multimask))


@pytest.mark.parametrize("mode", MODES)
def test_agrees_for_images_of_every_mode(subject: tuple[Segmenter, Path, Any], mode: str) -> None:
    segmenter, folder, reference = subject
    picture = Image.fromarray(pictures.clutter(90, 140, seed=3)).convert(mode)
    image = images.decode(pictures.to_bytes(picture, "TIFF"), ImageLimits())
    prompt = prompts_of(90, 140)["one box"]
    assert_same(segment(segmenter, image, read_prompts(prompt), True), reference(folder, picture, prompt, True))


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("kind", ["one point", "one box", None], ids=str)
def test_agrees_for_mask_inputs(subject: tuple[Segmenter, Path, Any], kind: str | None, multimask: bool) -> None:
    segmenter, folder, reference = subject
    image = pictures.clutter(100, 150, seed=8)
    low_res = np.random.default_rng(0).normal(0, 3, segmenter.family.low_res_size).astype(np.float32)
    prompt = prompts_of(100, 150)[kind] if kind else {}
    prompts = parse_prompts(prompt.get("input_points"), None, prompt.get("input_boxes"), low_res)
    theirs = reference(
        folder, Image.fromarray(image), prompt, multimask, input_masks=torch.from_numpy(low_res)[None, None]
    )
    assert_same(segment(segmenter, image, prompts, multimask), theirs)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)], ids=str)
def test_segments_images_of_sizes_that_transformers_rejects(
    subject: tuple[Segmenter, Path, Any], size: tuple[int, int]
) -> None:
    segmenter, _, _ = subject
    masks, scores = segment(segmenter, pictures.clutter(*size), parse_prompts([[0.5, 0.5]], None, None, None), True)
    assert masks.shape == (1, 3, *size) and scores.shape == (1, 3) and np.isfinite(scores).all()


def test_results_do_not_depend_on_other_prompts_of_the_batch(subject: tuple[Segmenter, Path, Any]) -> None:
    segmenter, _, _ = subject
    embedding = segmenter.embed([pictures.clutter(120, 200)])[0]
    prompts = [
        *parse_prompts([[[20, 30]], [[50, 60], [70, 80]], [[90, 40]]], None, None, None),
        *parse_prompts(None, None, [[10, 10, 90, 90]], None),
    ]
    together = segmenter.segment(embedding, prompts)
    for actual, prompt in zip(together, prompts, strict=True):
        alone = segmenter.segment(embedding, [prompt])[0]
        assert torch.allclose(actual.logits, alone.logits, atol=1e-4)
        assert np.allclose(actual.scores, alone.scores, atol=1e-5)


def test_segment_many_returns_the_same_results_as_segment(subject: tuple[Segmenter, Path, Any]) -> None:
    segmenter, _, _ = subject
    embeddings = [segmenter.embed([pictures.clutter(*size, seed=size[0])])[0] for size in ((120, 200), (90, 70))]
    clicks = parse_prompts([[[20, 30]], [[50, 60]]], None, None, None)
    requests = [
        SegmentRequest(embeddings[0], clicks),
        SegmentRequest(embeddings[1], clicks[:1], multimask_output=False),
        SegmentRequest(embeddings[1], [*clicks, *parse_prompts(None, None, [[10, 10, 60, 60]], None)]),
        SegmentRequest(embeddings[0], []),
    ]
    for request, together in zip(requests, segmenter.segment_many(requests), strict=True):
        alone = segmenter.segment(request.embedding, request.prompts, request.multimask_output)
        assert len(together) == len(alone) == len(request.prompts)
        for actual, expected in zip(together, alone, strict=True):
            assert actual.size == expected.size and actual.logits.shape == expected.logits.shape
            assert torch.allclose(actual.logits, expected.logits, atol=1e-4)
            assert np.allclose(actual.scores, expected.scores, atol=1e-5)


def test_16_bit_grey_is_scaled_and_not_clipped() -> None:
    grey = pictures.clutter(60, 80)[..., 0]
    deep = Image.fromarray(grey.astype(np.uint16) * 256 + 128)
    decoded = images.decode(pictures.to_bytes(deep), ImageLimits())
    assert np.array_equal(decoded, np.repeat(grey[..., None], 3, axis=2))


def test_sam2_resizes_like_pillow_within_one_grey_level(sam2_folder: Path) -> None:
    family = families.load(str(sam2_folder))
    image = pictures.clutter(300, 517)
    side = family.input_size
    theirs = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)).astype(float)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (family.mean, family.std))
    ours = ((family.preprocess(image) * std + mean) * 255).permute(1, 2, 0).numpy()
    assert np.abs(ours - theirs).max() <= 1.001
