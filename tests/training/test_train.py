"""Training learns, and a run that was stopped goes on as if it had not been."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from tests.conftest import ROOT
from training import network
from training.batches import Batches
from training.cache import SceneCache
from training.train import Plan, Trainer

SMALL = {"scenes": 8, "steps": 12, "windowed": 8, "images": 2, "masks": 2, "warmup": 2}


def small_config() -> object:
    return network.sam_config(hidden_size=32, layers=2, heads=2, width=32, global_layers=(1,))


def test_a_few_steps_on_one_batch_lower_the_loss(tmp_path: Path) -> None:
    plan = Plan(**{**SMALL, "steps": 100})
    cache = SceneCache(tmp_path, plan.seed, plan.scenes)
    cache.draw(1)
    batch = Batches(cache, plan.seed, plan.images, plan.masks, 256, plan.windowed)[0]
    trainer = Trainer(plan, small_config(), "cpu", compiled=False)
    losses = [trainer.learn(batch)["loss"] for _ in range(24)]
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])


def test_stopped_and_taken_up_again_is_the_same_run(tmp_path: Path) -> None:
    def train(folder: str, steps: int) -> dict[str, torch.Tensor]:
        """Up to `steps` of the plan, from whatever state is there."""
        plan = Plan(**SMALL)
        cache = SceneCache(tmp_path / "scenes", plan.seed, plan.scenes)
        cache.draw(1)
        batches = Batches(cache, plan.seed, plan.images, plan.masks, 256, plan.windowed)
        trainer = Trainer(plan, small_config(), "cpu", compiled=False)
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


def test_a_finished_checkpoint_can_be_trained_on(tmp_path: Path) -> None:
    finished = Trainer(Plan(**SMALL), small_config(), "cpu", compiled=False)
    network.export(finished.average, tmp_path / "sam")
    again = Trainer(Plan(**{**SMALL, "seed": 5}), small_config(), "cpu", compiled=False)
    again.start_from(tmp_path / "sam")
    theirs = finished.average.state_dict()
    assert all(torch.equal(weight, theirs[name]) for name, weight in again.model.state_dict().items())


def test_the_command_writes_what_transformers_reads(tmp_path: Path) -> None:
    arguments = [f"--{name}={value}" for name, value in {**SMALL, "steps": 2}.items()]
    command = [sys.executable, "-m", "training.train", "--eager", "--output", str(tmp_path / "sam"), *arguments]
    done = subprocess.run([*command, "--cache", str(tmp_path / "cache")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    from transformers import SamModel, SamProcessor

    assert SamModel.from_pretrained(tmp_path / "sam").config.vision_config.image_size == 256
    assert SamProcessor.from_pretrained(tmp_path / "sam").image_processor.size["longest_edge"] == 256
