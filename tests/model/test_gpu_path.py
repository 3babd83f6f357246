"""The code for GPUs, run on a CPU: preprocessing, half precision, compiled encoders, masks, and the two-tier cache."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from unittest.mock import PropertyMock, patch

import numpy as np
import pytest
import torch

from sam_endpoint.model import families, masks
from sam_endpoint.model.device_masks import encode_masks
from sam_endpoint.model.embeddings.tiers import TwoTiers
from sam_endpoint.model.families.family import Family
from sam_endpoint.model.image_encoder import ImageEncoder
from sam_endpoint.model.mlflow import package
from sam_endpoint.model.precision import compute_in
from sam_endpoint.model.prompts import Prompt
from sam_endpoint.model.segmenter import Embedding, Segmenter
from sam_endpoint.model.shared_lru import SharedLRU
from sam_endpoint.model.upscaling import upscale_masks
from tests import checkpoints, pictures
from tests.engines import score_rows, scorer_of
from tests.model.test_upscaling import draw_logits, steps

KINDS = ["disc", "corner", "far corner", "two", "noise", "all", "none", "one", "beyond the image"]
SIZES = [(480, 640), (640, 333), (1, 1), (1, 300), (300, 1), (31, 17)]
FAMILIES = ["sam", "sam2", "sam2_video", "sam_hq", "edgetam", "sam3_tracker"]


@pytest.fixture
def as_on_gpu() -> Iterator[None]:
    """Let all models use the code for GPUs. Fast layers are not included: they look at the device of their input."""
    with patch.object(Family, "on_gpu", PropertyMock(return_value=True)):
        yield


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_masks_and_stability_equal_those_of_the_code_for_cpus(size: tuple[int, int], padded: bool) -> None:
    logits = torch.stack([draw_logits(kind) for kind in KINDS])
    found = list(encode_masks(logits, steps(size, padded), offset=1.0))
    for own, (mask, stability) in zip(logits.numpy(), found, strict=True):
        larger, expected, smaller = upscale_masks(own, steps(size, padded), (-1.0, 0.0, 1.0))
        assert (mask.whole() != expected.whole()).mean() <= 0.0001
        assert masks.from_rle(masks.to_rle(mask)).tolist() == mask.whole().tolist()
        assert mask.box().tolist() == masks.CroppedMask(mask.whole(), 0, 0, size).box().tolist()
        assert stability == pytest.approx(smaller.inside.sum() / max(1, larger.inside.sum()), abs=0.01)


def test_many_masks_are_encoded_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.stack([draw_logits(kind) for kind in KINDS])
    whole = [mask.rle for mask, _ in encode_masks(logits, steps((480, 640), True))]
    monkeypatch.setattr("sam_endpoint.model.device_masks.CHUNK", 2 * 480 * 640)
    assert [mask.rle for mask, _ in encode_masks(logits, steps((480, 640), True))] == whole


def test_an_encoded_mask_can_be_placed_in_a_larger_image() -> None:
    mask = masks.EncodedMask(masks.to_rle(np.array([[0, 1], [1, 1]], bool)))
    assert mask.within(0, 0, (2, 2)) is mask
    assert np.argwhere(mask.within(1, 2, (4, 5)).whole()).tolist() == [[1, 3], [2, 2], [2, 3]]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("size", [(80, 120), (700, 333), (1, 9)])
def test_preprocessing_on_the_device_differs_by_one_level_and_rarely_by_two(
    name: str, size: tuple[int, int], tmp_path: Path
) -> None:
    family = families.load(str(checkpoints.SAVERS[name](tmp_path)))
    image = pictures.clutter(*size)
    difference = (family.preprocess_on_device(image) - family.preprocess(image)).abs()
    levels = (255 * difference * torch.tensor(family.std)[:, None, None]).round()
    assert levels.max() <= 2 and (levels == 2).float().mean() < 0.0005 and (levels > 0).float().mean() < 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", FAMILIES)
def test_an_encoder_in_half_precision_returns_nearly_the_same(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    family = families.load(str(checkpoints.SAVERS[name](tmp_path)))
    half = copy.deepcopy(family)
    compute_in(half.vision_encoder, dtype)
    assert {weight.dtype for weight in half.vision_encoder.parameters()} == {dtype}
    pixels = family.preprocess(pictures.clutter(80, 120))[None]
    for encoder in (family, half):  # the layers of a GPU, because those of a CPU compute in float32 only
        layers = [layer for layer in encoder.vision_encoder.modules() if hasattr(layer, "device_forward")]
        for layer in layers:
            layer.fast_forward = layer.device_forward
    with torch.inference_mode():
        for expected, actual in zip(family.embed(pixels), half.embed(pixels), strict=True):
            assert actual.dtype == torch.float32
            assert 1e-6 < (actual - expected).norm() / expected.norm() < 0.05


def test_a_table_gets_the_same_masks_as_on_a_cpu(as_on_gpu: None, disc: tuple[bytes, np.ndarray]) -> None:
    row = {"image": disc[0], "input_boxes": "[[68, 38, 153, 123], [10, 10, 60, 60]]"}
    on_gpu = score_rows(scorer_of(Segmenter.load(str(package.EMBEDDED), "cpu")), row, mask_encoding="rle")
    with patch.object(Family, "on_gpu", PropertyMock(return_value=False)):
        on_cpu = score_rows(scorer_of(Segmenter.load(str(package.EMBEDDED), "cpu")), row, mask_encoding="rle")
    pairs = [
        (first, second)
        for one, other in zip(on_gpu[0]["predictions"], on_cpu[0]["predictions"], strict=True)
        for first, second in zip(one["mask_per_prediction"], other["mask_per_prediction"], strict=True)
    ]
    assert len(pairs) == 6
    for first, second in pairs:
        both = [masks.decode(mask["encoded_binary_mask"], "rle", mask["size"]) for mask in (first, second)]
        assert pictures.iou(*both) > 0.98 and first["iou_score"] == pytest.approx(second["iou_score"], abs=0.01)


def test_everything_finds_the_same_objects_as_on_a_cpu(as_on_gpu: None, disc: tuple[bytes, np.ndarray]) -> None:
    params = {"points_per_side": 8, "crop_n_layers": 1}
    row = {"image": disc[0]}
    on_gpu = score_rows(scorer_of(Segmenter.load(str(package.EMBEDDED), "cpu")), row, **params)
    with patch.object(Family, "on_gpu", PropertyMock(return_value=False)):
        on_cpu = score_rows(scorer_of(Segmenter.load(str(package.EMBEDDED), "cpu")), row, **params)
    areas = [
        [m["area"] for p in found[0]["predictions"] for m in p["mask_per_prediction"]] for found in (on_gpu, on_cpu)
    ]
    assert len(areas[0]) > 0 and areas[0] == pytest.approx(areas[1], rel=0.05)


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # torch's compiler uses it itself
def test_a_compiled_encoder_returns_the_same(tmp_path: Path) -> None:
    family = families.load(str(checkpoints.SAVERS["sam"](tmp_path)))
    images = [pictures.clutter(40 + 10 * i, 60) for i in range(5)]
    plain = ImageEncoder(family, "sam", images_per_batch=4)
    torch._dynamo.reset()
    # Without inductor, torch's code generator, which takes minutes. torch still traces the encoder once per shape.
    compiler = partial(torch.compile, dynamic=False, backend="eager")
    compiled = ImageEncoder(family, "sam", images_per_batch=4, compiler=compiler)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    # Batches of one, of two and of four images.
    results = [[*e.embed(images[:1]), *e.embed(images[:2]), *e.embed(images)] for e in (plain, compiled)]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before  # no request waits for the compiler
    for expected, actual in zip(*results, strict=True):
        assert actual.size == expected.size
        assert actual.features[0].numpy() == pytest.approx(expected.features[0].numpy(), abs=1e-4)


def embedding(number: int) -> Embedding:
    """Return an embedding of 16 bytes that contains a number."""
    return Embedding((torch.full((1, 1, 2, 2), float(number)),), (8, 8), "a model")


def test_embeddings_move_to_the_host_and_back() -> None:
    host: SharedLRU[Embedding] = SharedLRU(32, lambda value: value.nbytes)
    cache = TwoTiers(32, host, "cpu")
    for number in range(5):
        cache.put("tenant", str(number), embedding(number))
    assert cache.size == 64 and host.size == 32  # 3 and 4 on the device, 1 and 2 on the host
    assert cache.get("tenant", "0") is None
    found = cache.get("tenant", "1")
    assert found is not None and found.features[0].tolist() == embedding(1).features[0].tolist()
    assert host.get("tenant", "1") is None and host.get("tenant", "3") is not None  # 1 has taken the place of 3
    assert cache.size == 64


def test_an_embedding_larger_than_the_device_stays_on_the_host() -> None:
    host: SharedLRU[Embedding] = SharedLRU(64, lambda value: value.nbytes)
    cache = TwoTiers(8, host, "cpu")
    cache.put("tenant", "a", embedding(1))
    assert host.size == 16 and cache.get("tenant", "a") is not None and host.size == 16


def test_prompts_are_decoded_in_large_batches_without_threads(as_on_gpu: None) -> None:
    segmenter = Segmenter.load(str(package.EMBEDDED), "cpu")
    assert segmenter.images_per_batch == 8 and segmenter.prompts_per_batch == 64
    (image,) = segmenter.embed([pictures.clutter(80, 120)])
    prompts = [Prompt(box=np.array([5, 5, 20 + i, 60], np.float32)) for i in range(70)]
    results = segmenter.segment(image, prompts)
    assert len(results) == 70 and all(math.isfinite(result.scores.sum()) for result in results)
