"""Train an embedded checkpoint: `python -m training.train --family sam2 --output checkpoints/sam2-tiny`.

Stop it whenever you like; the same command goes on from the last state, with the same result.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from model.families.family import Family
from training import losses, network, prompts
from training.batches import Batch, Batches
from training.cache import SceneCache
from training.muon import Muon
from training.network import Network
from training.sam import Sam
from training.sam2 import Sam2

COLUMNS = ("step", "seconds", "side", "rate", "loss", "box_iou", "click_iou", "refined_iou", "score_error")
ATTENTION = "scaled_dot_product_attention"
FAMILIES: dict[str, type[Network]] = {"sam": Sam, "sam2": Sam2}


@dataclass
class Plan:
    """Everything the weights depend on."""

    seed: int = 1
    scenes: int = 16000
    side: int = network.IMAGE_SIZE
    steps: int = 7000
    windowed: int = 4500
    whole_every: int = 1
    close: bool = False  # windows show things as large as whole inputs do
    images: int = 8
    masks: int = 4
    rate: float = 1.2e-3
    warmup: int = 80
    decay: float = 0.05
    averaging: float = 0.998
    balance: float = 2.0
    picked: float = 0.0
    frozen: bool = False  # the image encoder


class Trainer:
    """The model, its average, its optimizers and the step they have reached."""

    def __init__(
        self,
        plan: Plan,
        family: type[Network],
        config: Any,
        device: str,
        compiled: bool,
        bfloat16: bool = False,
    ) -> None:
        self.plan, self.device, self.step, self.bfloat16 = plan, device, 0, bfloat16
        self.network = family.new(config, plan.seed).train().to(device)
        self.model: Any = self.network.model
        self.average: Any = family.new(config, plan.seed).model.eval().requires_grad_(False).to(device)
        # Shapes are few: code for each compiles much faster than code for any shape at all.
        self.embed = torch.compile(self.network.embed, dynamic=False) if compiled else self.network.embed
        self.decode = torch.compile(self.network.decode, dynamic=False) if compiled else self.network.decode
        if plan.frozen:
            self.model.vision_encoder.requires_grad_(False)
        matrices: list[Tensor] = []
        others: list[Tensor] = []
        for name, weight in self.model.named_parameters():
            inner = (".layers." in name or ".blocks." in name) and weight.ndim == 2 and "rel_pos" not in name
            if weight.requires_grad:
                (matrices if inner else others).append(weight)
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon(matrices, lr=plan.rate, decay=plan.decay),
            torch.optim.AdamW(others, betas=(0.9, 0.99), weight_decay=plan.decay, fused=True),
        ]

    def rate(self) -> float:
        """The learning rate of this step: a linear start, then a straight line down to a hundredth."""
        plan = self.plan
        rise = min(1.0, (self.step + 1) / plan.warmup)
        return plan.rate * rise * max(0.01, 1 - self.step / plan.steps)

    def learn(self, batch: Batch) -> dict[str, float]:
        """One step on one batch; the figures it gave."""
        if self.bfloat16:
            with torch.autocast(self.device, torch.bfloat16), patch.object(F, ATTENTION, network.attention):
                loss, figures = self.loss(batch)
        else:
            loss, figures = self.loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.rate()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        share = 1 - min(self.plan.averaging, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            mean, now = list(self.average.parameters()), list(self.model.parameters())
            torch._foreach_lerp_(mean, now, share)
        figures |= {"rate": self.rate(), "loss": loss.item(), "side": batch.images.shape[1]}
        self.step += 1
        return figures

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Half of the masks asked for by a click, half by a box; then corrected by one or two further clicks, with or
        without the mask so far."""
        generator = torch.Generator().manual_seed(self.plan.seed * 1_000_003 + self.step)
        images, masks, boxes = (torch.as_tensor(field).to(self.device) for field in (batch[0], batch[2], batch[3]))
        corner = (int(batch.corner[0]), int(batch.corner[1]))
        side, per_image = images.shape[1], masks.shape[1]
        targets = masks.flatten(0, 1).float() / 255
        grid = side // network.PATCH_SIZE
        pixels = normalised(images, torch.as_tensor(batch.sizes).to(self.device))
        features = self.embed(pixels, self.network.patch_positions(grid, corner))
        positions = self.network.positions(grid, corner)
        clicked = (torch.arange(len(targets), device=self.device) % per_image) < per_image // 2
        shift = torch.tensor([corner[1], corner[0]], device=self.device) * float(network.PATCH_SIZE)
        # Clicks and boxes are different numbers of tokens, so they are decoded one kind after the other.
        kinds = [clicked.nonzero()[:, 0], (~clicked).nonzero()[:, 0]]
        in_order = torch.cat(kinds).argsort()

        boxed = prompts.shaken(boxes.flatten(0, 1), generator) + shift.repeat(2)
        cells, labels = prompts.first_clicks(targets, generator)
        points, labels = (2 * cells + shift)[:, None], labels[:, None]
        logits = torch.zeros_like(targets)[:, None]
        has_mask = torch.zeros(len(targets), dtype=torch.bool, device=self.device)
        # What a click picks is learnt in the first round, so that with `picked` many steps end with it.
        rounds = (1, 2, 1, 3)[self.step % 4] if self.plan.picked else (2, 2, 3)[self.step % 3]
        total = torch.zeros((), device=self.device)
        figures: dict[str, float] = {}
        balance = self.plan.balance * max(0.0, 1 - self.step / (0.2 * self.plan.steps))
        for turn in range(rounds):
            if turn:
                cells, label = prompts.next_clicks(targets, logits[:, 0], generator)
                points = torch.cat([points, (2 * cells + shift)[:, None]], dim=1)
                labels = torch.cat([labels, label[:, None]], dim=1)
                has_mask = (torch.rand(len(targets), generator=generator) < 0.7).to(self.device)
            found = []
            for kind, first, box in zip(kinds, (0, 1), (None, boxed), strict=True):
                if len(kind):
                    box = None if box is None else box[kind]
                    sparse = self.network.tokens(points[kind, first:], labels[kind, first:], box)
                    found.append(self.decode(features, positions, sparse, logits[kind], has_mask[kind]))
            masks_found, scores = (torch.cat(parts)[in_order] for parts in zip(*found, strict=True))
            loss, true = losses.decoding_loss(masks_found, scores, targets, balance, self.plan.picked)
            total = total + loss
            best = scores[:, 1:].argmax(1, keepdim=True) + 1
            use_best = clicked[:, None] & (turn == 0)
            picked = torch.where(use_best, best, torch.zeros_like(best))
            logits = masks_found.detach().gather(1, picked[:, :, None, None].expand(-1, -1, *masks_found.shape[2:]))
            quality = true.gather(1, picked)[:, 0]
            if turn == 0:
                figures["box_iou"] = quality[~clicked].mean().item()
                figures["click_iou"] = quality[clicked].mean().item()
            figures["refined_iou"] = quality.mean().item()
        figures["score_error"] = (scores.detach() - true).abs().mean().item()
        return total / rounds, figures

    def start_from(self, folder: Path) -> None:
        """Takes the weights of a checkpoint, of any input's side, instead of drawn ones."""
        for model in (self.model, self.average):
            model.load_state_dict(network.fitted(folder, model))

    def save(self, path: Path) -> None:
        state = {
            "plan": self.plan.__dict__,
            "family": self.model.config.model_type,
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        part = path.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, path)

    def load(self, path: Path) -> None:
        state = torch.load(path, map_location=self.device)
        if (state["plan"], state["family"]) != (self.plan.__dict__, self.model.config.model_type):
            raise SystemExit(f"{path} belongs to another plan: {state['family']}, {state['plan']}")
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)


def batches_of(plan: Plan, cache: SceneCache, family: type[Network]) -> Batches:
    """The plan's batches of the cache's scenes, as the family takes images."""
    sizes = plan.images, plan.masks, plan.side
    return Batches(cache, plan.seed, *sizes, plan.windowed, plan.whole_every, family.stretched, plan.close)


def normalised(images: Tensor, sizes: Tensor) -> Tensor:
    """(images, side, side, 3) uint8 to (images, 3, side, side) float32, zero outside `sizes` (images, 2)."""
    mean = torch.tensor(Family.usual_mean, device=images.device)
    std = torch.tensor(Family.usual_std, device=images.device)
    pixels = (images / 255.0 - mean) / std
    line = torch.arange(images.shape[1], device=images.device)
    inside = (line[None, :, None] < sizes[:, 0, None, None]) & (line[None, None, :] < sizes[:, 1, None, None])
    return (pixels * inside[..., None]).permute(0, 3, 1, 2).contiguous()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=FAMILIES, default="sam")
    parser.add_argument("--output", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="folder of drawn scenes and of the state")
    parser.add_argument("--start", type=Path, help="folder of a checkpoint to train on, instead of drawn weights")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes that prepare batches")
    parser.add_argument("--drawers", type=int, default=os.cpu_count(), help="processes that draw scenes beforehand")
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    parser.add_argument("--bfloat16", action="store_true", help="compute in bfloat16 where that is safe")
    parser.add_argument("--save-every", type=int, default=100, help="steps between states")
    for field in fields(Plan):
        name, kind = f"--{field.name.replace('_', '-')}", type(field.default)
        if kind is bool:
            parser.add_argument(name, action="store_true")
        else:
            parser.add_argument(name, type=kind, default=field.default)
    args = parser.parse_args()
    plan = Plan(**{field.name: getattr(args, field.name) for field in fields(Plan)})
    torch.set_flush_denormal(True)

    cache = SceneCache(args.cache / "scenes", plan.seed, plan.scenes)
    cache.draw(args.drawers)
    family = FAMILIES[args.family]
    trainer = Trainer(plan, family, family.config(image_size=plan.side), args.device, not args.eager, args.bfloat16)
    state, log = args.cache / f"{args.family}.pt", args.cache / f"{args.family}.csv"
    if state.exists():
        trainer.load(state)
    elif args.start:
        trainer.start_from(args.start)
    batches = batches_of(plan, cache, family)
    loader = DataLoader(batches, batch_size=None, sampler=range(trainer.step, plan.steps), num_workers=args.workers)
    began = time.monotonic()
    for batch in (bar := tqdm(loader, initial=trainer.step, total=plan.steps, mininterval=5)):
        figures = trainer.learn(batch)
        figures |= {"step": trainer.step, "seconds": time.monotonic() - began}
        bar.set_postfix({name: f"{figures[name]:.3f}" for name in COLUMNS[4:]}, refresh=False)
        if trainer.step % 10 == 0:
            write_row(log, figures)
        if trainer.step % args.save_every == 0 or trainer.step == plan.steps:
            trainer.save(state)
            network.export(trainer.average, args.output)


def write_row(path: Path, figures: dict[str, float]) -> None:
    """Append one step's figures to the log."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(COLUMNS)
        writer.writerow([f"{figures[name]:.5g}" for name in COLUMNS])


if __name__ == "__main__":
    main()
