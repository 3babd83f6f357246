"""Train a checkpoint on synthetic scenes and photographs, from the last saved state if there is one."""

from __future__ import annotations

import hashlib
import time
from functools import partial

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from sam_endpoint.model.saved import weights_sha256
from sam_endpoint.training import network
from sam_endpoint.training.batches import Mixture
from sam_endpoint.training.cache import SceneCache, claim
from sam_endpoint.training.composites import EDGE, draw_composite
from sam_endpoint.training.families import FAMILIES
from sam_endpoint.training.log import append_row
from sam_endpoint.training.options import TrainingOptions
from sam_endpoint.training.photographs import FILE, Photograph, read_photographs
from sam_endpoint.training.trainer import Trainer, make_batches

LOG_COLUMNS = ("step", "seconds", "side", "rate", "loss", "box_iou", "click_iou", "refined_iou", "score_error")
LOG_EVERY = 10


def train(options: TrainingOptions) -> None:
    """Train a checkpoint to the end of its plan. Continue from the saved state in the cache if there is one.

    The function writes the state to `CACHE/FAMILY.pt`, the log to `CACHE/FAMILY.csv` and the checkpoint to `OUTPUT`.

    Raises:
        BadData: A folder of photographs has no valid COCO file.
        BadParameter: The state in the cache belongs to another plan, another start or other photographs.
        OSError: The checkpoint to start from cannot be read, or a file cannot be written.
    """
    plan, family = options.plan, FAMILIES[options.family]
    torch.set_flush_denormal(True)
    photographs = read_photographs(options.photographs)
    digest = hashlib.sha256(b"".join((folder / FILE).read_bytes() for folder in options.photographs)).hexdigest()
    in_place = options.start is not None and options.start.resolve() == options.output.resolve()
    origin = {"start": "output" if in_place else weights_sha256(options.start), "photographs": digest}
    state, log = options.cache / f"{options.family}.pt", options.cache / f"{options.family}.csv"
    claim(options.cache / f"{options.family}.json", origin, state)
    mixture = _mix_photographs(options, photographs, digest) if photographs else None
    cache = SceneCache(options.cache / "scenes", plan.seed, plan.scenes)
    cache.draw(options.drawers)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    config = family.config(image_size=plan.side)
    trainer = Trainer(plan, family, config, device, compiled=not options.eager, bfloat16=options.bfloat16)
    if state.exists():
        trainer.load_state(state)
    elif options.start:
        trainer.start_from(options.start)
    if trainer.step == plan.steps:
        network.save_checkpoint(trainer.average, options.output)
    batches = make_batches(plan, cache, family, mixture)
    steps = range(trainer.step, plan.steps)
    loader = DataLoader(batches, batch_size=None, sampler=steps, num_workers=options.workers)
    started = time.monotonic()
    for batch in (bar := tqdm(loader, initial=trainer.step, total=plan.steps, mininterval=5)):
        metrics = trainer.train_step(batch)
        metrics |= {"step": trainer.step, "seconds": time.monotonic() - started}
        bar.set_postfix({name: f"{metrics[name]:.3f}" for name in LOG_COLUMNS[4:]}, refresh=False)
        if trainer.step % LOG_EVERY == 0:
            append_row(log, LOG_COLUMNS, metrics)
        if trainer.step % options.save_every == 0 or trainer.step == plan.steps:
            trainer.save_state(state)
            network.save_checkpoint(trainer.average, options.output)


def _mix_photographs(options: TrainingOptions, photographs: list[Photograph], digest: str) -> Mixture:
    """Mix photographs, whose files have the hash `digest`, and composites of them. Draw the missing composites."""
    plan = options.plan
    composites = SceneCache(options.cache / f"composites-{digest[:8]}", plan.seed, plan.composites, EDGE)
    composites.draw(options.drawers, partial(draw_composite, photographs))
    return Mixture(photographs, composites, plan.photograph_share, plan.composite_share)
