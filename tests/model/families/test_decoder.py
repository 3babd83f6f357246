"""The fast mask decoder, compared with transformers' mask decoders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Sam2MaskDecoderConfig, SamMaskDecoderConfig
from transformers.models.sam.modeling_sam import SamMaskDecoder
from transformers.models.sam2.modeling_sam2 import Sam2MaskDecoder

from sam_endpoint.model.families import decoder, load
from tests.model.families.numerics import error, with_random_weights

DECODER_SIZES: dict[str, Any] = {"hidden_size": 64, "mlp_dim": 96, "num_attention_heads": 4, "iou_head_hidden_dim": 32}


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    """Run every test without gradients and with the same seed."""
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


def sam_decoder() -> Any:
    """Return transformers' mask decoder of SAM with random weights."""
    config = SamMaskDecoderConfig(**DECODER_SIZES)
    config._attn_implementation = "eager"
    return with_random_weights(SamMaskDecoder(config))


def prompts(count: int, tokens: int, images: int, mask: bool) -> tuple[Tensor, ...]:
    """Return random image features, positions, sparse prompts and dense prompts: 32 tokens a side, 64 channels."""
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
        (1, 1, 1, True),
        (3, 2, 1, True),
        (2, 4, 2, False),
        (2, 30, 1, False),
    ],
)
@pytest.mark.parametrize("family", ["sam", "sam2", "dynamic"])
def test_logits_and_scores_equal_those_of_transformers(
    family: str, count: int, tokens: int, images: int, mask: bool, multimask_output: bool
) -> None:
    image, positions, sparse, dense = prompts(count, tokens, images, mask)
    high_resolution: tuple[Tensor, ...] = ()
    if family == "sam":
        module = sam_decoder()
        expected = module(image, positions.expand_as(image), sparse, dense, multimask_output)
    else:
        stable: dict[str, Any] = {
            "dynamic_multimask_via_stability": family == "dynamic",
            "dynamic_multimask_stability_thresh": 0.5,
        }
        config = Sam2MaskDecoderConfig(**DECODER_SIZES, **stable)
        config._attn_implementation = "eager"
        module = with_random_weights(Sam2MaskDecoder(config))
        high_resolution = tuple(
            torch.randn(images, 64 // part, side, side).expand(count, -1, -1, -1) for part, side in ((8, 128), (4, 64))
        )
        expected = module(image, positions.expand_as(image), sparse, dense, multimask_output, list(high_resolution))
    logits, scores = decoder.predict_masks(module, image, positions, sparse, dense, multimask_output, high_resolution)
    assert error(logits, expected[0][:, 0]) < 1e-4
    assert error(scores, expected[1][:, 0]) < 1e-4


def test_positions_follow_changed_weights(sam_folder: Path) -> None:
    with torch.inference_mode(False):
        family = load(str(sam_folder), "cpu")
    before = family.image_positions()
    assert family.image_positions() is before
    weights = family.prompt_model.shared_image_embedding.positional_embedding
    with torch.inference_mode(False), torch.no_grad():
        weights.mul_(2)
    after = family.image_positions()
    assert torch.equal(after, family.prompt_model.get_image_wide_positional_embeddings())
    assert not torch.equal(after, before)


def test_transformers_decoder_runs_with_gradients_or_off_the_cpu() -> None:
    with torch.inference_mode(False), torch.enable_grad():
        module, (image, positions, sparse, dense) = sam_decoder(), prompts(3, 2, 1, True)
        expected = module(image, positions.expand_as(image), sparse, dense, True)
        logits, scores = decoder.predict_masks(module, image, positions, sparse, dense, True)
        assert torch.equal(logits, expected[0][:, 0]) and torch.equal(scores, expected[1][:, 0])
        logits.sum().backward()
        assert module.mask_tokens.weight.grad is not None
        calls: list[torch.device] = []
        module.register_forward_hook(lambda _, __, outputs: calls.append(outputs[0].device))
        with torch.no_grad():
            decoder.predict_masks(module, image, positions, sparse, dense, True)
            assert calls == []
            module.to("meta")
            image, positions, sparse, dense = (maps.to("meta") for maps in (image, positions, sparse, dense))
            decoder.predict_masks(module, image, positions, sparse, dense, True)
            assert calls == [torch.device("meta")]


def test_does_not_change_the_callers_features() -> None:
    image, positions, sparse, dense = prompts(2, 2, 2, False)
    before = image.clone(), dense.clone(), positions.clone()
    decoder.predict_masks(sam_decoder(), image, positions, sparse, dense, True)
    assert all(torch.equal(*pair) for pair in zip(before, (image, dense, positions), strict=True))
