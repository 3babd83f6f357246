"""The CPU's own ways through encoder and decoder give what transformers' modules give."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import Sam2HieraDetConfig, Sam2MaskDecoderConfig, SamMaskDecoderConfig, SamVisionConfig
from transformers.models.sam.modeling_sam import SamMaskDecoder, SamVisionEncoder
from transformers.models.sam2.modeling_sam2 import Sam2HieraDetModel, Sam2MaskDecoder

from model.families import decoder, hiera, vit


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


def drawn(module: Any) -> Any:
    """A module with weights that all matter."""
    for name, weight in module.named_parameters():
        nn.init.normal_(weight, 1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.1)
    return module.eval()


def error(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("use_rel_pos", [True, False])
@pytest.mark.parametrize("image_size", [640, 560])  # 40 tokens a side: more than a block of rows; 35: padded windows
def test_encoder(use_rel_pos: bool, image_size: int) -> None:
    config = SamVisionConfig(
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=3,
        mlp_dim=96,
        image_size=image_size,
        window_size=14,
        global_attn_indexes=[1],
        use_rel_pos=use_rel_pos,
        output_channels=32,
    )
    config._attn_implementation = "eager"
    encoder = drawn(SamVisionEncoder(config))
    images = torch.randn(2, 3, image_size, image_size)
    expected = encoder(images).last_hidden_state
    vit.swap(encoder)
    assert error(encoder(images).last_hidden_state, expected) < 1e-5


@pytest.mark.parametrize(
    ("image_size", "windows"),
    [
        (640, [8, 4, 14, 7]),  # 160 to 20 tokens a side
        (256, [8, 4, 14, 7]),  # 64 to 8: windows are padded
        (128, [8, 4, 14, 7]),  # 32 to 4
        (640, [8, 8, 8, 8]),
        (256, [8, 4, 7, 4]),  # odd windows, which pooling cuts
    ],
)
def test_hiera(image_size: int, windows: list[int]) -> None:
    config = Sam2HieraDetConfig(
        hidden_size=16,
        num_attention_heads=1,
        image_size=[image_size, image_size],
        blocks_per_stage=[1, 2, 4, 2],
        embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=windows,
        global_attention_blocks=[4],
    )
    config._attn_implementation = "eager"
    encoder = drawn(Sam2HieraDetModel(config))
    images = torch.randn(2, 3, image_size, image_size)
    expected = encoder(images).intermediate_hidden_states
    hiera.swap(encoder)
    found = encoder(images).intermediate_hidden_states
    assert [part.shape for part in found] == [part.shape for part in expected]
    assert all(error(*pair) < 1e-5 for pair in zip(found, expected, strict=True))


def prompts(count: int, tokens: int, images: int, mask: bool) -> tuple[Tensor, ...]:
    """Image features, positions, sparse and dense prompts; side 32, 64 channels."""
    features = torch.randn(images, 64, 32, 32)
    image = features.expand(count, -1, -1, -1) if images == 1 else features
    dense = torch.randn(count if mask else 1, 64, 32, 32).expand(count, -1, -1, -1)
    return image, torch.randn(1, 64, 32, 32), torch.randn(count, 1, tokens, 64), dense


@pytest.mark.parametrize("multimask_output", [True, False])
@pytest.mark.parametrize(
    ("count", "tokens", "images", "mask"),
    [
        (3, 2, 1, False),
        (1, 3, 1, False),
        (3, 2, 1, True),
        (2, 4, 2, False),
        (2, 30, 1, False),
    ],
)
@pytest.mark.parametrize("family", ["sam", "sam2", "dynamic"])
def test_decoder(family: str, count: int, tokens: int, images: int, mask: bool, multimask_output: bool) -> None:
    size = {"hidden_size": 64, "mlp_dim": 96, "num_attention_heads": 4, "iou_head_hidden_dim": 32}
    image, positions, sparse, dense = prompts(count, tokens, images, mask)
    fine: tuple[Tensor, ...] = ()
    if family == "sam":
        config = SamMaskDecoderConfig(**size)
        config._attn_implementation = "eager"
        module = drawn(SamMaskDecoder(config))
        expected = module(image, positions.expand_as(image), sparse, dense, multimask_output)
    else:
        stable = {"dynamic_multimask_via_stability": family == "dynamic", "dynamic_multimask_stability_thresh": 0.5}
        config = Sam2MaskDecoderConfig(**size, **stable)
        config._attn_implementation = "eager"
        module = drawn(Sam2MaskDecoder(config))
        fine = tuple(
            torch.randn(images, 64 // part, side, side).expand(count, -1, -1, -1) for part, side in ((8, 128), (4, 64))
        )
        expected = module(image, positions.expand_as(image), sparse, dense, multimask_output, list(fine))
    logits, scores = decoder.masks(module, image, positions, sparse, dense, multimask_output, fine)
    assert error(logits, expected[0][:, 0]) < 1e-4
    assert error(scores, expected[1][:, 0]) < 1e-4


def test_the_callers_features_stay_as_they_are() -> None:
    config = SamMaskDecoderConfig(hidden_size=64, mlp_dim=96, num_attention_heads=4)
    config._attn_implementation = "eager"
    image, positions, sparse, dense = prompts(2, 2, 2, False)
    before = image.clone(), dense.clone(), positions.clone()
    decoder.masks(drawn(SamMaskDecoder(config)), image, positions, sparse, dense, True)
    assert all(torch.equal(*pair) for pair in zip(before, (image, dense, positions), strict=True))
