"""Training: the loss, the saved checkpoints, and the continuation of a stopped training."""

from __future__ import annotations

import itertools
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Sam2Model, SamModel, SamProcessor

from sam_endpoint.model.prompts import parse_prompts
from sam_endpoint.model.segmenter import Segmenter
from sam_endpoint.training import losses, mean, network
from sam_endpoint.training.batches import Batches
from sam_endpoint.training.cache import SceneCache
from sam_endpoint.training.families import FAMILIES
from sam_endpoint.training.options import Plan
from sam_endpoint.training.trainer import Trainer, make_batches
from tests import pictures
from tests.conftest import ROOT, run_here
from tests.warm import python

SMALL = Plan(scenes=8, side=128, steps=12, windowed=8, images=2, masks=2, warmup=2)
SIZES: dict[str, dict[str, Any]] = {
    "sam": {"hidden_size": 32, "layers": 2, "heads": 2, "width": 32, "global_layers": (1,)},
    "sam2": {"channels": 16, "blocks": (1, 1, 2, 1), "global_blocks": (3,), "width": 32},
}


def test_every_nth_batch_has_whole_inputs(tmp_path: Path) -> None:
    batches = batches_of("sam", replace(SMALL, windowed=2, whole_every=3), tmp_path)
    assert [batches[step].images.shape[:2] for step in range(7)] == [
        (4, 64), (4, 64), (2, 128), (4, 64), (4, 64), (2, 128), (4, 64),
    ]  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_close_windows_show_objects_at_the_scale_of_whole_inputs(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sam_endpoint.training.batches.recolor", lambda rng, image: image)
    windows = batches_of(family, replace(SMALL, close=True), tmp_path)
    across = np.arange(256, dtype=np.uint8)
    windows.cache.arrays["images"][..., 0], windows.cache.arrays["images"][..., 1] = across, across[:, None]
    images, sizes = windows[0].images, windows[0].sizes
    for image, (height, width) in zip(images, sizes, strict=True):
        extent = np.ptp(image[:height, :width, :2].reshape(-1, 2).astype(int), axis=0).max()  # of the scene
        assert images.shape[1] == 64
        assert 0.3 < extent / 256 < 0.7  # a whole input is twice as wide and shows all 256 pixels


def trainer_of(family: str, plan: Plan, bfloat16: bool = False) -> Trainer:
    """Return a trainer of a small network on the CPU."""
    network_class = FAMILIES[family]
    config = network_class.config(**SIZES[family], image_size=plan.side)
    return Trainer(plan, network_class, config, "cpu", compiled=False, bfloat16=bfloat16)


def batches_of(family: str, plan: Plan, folder: Path) -> Batches:
    """Draw the scenes of a plan into a folder, and return the batches."""
    cache = SceneCache(folder, plan.seed, plan.scenes)
    cache.draw(1)
    return make_batches(plan, cache, FAMILIES[family])


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_few_steps_on_one_batch_lower_the_loss(family: str, bfloat16: bool, tmp_path: Path) -> None:
    plan = replace(SMALL, steps=100)
    batch = batches_of(family, plan, tmp_path)[0]
    trainer = trainer_of(family, plan, bfloat16)
    loss = [trainer.train_step(batch)["loss"] for _ in range(24)]
    assert sum(loss[-4:]) < 0.8 * sum(loss[:4])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_frozen_encoder_does_not_change_while_the_decoder_learns(family: str, tmp_path: Path) -> None:
    plan = replace(SMALL, steps=100, picked=1.0, frozen=True)
    batch = batches_of(family, plan, tmp_path)[0]
    trainer = trainer_of(family, plan)
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    loss = [trainer.train_step(batch)["loss"] for _ in range(24)]
    assert sum(loss[-4:]) < 0.8 * sum(loss[:4])
    for name, weight in trainer.model.state_dict().items():
        if name.startswith("vision_encoder."):
            assert torch.equal(weight, before[name]), name
    assert not torch.equal(trainer.model.mask_decoder.mask_tokens.weight, before["mask_decoder.mask_tokens.weight"])


def test_the_mask_with_the_best_score_has_a_cost() -> None:
    """The first of three alternatives is right. Scores that select another one have a cost only with `picked`."""
    target = torch.zeros(1, 8, 8)
    target[:, 2:6, 2:6] = 1
    right, wrong = (target - 0.5) * 20, (0.5 - target) * 20
    logits = torch.stack([right, right, wrong, wrong], dim=1)

    def loss(scores: list[float], picked: float) -> float:
        """The loss without the cost of the scores themselves."""
        predicted = torch.tensor([scores])
        total, true = losses.decoding_loss(logits, predicted, target, 0.0, picked)
        error = predicted - true
        return float(total - (3 * error.square().mean() if picked else error.abs().mean()))

    good, bad = [0.9, 0.9, 0.1, 0.1], [0.9, 0.1, 0.9, 0.1]
    assert loss(bad, 0.0) == pytest.approx(loss(good, 0.0))
    assert loss(good, 1.0) == pytest.approx(loss(good, 0.0), abs=1e-3)
    assert loss(bad, 1.0) > loss(good, 1.0) + 1


@pytest.mark.parametrize("family", FAMILIES)
def test_training_and_inference_compute_the_same_logits_and_scores(family: str, tmp_path: Path) -> None:
    """Compares the forward pass of training with the exported checkpoint."""
    trainer = trainer_of(family, replace(SMALL, side=256))
    network.save_checkpoint(trainer.model, tmp_path / "checkpoint")
    segmenter = Segmenter.load(str(tmp_path / "checkpoint"), "cpu")
    (embedding,) = segmenter.embed([pictures.clutter(256, 256)])
    prompts = parse_prompts([[[100, 90]], [[30, 200]]], [[1], [1]], [[70, 60, 130, 120], [10, 150, 90, 250]], None)
    prompts += parse_prompts([[[40, 50], [80, 90]]], [[1, 0]], None, None)
    network_of = trainer.network.eval()
    pixels = segmenter.family.preprocess(pictures.clutter(256, 256))[None]
    with torch.no_grad():
        features = network_of.embed(pixels, network_of.patch_positions(32, (0, 0)))
        for prompt, multimask in itertools.product(prompts, (True, False)):
            box = None if prompt.box is None else torch.from_numpy(prompt.box)[None]
            sparse = network_of.tokens(
                torch.from_numpy(prompt.points)[None], torch.from_numpy(prompt.labels)[None], box
            )
            none = torch.zeros(1, 1, 128, 128), torch.zeros(1, dtype=torch.bool)
            logits, scores = network_of.decode(features, network_of.positions(32, (0, 0)), sparse, *none)
            (answer,) = segmenter.segment(embedding, [prompt], multimask)
            if not multimask and answer.scores[0] != pytest.approx(float(scores[0, 0]), abs=1e-05):
                assert family == "sam2"  # which replaces an unstable single mask by the best of three
                continue
            kind = slice(1, 4) if multimask else slice(0, 1)
            assert torch.allclose(answer.logits, logits[0, kind], atol=1e-4)
            assert answer.scores == pytest.approx(scores[0, kind].numpy(), abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stopped_training_continues_with_the_same_result(family: str, tmp_path: Path) -> None:
    def train(folder: str, steps: int) -> dict[str, torch.Tensor]:
        """Train up to `steps` of the plan, from the saved state if there is one."""
        plan = SMALL
        batches = batches_of(family, plan, tmp_path / "scenes")
        trainer = trainer_of(family, plan)
        state = tmp_path / folder
        if state.exists():
            trainer.load_state(state)
        while trainer.step < steps:
            trainer.train_step(batches[trainer.step])
        trainer.save_state(state)
        weights: dict[str, torch.Tensor] = trainer.average.state_dict()
        return weights

    train("stopped", 3)
    train("stopped", 9)  # after the change from windows to whole inputs
    resumed, undisturbed = train("stopped", 10), train("undisturbed", 10)
    assert all(torch.allclose(resumed[name], undisturbed[name], atol=1e-6) for name in undisturbed)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_can_start_from_a_finished_checkpoint(family: str, tmp_path: Path) -> None:
    finished = trainer_of(family, SMALL)
    network.save_checkpoint(finished.average, tmp_path / "finished")
    second_trainer = trainer_of(family, replace(SMALL, seed=5))
    second_trainer.start_from(tmp_path / "finished")
    expected = finished.average.state_dict()
    assert all(torch.equal(weight, expected[name]) for name, weight in second_trainer.model.state_dict().items())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_command_writes_a_checkpoint_that_transformers_loads(family: str, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    small = ("scenes", "side", "windowed", "images", "masks", "warmup")
    arguments = [f"--{name}={getattr(SMALL, name)}" for name in small]
    arguments += ["--steps=2", "--eager", "--family", family, f"--output={checkpoint}", f"--cache={tmp_path / 'cache'}"]
    command = [python(), "-m", "sam_endpoint", "train", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    model: Any = (SamModel if family == "sam" else Sam2Model).from_pretrained(checkpoint)
    if family == "sam":
        assert model.config.vision_config.image_size == 128
        assert SamProcessor.from_pretrained(checkpoint).image_processor.size["longest_edge"] == 128
    else:
        assert model.config.prompt_encoder_config.image_size == 128
    assert Segmenter.load(str(checkpoint), "cpu").family.name == family


@pytest.mark.parametrize("family", FAMILIES)
def test_training_can_start_from_a_checkpoint_with_a_smaller_input(family: str, tmp_path: Path) -> None:
    finished = trainer_of(family, SMALL)
    network.save_checkpoint(finished.average, tmp_path / "finished")
    plan = replace(SMALL, side=192, windowed=1)
    larger, batches = trainer_of(family, plan), batches_of(family, plan, tmp_path)
    larger.start_from(tmp_path / "finished")
    assert [batches[step].images.shape[1] for step in (0, 1)] == [96, 192]
    figures = [larger.train_step(batches[step]) for step in (0, 1)]
    assert all(np.isfinite(step["loss"]) for step in figures)
    network.save_checkpoint(larger.average, tmp_path / "larger")
    segmenter = Segmenter.load(str(tmp_path / "larger"), "cpu")
    (embedding,) = segmenter.embed([pictures.clutter(300, 200)])
    (answer,) = segmenter.segment(embedding, parse_prompts(None, None, [[70, 60, 130, 120]], None))
    assert segmenter.family.input_size == 192 and answer.logits.shape == (3, 96, 96)


def test_mean_averages_weights_and_resizes_the_input_of_checkpoints(tmp_path: Path) -> None:
    network_class, sides = FAMILIES["sam"], (256, 352)
    configs = [network_class.config(image_size=side) for side in sides]
    models = [network_class.create(config, seed).model for seed, config in enumerate(configs)]
    for side, model in zip(sides, models, strict=True):
        network.save_checkpoint(model, tmp_path / str(side))
    folders = [tmp_path / str(side) for side in sides]
    done = run_here(mean.main, *folders, "--side", 352, "--output", tmp_path / "mean")
    assert done.returncode == 0, done.stderr
    average: Any = SamModel.from_pretrained(tmp_path / "mean")
    assert average.config.vision_config.window_size == 11  # four windows fill 44 tokens without padding
    name = "vision_encoder.layers.0.attn.qkv.weight"
    first, second = (model.state_dict()[name] for model in models)
    assert torch.allclose(average.state_dict()[name], (first + second) / 2, atol=1e-7)
    positions = average.vision_encoder.pos_embed[0, ::43, ::43]  # interpolation hardly changes the corners
    first, second = (model.vision_encoder.pos_embed[0] for model in models)
    corners = (first[::31, ::31] + second[::43, ::43]) / 2
    assert torch.allclose(positions, corners, atol=0.05)
