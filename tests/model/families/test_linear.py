"""Linear layers with and without oneDNN, compared with torch's linear layers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import ACT2FN

from sam_endpoint.model.families import linear
from sam_endpoint.model.precision import Bfloat16, Int8

INPUTS = 96


@pytest.fixture(autouse=True, params=["oneDNN", "without oneDNN"])
def _without_gradients(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run every test with and without oneDNN, without gradients and with the same seed."""
    monkeypatch.setattr(linear, "_onednn", linear.ONEDNN if request.param == "oneDNN" else None)
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


def close(actual: Tensor, expected: Tensor) -> bool:
    """Compare shapes, and values within 1e-5 of the largest expected value."""
    return actual.shape == expected.shape and float((actual - expected).abs().max() / expected.abs().max()) < 1e-5


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, INPUTS), (2, 5, 6, INPUTS), (1, 1, INPUTS)])
def test_a_layer_equals_torchs_with_and_without_a_residual(shape: tuple[int, ...], bias: bool) -> None:
    layer, inputs = nn.Linear(INPUTS, 40, bias=bias), torch.randn(shape)
    residual = torch.randn(*shape[:-1], 40)
    before = residual.clone()
    assert close(linear.linear(layer, inputs), F.linear(inputs, layer.weight, layer.bias))
    assert close(linear.linear(layer, inputs, residual), F.linear(inputs, layer.weight, layer.bias) + residual)
    assert torch.equal(residual, before)


def test_accepts_inputs_that_are_not_contiguous() -> None:
    layer, inputs = nn.Linear(INPUTS, 40), torch.randn(6, 9, 2 * INPUTS)[:5, 1:8, :INPUTS]
    assert close(linear.linear(layer, inputs), layer(inputs))


@pytest.mark.parametrize("gelu", [True, False])
def test_a_product_equals_torchs_with_and_without_gelu(gelu: bool) -> None:
    inputs, weight, bias = torch.randn(3, 50, 16) * 3, torch.randn(32, 16), torch.randn(32)
    expected = F.linear(inputs, weight, bias)
    assert close(linear.product(inputs, weight, bias, gelu), F.gelu(expected) if gelu else expected)


def test_parts_of_a_layer_equal_those_of_its_output() -> None:
    exact, inputs = nn.Linear(INPUTS, 120), torch.randn(5, 6, INPUTS)
    for layer in (exact, Bfloat16(exact), nn.Linear(INPUTS, 120, bias=False)):
        parts = linear.project(layer, inputs, 3)
        assert all(close(*pair) for pair in zip(parts, layer(inputs).chunk(3, -1), strict=True))


@pytest.mark.parametrize("activation", ["gelu", "relu", "gelu_pytorch_tanh"])
def test_an_mlp_equals_torchs_for_every_activation(activation: str) -> None:
    first, act, second = nn.Linear(INPUTS, 200), ACT2FN[activation], nn.Linear(200, INPUTS)
    inputs, residual = torch.randn(33, INPUTS), torch.randn(33, INPUTS)
    assert close(linear.mlp(first, act, second, inputs, residual), second(act(first(inputs))) + residual)


@pytest.mark.parametrize("layer_class", [Bfloat16, Int8])
def test_an_mlp_calls_quantized_layers_directly(layer_class: type[Bfloat16 | Int8]) -> None:
    first, second = (layer_class(nn.Linear(INPUTS, INPUTS)) for _ in range(2))
    inputs, residual = torch.randn(8, INPUTS), torch.randn(8, INPUTS)
    expected = second(F.gelu(first(inputs))) + residual
    assert torch.equal(linear.mlp(first, ACT2FN["gelu"], second, inputs, residual), expected)
