"""The fast layers of image encoders: they return the same as transformers' layers, and replace them without patches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from transformers import Sam2HieraDetConfig, SamHQVisionConfig, SamVisionConfig
from transformers.models.sam.modeling_sam import SamVisionEncoder, SamVisionLayer
from transformers.models.sam2.modeling_sam2 import Sam2HieraDetModel, Sam2MultiScaleBlock
from transformers.models.sam_hq.modeling_sam_hq import SamHQVisionEncoder, SamHQVisionLayer

from sam_endpoint.model import families
from sam_endpoint.model.families import hiera, linear, vit
from sam_endpoint.model.families.fast_layer import FastLayer
from sam_endpoint.model.families.sam2 import ZeroPositionEncoding
from sam_endpoint.model.precision import Bfloat16, Int8, quantize_encoder
from tests import checkpoints
from tests.model.families.numerics import error, with_random_weights


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    """Run every test without gradients and with the same seed."""
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


def sam_encoder(use_rel_pos: bool = True, image_size: int = 224, hq: bool = False) -> Any:
    """Return a small image encoder of SAM or SAM-HQ with random weights."""
    sizes: dict[str, Any] = {
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "mlp_dim": 96,
        "image_size": image_size,
        "window_size": 14,
        "global_attn_indexes": [1],
        "use_rel_pos": use_rel_pos,
        "output_channels": 32,
    }
    config: Any = SamHQVisionConfig(**sizes) if hq else SamVisionConfig(**sizes)
    config._attn_implementation = "eager"
    return with_random_weights(SamHQVisionEncoder(config) if hq else SamVisionEncoder(config))


def hiera_backbone(image_size: int = 128, windows: tuple[int, ...] = (8, 4, 14, 7)) -> Any:
    """Return a small image encoder of SAM 2 with random weights, without its neck."""
    config = Sam2HieraDetConfig(
        hidden_size=16,
        num_attention_heads=1,
        image_size=[image_size, image_size],
        blocks_per_stage=[1, 2, 4, 2],
        embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=list(windows),
        global_attention_blocks=[4],
    )
    config._attn_implementation = "eager"
    return with_random_weights(Sam2HieraDetModel(config))


@pytest.mark.parametrize("use_rel_pos", [True, False])
# 640 pixels are 40 tokens, more than a block of rows. 560 pixels are 35 tokens, so that windows are padded.
@pytest.mark.parametrize("image_size", [640, 560])
@pytest.mark.parametrize("library", ["MKL", "oneDNN"])
def test_a_sam_encoder_returns_the_same_with_fast_layers(
    use_rel_pos: bool, image_size: int, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "_onednn", linear.ONEDNN if library == "oneDNN" else None)
    encoder = sam_encoder(use_rel_pos, image_size)
    images = torch.randn(2, 3, image_size, image_size)
    expected = encoder(images).last_hidden_state
    vit.use_fast_layers(encoder)
    assert error(encoder(images).last_hidden_state, expected) < 1e-5


@pytest.mark.parametrize(
    ("image_size", "windows"),
    [
        (640, (8, 4, 14, 7)),  # 160 to 20 tokens a side
        (256, (8, 4, 14, 7)),  # 64 to 8 tokens a side: windows are padded
        (128, (8, 4, 14, 7)),  # 32 to 4 tokens a side
        (640, (8, 8, 8, 8)),
        (256, (8, 4, 7, 4)),  # windows of odd size, which pooling cuts
    ],
)
def test_a_hiera_backbone_returns_the_same_with_fast_layers(image_size: int, windows: tuple[int, ...]) -> None:
    backbone = hiera_backbone(image_size, windows)
    images = torch.randn(2, 3, image_size, image_size)
    expected = backbone(images).intermediate_hidden_states
    hiera.use_fast_layers(backbone)
    actual = backbone(images).intermediate_hidden_states
    assert [maps.shape for maps in actual] == [maps.shape for maps in expected]
    assert all(error(*pair) < 1e-5 for pair in zip(actual, expected, strict=True))


def use_device_path(layers: Any) -> None:
    """Let layers compute on this CPU what they would compute on a GPU."""
    for layer in layers:
        layer.fast_forward = layer.device_forward


@pytest.mark.parametrize("use_rel_pos", [True, False])
@pytest.mark.parametrize("image_size", [640, 560])
@pytest.mark.parametrize("hq", [True, False])
def test_a_sam_encoder_returns_the_same_with_the_layers_of_a_gpu(use_rel_pos: bool, image_size: int, hq: bool) -> None:
    encoder = sam_encoder(use_rel_pos, image_size, hq)
    images = torch.randn(2, 3, image_size, image_size)
    expected = encoder(images).last_hidden_state
    vit.use_fast_layers(encoder)
    use_device_path(encoder.layers)
    assert error(encoder(images).last_hidden_state, expected) < 1e-5


@pytest.mark.parametrize("image_size", [640, 256, 128])
def test_a_hiera_backbone_returns_the_same_with_the_blocks_of_a_gpu(image_size: int) -> None:
    backbone = hiera_backbone(image_size)
    images = torch.randn(2, 3, image_size, image_size)
    expected = backbone(images).intermediate_hidden_states
    hiera.use_fast_layers(backbone)
    use_device_path(backbone.blocks)
    actual = backbone(images).intermediate_hidden_states
    assert all(error(*pair) < 1e-5 for pair in zip(actual, expected, strict=True))


class EncoderCase(NamedTuple):
    """An image encoder, and how to replace its layers.

    Attributes:
        create: function that creates the encoder.
        use_fast_layers: function that replaces the layers of the encoder.
        name: name of the encoder's list of layers.
        layer_class: transformers' class of the layers.
    """

    create: Callable[[], Any]
    use_fast_layers: Callable[[Any], None]
    name: str
    layer_class: type[nn.Module]


CASES = {
    "sam": EncoderCase(sam_encoder, vit.use_fast_layers, "layers", SamVisionLayer),
    "sam_hq": EncoderCase(lambda: sam_encoder(hq=True), vit.use_fast_layers, "layers", SamHQVisionLayer),
    "sam2": EncoderCase(hiera_backbone, hiera.use_fast_layers, "blocks", Sam2MultiScaleBlock),
}
every_encoder = pytest.mark.parametrize("encoder_case", CASES.values(), ids=CASES.keys())


def images_of(encoder: Any) -> Tensor:
    """Return a random image, (1, 3, height, width), of the size of an encoder's input."""
    size = encoder.config.image_size
    return torch.randn(1, 3, *([size, size] if isinstance(size, int) else size))


def count_reference_calls(monkeypatch: pytest.MonkeyPatch, layer_class: type[nn.Module]) -> list[None]:
    """Return a list that grows by one element with each call of a layer's reference implementation."""
    calls: list[None] = []
    reference: Any = layer_class.forward

    def forward(layer: nn.Module, *arguments: Any, **options: Any) -> Any:
        calls.append(None)
        return reference(layer, *arguments, **options)

    monkeypatch.setattr(layer_class, "forward", forward)
    return calls


@every_encoder
def test_layers_are_replaced_and_share_their_tensors(encoder_case: EncoderCase) -> None:
    create, use_fast_layers, name, layer_class = encoder_case
    encoder = create()
    before = encoder.state_dict(keep_vars=True)
    use_fast_layers(encoder)
    layers = list(getattr(encoder, name))
    assert all(isinstance(layer, FastLayer) and isinstance(layer, layer_class) for layer in layers)
    after = encoder.state_dict(keep_vars=True)
    assert list(after) == list(before) and all(after[key] is before[key] for key in before)
    use_fast_layers(encoder)  # the second call changes nothing
    assert all(layer is same for layer, same in zip(getattr(encoder, name), layers, strict=True))


@pytest.mark.parametrize("checkpoint", ["sam", "sam2", "sam_hq", "edgetam", "sam3_tracker", "sam3_video"])
def test_no_method_of_a_module_is_patched(checkpoint: str, tmp_path: Path) -> None:
    family = families.load(str(checkpoints.SAVERS[checkpoint](tmp_path)))
    for name, module in family.model.named_modules():
        methods = [key for key, value in vars(module).items() if callable(value) and hasattr(type(module), key)]
        assert methods == [], f"{name or 'the model'} has its own {methods}"


@every_encoder
def test_the_reference_runs_only_with_gradients(encoder_case: EncoderCase, monkeypatch: pytest.MonkeyPatch) -> None:
    create, use_fast_layers, name, layer_class = encoder_case
    with torch.inference_mode(False), torch.enable_grad():
        plain = create()
        fast, images = copy.deepcopy(plain), images_of(plain)
        use_fast_layers(fast)
        expected = plain(images).last_hidden_state
        calls = count_reference_calls(monkeypatch, layer_class)
        actual = fast(images).last_hidden_state
        assert len(calls) == len(getattr(fast, name)) and torch.equal(actual, expected)
        actual.sum().backward()
        assert all(weight.grad is not None for weight in getattr(fast, name).parameters())
        calls.clear()
        with torch.no_grad():
            fast(images)
            on_gpu = fast.to("meta")(images.to("meta"))  # represents a GPU: a device that is not the CPU
            assert on_gpu.last_hidden_state.shape == expected.shape and len(calls) == 0


def test_the_reference_runs_in_blocks_that_pool_odd_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = hiera_backbone(256, (8, 4, 7, 4))
    hiera.use_fast_layers(backbone)
    calls = count_reference_calls(monkeypatch, Sam2MultiScaleBlock)
    backbone(images_of(backbone))
    assert len(calls) == 1  # by the first block of the last stage, which pools windows of 7 tokens


@every_encoder
@pytest.mark.parametrize("recorded_before", [False, True])
def test_transformers_records_the_outputs_of_fast_layers(encoder_case: EncoderCase, recorded_before: bool) -> None:
    create, use_fast_layers, name, _ = encoder_case
    plain = create()
    fast, images = copy.deepcopy(plain), images_of(plain)
    expected = plain(images, output_hidden_states=True)
    if recorded_before:
        fast(images, output_hidden_states=True)  # transformers registers its hooks in this call
    use_fast_layers(fast)
    actual = fast(images, output_hidden_states=True)
    assert len(actual.hidden_states) == 1 + len(getattr(fast, name)) and actual.keys() == expected.keys()
    for key in ("hidden_states", "intermediate_embeddings", "intermediate_hidden_states"):
        if key in expected:
            assert all(error(*pair) < 1e-5 for pair in zip(actual[key], expected[key], strict=True))


@every_encoder
def test_a_copy_of_a_model_has_its_own_weights(encoder_case: EncoderCase) -> None:
    create, use_fast_layers, name, _ = encoder_case
    encoder = create()
    use_fast_layers(encoder)
    images = images_of(encoder)
    before = encoder(images).last_hidden_state
    duplicate = copy.deepcopy(encoder)
    for weight in getattr(duplicate, name).parameters():
        weight.zero_()
    assert torch.equal(encoder(images).last_hidden_state, before)
    assert not torch.equal(duplicate(images).last_hidden_state, before)


@every_encoder
@pytest.mark.parametrize(("precision", "linear_class"), [("bfloat16", Bfloat16), ("int8", Int8)])
def test_an_encoder_can_be_quantized_before_or_after_its_layers_are_replaced(
    encoder_case: EncoderCase, precision: str, linear_class: type[nn.Module]
) -> None:
    create, use_fast_layers, name, _ = encoder_case
    first = create()
    second, images = copy.deepcopy(first), images_of(first)
    quantize_encoder(first, precision)
    use_fast_layers(first)
    use_fast_layers(second)
    quantize_encoder(second, precision)
    assert torch.equal(first(images).last_hidden_state, second(images).last_hidden_state)
    assert all(isinstance(layer.attn.qkv, linear_class) for layer in getattr(second, name))


def test_a_position_encoding_of_zeros_stores_a_single_number() -> None:
    encoding = ZeroPositionEncoding()(torch.Size((2, 8, 4, 4)), torch.device("cpu"), torch.float32)
    assert encoding.shape == (2, 8, 4, 4) and encoding.dtype == torch.float32 and not encoding.any()
    assert encoding.untyped_storage().nbytes() == 4
