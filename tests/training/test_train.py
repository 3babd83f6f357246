"""Training learns, and a run that was stopped goes on as if it had not been."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Sam2Model, SamModel, SamProcessor

from model.prompts import read
from model.segmenter import Segmenter
from tests import pictures
from tests.conftest import ROOT, run_here
from tests.warm import python
from training import losses, mean, network, train
from training.batches import Batches
from training.cache import SceneCache
from training.train import FAMILIES, Plan, Trainer

SMALL = {"scenes": 8, "side": 128, "steps": 12, "windowed": 8, "images": 2, "masks": 2, "warmup": 2}


def test_whole_inputs_come_every_so_many_steps(tmp_path: Path) -> None:
    batches = batches_of("sam", Plan(**{**SMALL, "windowed": 2, "whole_every": 3}), tmp_path)
    assert [batches[step].images.shape[:2] for step in range(7)] == [
        (4, 64), (4, 64), (2, 128), (4, 64), (4, 64), (2, 128), (4, 64),
    ]  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_close_windows_show_things_as_large_as_whole_inputs(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.batches.recoloured", lambda rng, image: image)
    windows = batches_of(family, Plan(**{**SMALL, "close": True}), tmp_path)
    across = np.arange(256, dtype=np.uint8)
    windows.cache.arrays["images"][..., 0], windows.cache.arrays["images"][..., 1] = across, across[:, None]
    images, sizes = windows[0].images, windows[0].sizes
    for image, (height, width) in zip(images, sizes, strict=True):
        seen = np.ptp(image[:height, :width, :2].reshape(-1, 2).astype(int), axis=0).max()  # of the scene
        assert images.shape[1] == 64
        assert 0.3 < seen / 256 < 0.7  # the whole, twice as wide, shows 256


SIZES = {
    "sam": {"hidden_size": 32, "layers": 2, "heads": 2, "width": 32, "global_layers": (1,)},
    "sam2": {"channels": 16, "blocks": (1, 1, 2, 1), "global_blocks": (3,), "width": 32},
}


def trainer_of(family: str, plan: Plan, bfloat16: bool = False) -> Trainer:
    kind = FAMILIES[family]
    config = kind.config(**SIZES[family], image_size=plan.side)
    return Trainer(plan, kind, config, "cpu", compiled=False, bfloat16=bfloat16)


def batches_of(family: str, plan: Plan, folder: Path) -> Batches:
    cache = SceneCache(folder, plan.seed, plan.scenes)
    cache.draw(1)
    return train.batches_of(plan, cache, FAMILIES[family])


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_few_steps_on_one_batch_lower_the_loss(family: str, bfloat16: bool, tmp_path: Path) -> None:
    plan = Plan(**{**SMALL, "steps": 100})
    batch = batches_of(family, plan, tmp_path)[0]
    trainer = trainer_of(family, plan, bfloat16)
    found = [trainer.learn(batch)["loss"] for _ in range(24)]
    assert sum(found[-4:]) < 0.8 * sum(found[:4])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_frozen_encoder_stays_as_it_is_while_the_decoder_learns(family: str, tmp_path: Path) -> None:
    plan = Plan(**{**SMALL, "steps": 100, "picked": 1.0, "frozen": True})
    batch = batches_of(family, plan, tmp_path)[0]
    trainer = trainer_of(family, plan)
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    found = [trainer.learn(batch)["loss"] for _ in range(24)]
    assert sum(found[-4:]) < 0.8 * sum(found[:4])
    for name, weight in trainer.model.state_dict().items():
        if name.startswith("vision_encoder."):
            assert torch.equal(weight, before[name]), name
    assert not torch.equal(trainer.model.mask_decoder.mask_tokens.weight, before["mask_decoder.mask_tokens.weight"])


def test_the_mask_with_the_best_score_pays() -> None:
    """Of three alternatives the first is right, the second is what the scores pick: only with `picked` is that dear."""
    target = torch.zeros(1, 8, 8)
    target[:, 2:6, 2:6] = 1
    right, wrong = (target - 0.5) * 20, (0.5 - target) * 20
    logits = torch.stack([right, right, wrong, wrong], dim=1)

    def loss(scores: list[float], picked: float) -> float:
        """Without what the scores pay for themselves."""
        given = torch.tensor([scores])
        whole, true = losses.decoding_loss(logits, given, target, 0.0, picked)
        off = given - true
        return float(whole - (3 * off.square().mean() if picked else off.abs().mean()))

    wise, unwise = [0.9, 0.9, 0.1, 0.1], [0.9, 0.1, 0.9, 0.1]
    assert loss(unwise, 0.0) == pytest.approx(loss(wise, 0.0))
    assert loss(wise, 1.0) == pytest.approx(loss(wise, 0.0), abs=1e-3)
    assert loss(unwise, 1.0) > loss(wise, 1.0) + 1


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_trained_is_what_is_used(family: str, tmp_path: Path) -> None:
    """The forward pass of training gives the logits and scores that the exported checkpoint gives."""
    trainer = trainer_of(family, Plan(**{**SMALL, "side": 256}))
    network.export(trainer.model, tmp_path / "checkpoint")
    segmenter = Segmenter.load(str(tmp_path / "checkpoint"), "cpu")
    (embedding,) = segmenter.embed([pictures.clutter(256, 256)])
    prompts = read([[[100, 90]], [[30, 200]]], [[1], [1]], [[70, 60, 130, 120], [10, 150, 90, 250]], None)
    prompts += read([[[40, 50], [80, 90]]], [[1, 0]], None, None)
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
            (found,) = segmenter.segment(embedding, [prompt], multimask)
            if not multimask and found.scores[0] != pytest.approx(float(scores[0, 0]), abs=1e-05):
                assert family == "sam2"  # which falls back on the best of three where the single mask is unstable
                continue
            kind = slice(1, 4) if multimask else slice(0, 1)
            assert torch.allclose(found.logits, logits[0, kind], atol=1e-4)
            assert found.scores == pytest.approx(scores[0, kind].numpy(), abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_stopped_and_taken_up_again_is_the_same_run(family: str, tmp_path: Path) -> None:
    def train(folder: str, steps: int) -> dict[str, torch.Tensor]:
        """Up to `steps` of the plan, from whatever state is there."""
        plan = Plan(**SMALL)
        batches = batches_of(family, plan, tmp_path / "scenes")
        trainer = trainer_of(family, plan)
        state = tmp_path / folder
        if state.exists():
            trainer.load(state)
        while trainer.step < steps:
            trainer.learn(batches[trainer.step])
        trainer.save(state)
        return trainer.average.state_dict()

    train("stopped", 3)
    train("stopped", 9)  # over the change from windows to whole inputs
    taken_up, undisturbed = train("stopped", 10), train("undisturbed", 10)
    assert all(torch.allclose(taken_up[name], undisturbed[name], atol=1e-6) for name in undisturbed)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_finished_checkpoint_can_be_trained_on(family: str, tmp_path: Path) -> None:
    finished = trainer_of(family, Plan(**SMALL))
    network.export(finished.average, tmp_path / "finished")
    again = trainer_of(family, Plan(**{**SMALL, "seed": 5}))
    again.start_from(tmp_path / "finished")
    theirs = finished.average.state_dict()
    assert all(torch.equal(weight, theirs[name]) for name, weight in again.model.state_dict().items())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_command_writes_what_transformers_reads(family: str, tmp_path: Path) -> None:
    arguments = [f"--{name}={value}" for name, value in {**SMALL, "steps": 2}.items()]
    arguments += ["--eager", "--family", family, "--output", str(tmp_path / "made"), "--cache", str(tmp_path / "cache")]
    command = [python(), "-m", "training.train", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    if family == "sam":
        assert SamModel.from_pretrained(tmp_path / "made").config.vision_config.image_size == 128
        assert SamProcessor.from_pretrained(tmp_path / "made").image_processor.size["longest_edge"] == 128
    else:
        assert Sam2Model.from_pretrained(tmp_path / "made").config.prompt_encoder_config.image_size == 128
    assert Segmenter.load(str(tmp_path / "made"), "cpu").family.name == family


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_can_be_trained_on_with_a_larger_input(family: str, tmp_path: Path) -> None:
    finished = trainer_of(family, Plan(**SMALL))
    network.export(finished.average, tmp_path / "finished")
    plan = Plan(**{**SMALL, "side": 192, "windowed": 1})
    larger, batches = trainer_of(family, plan), batches_of(family, plan, tmp_path)
    larger.start_from(tmp_path / "finished")
    assert [batches[step].images.shape[1] for step in (0, 1)] == [96, 192]
    figures = [larger.learn(batches[step]) for step in (0, 1)]
    assert all(np.isfinite(one["loss"]) for one in figures)
    network.export(larger.average, tmp_path / "larger")
    segmenter = Segmenter.load(str(tmp_path / "larger"), "cpu")
    (embedding,) = segmenter.embed([pictures.clutter(300, 200)])
    (found,) = segmenter.segment(embedding, read(None, None, [[70, 60, 130, 120]], None))
    assert segmenter.family.input_size == 192 and found.logits.shape == (3, 96, 96)


def test_the_mean_of_two_checkpoints_for_another_input(tmp_path: Path) -> None:
    kind, sides = FAMILIES["sam"], (256, 352)
    models = [kind.new(kind.config(image_size=side), seed).model for seed, side in enumerate(sides)]
    for side, model in zip(sides, models, strict=True):
        network.export(model, tmp_path / str(side))
    folders = [tmp_path / str(side) for side in sides]
    done = run_here(mean.main, *folders, "--side", 352, "--output", tmp_path / "mean")
    assert done.returncode == 0, done.stderr
    found = SamModel.from_pretrained(tmp_path / "mean")
    assert found.config.vision_config.window_size == 11  # which fills 44 tokens without padding
    name = "vision_encoder.layers.0.attn.qkv.weight"
    one, other = (model.state_dict()[name] for model in models)
    assert torch.allclose(found.state_dict()[name], (one + other) / 2, atol=1e-7)
    positions = found.vision_encoder.pos_embed[0, ::43, ::43]  # the corners, which interpolation leaves about alone
    corners = (
        models[0].vision_encoder.pos_embed[0, ::31, ::31] + models[1].vision_encoder.pos_embed[0, ::43, ::43]
    ) / 2
    assert torch.allclose(positions, corners, atol=0.05)
