"""Tests of the trainer: every family learns, images are encoded once, and a resumed training has the same weights."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sam_endpoint.evaluation.coco import CocoDataset
from sam_endpoint.evaluation.ground_truth import Problems
from sam_endpoint.model.segmenter import Segmenter
from sam_endpoint.training.finetune import prompting
from sam_endpoint.training.finetune.encoder import merge_adapters
from sam_endpoint.training.finetune.features import FeatureSource, Sample, read_samples
from sam_endpoint.training.finetune.options import Plan
from sam_endpoint.training.finetune.trainer import Finetuner
from tests import checkpoints
from tests.training.finetune import coin_images

PLAN = Plan(steps=8, images=2, masks=2, warmup=1, validate_every=4, rate=1e-3)
TRAINED = ("sam", "sam2", "sam_hq", "edgetam", "sam3_tracker", "sam3_video")


@pytest.fixture(scope="module")
def coins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coin_images.write(tmp_path_factory.mktemp("coins"), 4, 2)[0]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: checkpoints.SAVERS[name](tmp_path_factory.mktemp(name)) for name in TRAINED}


def opened(folder: Path, coins: Path, store: Path, mode: str = "decoder") -> tuple[FeatureSource, list[Sample]]:
    source = FeatureSource(Segmenter.load(str(folder), "cpu"), store, frozen=mode == "decoder")
    return source, list(read_samples(CocoDataset(coins), source, Problems()))


def finetuner(folder: Path, coins: Path, store: Path, plan: Plan = PLAN) -> Finetuner:
    source, samples = opened(folder, coins, store, plan.mode)
    return Finetuner(source.segmenter.family, plan, samples[1:], samples[:1], source)


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """Return the names of the parts of a model whose weights differ, such as `mask_decoder`."""
    names = [name for name in before if not torch.equal(before[name], after[name])]
    # In SAM 3, these parts belong to the detector and the tracker.
    prefixes = r"^(tracker_model\.|detector_model\.(?=vision_encoder))"
    return {re.sub(prefixes, "", name).partition(".")[0] for name in names}


@torch.no_grad()
def loss(trained: Finetuner) -> float:
    """Return the loss of two fixed batches."""
    batches = [prompting.batch_at(trained.family, trained.samples, trained.plan, n) for n in (0, 1)]
    return sum(float(trained.compute_loss(batch, number)) for number, batch in enumerate(batches))


@pytest.mark.parametrize("family", TRAINED)
def test_the_decoder_of_every_family_learns_and_nothing_else_changes(
    family: str, folders: dict[str, Path], coins: Path, tmp_path: Path
) -> None:
    trained = finetuner(folders[family], coins, tmp_path, replace(PLAN, steps=8, validate_every=8))
    before, loss_before = weights(trained.family.model), loss(trained)
    while not trained.finished:
        trained.advance()
    assert changed(before, weights(trained.family.model)) == {"mask_decoder"}
    assert loss(trained) < loss_before


@pytest.mark.parametrize("family", ["sam", "sam2", "sam_hq", "sam3_tracker", "sam3_video"])
@pytest.mark.parametrize("mode", ["full", "lora"])
def test_the_modes_full_and_lora_train_the_encoder(
    family: str, mode: str, folders: dict[str, Path], coins: Path, tmp_path: Path
) -> None:
    trained = finetuner(folders[family], coins, tmp_path, replace(PLAN, mode=mode, steps=2, images=1))
    before = weights(Segmenter.load(str(folders[family]), "cpu").family.model)
    while not trained.finished:
        trained.advance()
    pixels = torch.rand(1, 3, trained.family.input_size, trained.family.input_size)
    with torch.no_grad():
        adapted = trained.family.embed(pixels)
        merge_adapters(trained.family)
        merged = trained.family.embed(pixels)
    for a, b in zip(adapted, merged, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    after = weights(trained.family.model)
    assert after.keys() == before.keys()
    assert changed(before, after) == {"mask_decoder", "vision_encoder"}
    encoder = {name for name in before if "vision_encoder." in name and not torch.equal(before[name], after[name])}
    if mode == "lora":
        assert all("attn" in name or "attention" in name for name in encoder)


def test_the_result_is_the_mean_of_the_weights_of_the_latest_steps(
    folders: dict[str, Path], coins: Path, tmp_path: Path
) -> None:
    source, samples = opened(folders["sam"], coins, tmp_path)
    trained = Finetuner(source.segmenter.family, replace(PLAN, steps=3, validate_every=3), samples, [], source)
    name = next(iter(trained.weights))
    steps = []
    while not trained.finished:
        trained.advance()
        steps.append(trained.weights[name].detach().clone())
    assert not torch.equal(steps[0], steps[2])
    trained.use_best()
    torch.testing.assert_close(trained.weights[name].detach(), torch.stack(steps).mean(0))


def test_each_image_is_encoded_once(folders: dict[str, Path], coins: Path, tmp_path: Path) -> None:
    trained = finetuner(folders["sam"], coins, tmp_path, replace(PLAN, steps=6))
    assert trained.source.encoded == 4
    while not trained.finished:
        trained.advance()
    assert trained.source.encoded == 4
    again, _ = opened(folders["sam"], coins, tmp_path)
    assert again.encoded == 0


def test_an_error_names_a_full_disk_and_the_saved_state_is_kept(
    folders: dict[str, Path], coins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    source = FeatureSource(Segmenter.load(str(folders["sam"]), "cpu"), tmp_path / "store", frozen=True)
    with monkeypatch.context() as patched:
        patched.setattr(source.store.fs, "pipe_file", full)
        with pytest.raises(OSError, match="is the disk full"):
            list(read_samples(CocoDataset(coins), source, Problems()))
    trained = finetuner(folders["sam"], coins, tmp_path / "store")
    trained.advance()
    trained.save(tmp_path / "state.pt")
    kept = (tmp_path / "state.pt").read_bytes()
    trained.advance()
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="the previous state is kept"):
        trained.save(tmp_path / "state.pt")
    assert (tmp_path / "state.pt").read_bytes() == kept and not (tmp_path / "state.part").exists()


@pytest.mark.parametrize("mode", ["decoder", "lora"])
def test_a_resumed_training_ends_with_the_same_weights(
    mode: str, folders: dict[str, Path], coins: Path, tmp_path: Path
) -> None:
    plan = replace(PLAN, mode=mode, steps=3, validate_every=2, accumulate=2, patience=100)
    whole = finetuner(folders["sam"], coins, tmp_path / "store", plan)
    while not whole.finished:
        whole.advance()
    state = tmp_path / "state.pt"
    for _ in range(plan.steps):
        part = finetuner(folders["sam"], coins, tmp_path / "store", plan)
        if state.exists():
            part.load(state)
        part.advance()
        part.save(state)
    assert part.finished and part.history == whole.history
    whole.use_best()
    part.use_best()
    for name, weight in whole.weights.items():
        assert torch.equal(weight, part.weights[name]), name


def test_training_stops_early_and_keeps_the_best_weights(
    folders: dict[str, Path], coins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = iter([0.5, 0.7, 0.6, 0.6])
    trained = finetuner(folders["sam"], coins, tmp_path, replace(PLAN, steps=50, validate_every=1, patience=2))
    monkeypatch.setattr(trained, "validate", lambda: next(figures))
    trained.advance()
    best = {name: weight.detach().clone() for name, weight in trained.weights.items()}
    while not trained.finished:
        trained.advance()
    assert trained.step == 3 and trained.best_step == 1
    trained.use_best()
    assert all(torch.equal(best[name], weight) for name, weight in trained.weights.items())


def test_the_padding_of_an_image_does_not_change_the_loss(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    wide = rng.integers(0, 255, (100, 200, 3), np.uint8)
    mask = np.zeros((100, 200), bool)
    mask[20:80, 50:150] = True
    file = coin_images.write_coco(tmp_path, "wide", [(wide, [mask])])
    source, samples = opened(folders["sam"], file, tmp_path / "store")
    assert samples[0].region == (32, 64)
    trained = Finetuner(source.segmenter.family, replace(PLAN, images=1), samples, [], source)
    target = samples[0].targets[0]
    assert target.whole((64, 64)).sum() == pytest.approx(mask.sum() * 0.32**2, rel=0.02)
    np.testing.assert_allclose(target.box, np.array([50, 20, 150, 80]) * 1.28, rtol=1e-5)
    predict = trained.family.predict

    def noisy_below(*arguments: Any, **options: Any) -> Any:
        logits, scores = predict(*arguments, **options)
        return torch.cat([logits[..., :32, :], logits[..., 32:, :] + 1000 * torch.rand(1)], -2), scores

    batch = prompting.batch_at(trained.family, samples, trained.plan, 1)
    expected = trained.compute_loss(batch, 1)
    monkeypatch.setattr(trained.family, "predict", noisy_below)
    torch.testing.assert_close(trained.compute_loss(batch, 1), expected)
