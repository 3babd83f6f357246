"""Train the memory parts of a SAM 2 on drawn clips, from the last saved state if there is one.

python -m sam_endpoint.training.memory --start checkpoints/sam2-tiny --output build/sam2-tiny-video

The image encoder and the mask decoder keep their weights, so the results of images stay the same.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import fields
from pathlib import Path

import torch
from tqdm import tqdm

from sam_endpoint.model.errors import BadData, BadParameter
from sam_endpoint.model.saved import weights_sha256
from sam_endpoint.training.cache import claim
from sam_endpoint.training.log import append_row
from sam_endpoint.training.memory.clips import ClipCache
from sam_endpoint.training.memory.options import MemoryPlan
from sam_endpoint.training.memory.trainer import MemoryTrainer
from sam_endpoint.training.plans import add_plan

LOG_COLUMNS = ("step", "seconds", "rate", "loss", "iou", "last_iou", "hidden_iou")
LOG_EVERY = 10


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=Path, required=True, help="folder of the checkpoint to start from")
    parser.add_argument("--output", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(".cache/memory"),
        help="folder for clips, state and log (default: %(default)s)",
    )
    parser.add_argument("--device", default="", help="cpu, cuda, cuda:1 (default: cuda if available)")
    parser.add_argument("--drawers", type=int, default=os.cpu_count() or 1, help="processes that draw clips")
    parser.add_argument(
        "--save-every", type=int, default=25, help="steps between two saved states (default: %(default)s)"
    )
    add_plan(parser, MemoryPlan)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = make_parser().parse_args(arguments)
    try:
        _train(options)
    except (BadData, BadParameter) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _train(options: argparse.Namespace) -> None:
    plan = MemoryPlan(**{option.name: getattr(options, option.name) for option in fields(MemoryPlan)})
    torch.set_flush_denormal(True)
    state, log = options.cache / "memory.pt", options.cache / "memory.csv"
    claim(options.cache / "memory.json", {"start": weights_sha256(options.start)}, state)
    clips = ClipCache(options.cache / "clips", plan.seed, plan.clips)
    clips.draw(options.drawers)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    trainer = MemoryTrainer(plan, options.start, clips, device)
    if state.exists():
        trainer.load_state(state)
    started = time.monotonic()
    with tqdm(initial=trainer.step, total=plan.steps, mininterval=5, desc="training", unit="step") as bar:
        while trainer.step < plan.steps:
            metrics = trainer.train_step()
            metrics |= {"step": trainer.step, "seconds": time.monotonic() - started}
            bar.update()
            bar.set_postfix({name: f"{metrics[name]:.3f}" for name in LOG_COLUMNS[3:]}, refresh=False)
            if trainer.step % LOG_EVERY == 0:
                append_row(log, LOG_COLUMNS, metrics)
            if trainer.step % options.save_every == 0 or trainer.step == plan.steps:
                trainer.save_state(state)
    trainer.export(options.output)


if __name__ == "__main__":
    raise SystemExit(main())
