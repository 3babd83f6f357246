"""The training of memory parts: images keep their results, a stopped training can be resumed, and the model tracks."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import Sam2Model

from sam_endpoint.evaluation.clips import HELD_OUT_SEED, draw_clip
from sam_endpoint.model.errors import BadData, BadParameter
from sam_endpoint.model.mlflow import package
from sam_endpoint.model.prompts import Prompt
from sam_endpoint.model.segmenter import Segmenter
from sam_endpoint.model.tracking import TrackPrompt, TrackState
from sam_endpoint.training.memory.__main__ import main
from sam_endpoint.training.memory.clips import ClipCache
from sam_endpoint.training.memory.options import MemoryPlan
from sam_endpoint.training.memory.trainer import MemoryTrainer
from tests.conftest import ROOT

PLAN = MemoryPlan(clips=2, side=128, full_side=448, frames=3, windows=1, steps=4, warmup=1)
WORDS = ["--clips", "2", "--side", "128", "--frames", "3", "--windows", "1", "--steps", "4", "--warmup", "1"]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the starter model without its memory parts."""
    folder = tmp_path_factory.mktemp("start")
    Sam2Model.from_pretrained(package.EMBEDDED_SAM2).save_pretrained(folder)
    shutil.copy(package.EMBEDDED_SAM2 / "preprocessor_config.json", folder)
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ClipCache:
    cache = ClipCache(tmp_path_factory.mktemp("clips"), PLAN.seed, PLAN.clips)
    cache.draw(1)
    return cache


def test_a_window_shows_its_objects_in_the_first_frame(clips: ClipCache) -> None:
    window = clips.window(np.random.default_rng(0), 5, 2)
    assert window.frames.dtype == np.uint8 and len(window.frames) == len(window.masks) == 5
    assert window.masks[0].any((1, 2)).all() and window.masks.shape[2:] == window.frames.shape[1:3]
    assert not (window.masks.sum(1) > 1).any(), "a pixel belongs to one object at most"


def test_the_held_out_clips_are_not_trained_on(tmp_path: Path) -> None:
    with pytest.raises(BadParameter, match=f"a --seed other than {HELD_OUT_SEED}"):
        ClipCache(tmp_path, HELD_OUT_SEED, 1)


def test_a_checkpoint_of_another_architecture_is_rejected(clips: ClipCache) -> None:
    with pytest.raises(BadData, match="not a checkpoint of this architecture"):
        MemoryTrainer(PLAN, ROOT / "checkpoints" / "sam-tiny", clips, "cpu")


def test_a_training_lowers_the_loss_of_a_window(start: Path, clips: ClipCache) -> None:
    trainer = MemoryTrainer(PLAN, start, clips, "cpu")
    window = clips.window(np.random.default_rng(1), 3, 2)

    def loss() -> float:
        with torch.no_grad():
            return trainer.compute_loss(window, np.random.default_rng(2))[0].item()

    before = loss()
    for _ in range(PLAN.steps):
        trainer.train_step()
    assert loss() < before


def test_a_resumed_training_writes_the_same_checkpoint_and_images_keep_their_results(
    start: Path, tmp_path: Path
) -> None:
    words = ["--start", str(start), *WORDS, "--save-every", "2"]
    assert main([*words, "--cache", str(tmp_path / "cache"), "--output", str(tmp_path / "whole")]) == 0
    state = tmp_path / "cache" / "memory.pt"
    state.unlink()
    clips = ClipCache(tmp_path / "cache" / "clips", PLAN.seed, PLAN.clips)
    stopped = MemoryTrainer(PLAN, start, clips, "cpu")
    for _ in range(2):
        stopped.train_step()
    stopped.save_state(state)
    assert main([*words, "--cache", str(tmp_path / "cache"), "--output", str(tmp_path / "resumed")]) == 0
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "resumed"))
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)

    image, video = (Segmenter.load(str(folder), "cpu") for folder in (start, tmp_path / "whole"))
    clip = draw_clip(HELD_OUT_SEED, 0, length=8)
    prompts = [Prompt(points=np.array([[100, 90]], np.float32), labels=np.array([1]))]
    answers = [model.segment(model.embed([clip.frames[0]])[0], prompts)[0] for model in (image, video)]
    assert torch.equal(answers[0].logits, answers[1].logits)
    mask = clip.mask(0, clip.objects()[0])
    first = TrackPrompt(0, 1, mask=mask)
    tracked = list(video.track(enumerate(clip.frames[:3]), [first], TrackState()))
    assert [frame.frame for frame in tracked] == [0, 1, 2]
