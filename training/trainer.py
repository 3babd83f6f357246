"""The trainer: a model, the moving average of its weights, its optimizers, and the training steps."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from sam_endpoint.model.errors import BadParameter
from sam_endpoint.model.families.family import Family
from sam_endpoint.training import losses, network, prompts
from sam_endpoint.training.batches import Batch, Batches, Mixture
from sam_endpoint.training.cache import SceneCache
from sam_endpoint.training.muon import Muon
from sam_endpoint.training.network import Network
from sam_endpoint.training.options import Plan

ATTENTION = "scaled_dot_product_attention"


class Trainer:
    """A training that can be stopped and resumed at any step.

    Args:
        plan: The options of the training that change its result.
        family: The network class.
        config: The transformers config of the model.
        device: The torch device.
        compiled: Whether to compile the model with torch.compile.
        bfloat16: Whether to use torch.autocast with bfloat16.

    Attributes:
        average: A model with the moving average of the weights. This model is exported.
        step: The number of finished steps.
    """

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
        self.network = family.create(config, plan.seed).train().to(device)
        self.model: Any = self.network.model
        self.average: Any = family.create(config, plan.seed).model.eval().requires_grad_(False).to(device)
        # Inputs have few different shapes, so torch compiles code for each shape (`dynamic=False`). This is much faster
        # than compiling code that works for all shapes.
        self.embed = torch.compile(self.network.embed, dynamic=False) if compiled else self.network.embed
        self.decode = torch.compile(self.network.decode, dynamic=False) if compiled else self.network.decode
        if plan.frozen:
            self.model.vision_encoder.requires_grad_(False)
        self.optimizers = self._make_optimizers()

    def _make_optimizers(self) -> list[torch.optim.Optimizer]:
        """Return Muon for the matrices of the transformer layers, and AdamW for all other weights."""
        matrices: list[Tensor] = []
        remaining: list[Tensor] = []
        for name, weight in self.model.named_parameters():
            in_layer = (".layers." in name or ".blocks." in name) and weight.ndim == 2 and "rel_pos" not in name
            if weight.requires_grad:
                (matrices if in_layer else remaining).append(weight)
        plan = self.plan
        return [
            Muon(matrices, lr=plan.rate, decay=plan.decay),
            torch.optim.AdamW(remaining, betas=(0.9, 0.99), weight_decay=plan.decay, fused=True),
        ]

    def learning_rate(self) -> float:
        """Return the learning rate of the current step.

        The rate rises linearly during the first `plan.warmup` steps. It falls linearly to a hundredth of `plan.rate`
        at the end of the training.
        """
        plan = self.plan
        rise = min(1.0, (self.step + 1) / plan.warmup)
        return plan.rate * rise * max(0.01, 1 - self.step / plan.steps)

    def train_step(self, batch: Batch) -> dict[str, float]:
        """Train on one batch and return the metrics of the step."""
        if self.bfloat16:
            # `network.attention` is faster than the function of torch that it replaces.
            with torch.autocast(self.device, torch.bfloat16), patch.object(F, ATTENTION, network.attention):
                loss, metrics = self.compute_loss(batch)
        else:
            loss, metrics = self.compute_loss(batch)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        share = 1 - min(self.plan.averaging, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), share)
        metrics |= {"rate": self.learning_rate(), "loss": loss.item(), "side": batch.images.shape[1]}
        self.step += 1
        return metrics

    def compute_loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the loss (scalar) and the metrics of a batch.

        The model predicts the target masks in one to three rounds. In the first round, one half of the masks have a
        click as their prompt, and the other half have a box. Each further round adds a click where the predicted mask
        is wrong. In each further round, about 70 % of the prompts, drawn at random, also get the logits of the
        predicted mask as their mask input.
        """
        generator = torch.Generator().manual_seed(self.plan.seed * 1_000_003 + self.step)
        images, masks, boxes = (torch.as_tensor(field).to(self.device) for field in (batch[0], batch[2], batch[3]))
        corner = (int(batch.corner[0]), int(batch.corner[1]))
        side, per_image = images.shape[1], masks.shape[1]
        targets = masks.flatten(0, 1).float() / 255
        grid = side // network.PATCH_SIZE
        pixels = normalize(images, torch.as_tensor(batch.sizes).to(self.device))
        features = self.embed(pixels, self.network.patch_positions(grid, corner))
        positions = self.network.positions(grid, corner)
        clicked = (torch.arange(len(targets), device=self.device) % per_image) < per_image // 2
        shift = torch.tensor([corner[1], corner[0]], device=self.device) * float(network.PATCH_SIZE)
        # Clicks and boxes have different numbers of tokens, so each kind is decoded separately.
        kinds = [clicked.nonzero()[:, 0], (~clicked).nonzero()[:, 0]]
        in_order = torch.cat(kinds).argsort()

        jittered = prompts.jitter_boxes(boxes.flatten(0, 1), generator) + shift.repeat(2)
        cells, labels = prompts.first_clicks(targets, generator)
        points, labels = (2 * cells + shift)[:, None], labels[:, None]
        logits = torch.zeros_like(targets)[:, None]
        has_mask = torch.zeros(len(targets), dtype=torch.bool, device=self.device)
        # `picked` trains the choice among three masks. Only a first click needs this choice, so with `picked` half of
        # the steps have a single round.
        rounds = (1, 2, 1, 3)[self.step % 4] if self.plan.picked else (2, 2, 3)[self.step % 3]
        total = torch.zeros((), device=self.device)
        metrics: dict[str, float] = {}
        balance = self.plan.balance * max(0.0, 1 - self.step / (0.2 * self.plan.steps))
        for turn in range(rounds):
            if turn:
                cells, label = prompts.next_clicks(targets, logits[:, 0], generator)
                points = torch.cat([points, (2 * cells + shift)[:, None]], dim=1)
                labels = torch.cat([labels, label[:, None]], dim=1)
                has_mask = (torch.rand(len(targets), generator=generator) < 0.7).to(self.device)
            parts = []
            # A prompt with a box has no first click, so its clicks begin at index 1.
            for kind, first, box in zip(kinds, (0, 1), (None, jittered), strict=True):
                if len(kind):
                    box = None if box is None else box[kind]
                    sparse = self.network.tokens(points[kind, first:], labels[kind, first:], box)
                    parts.append(self.decode(features, positions, sparse, logits[kind], has_mask[kind]))
            predicted, scores = (torch.cat(part)[in_order] for part in zip(*parts, strict=True))
            loss, ious = losses.decoding_loss(predicted, scores, targets, balance, self.plan.picked)
            total = total + loss
            best = scores[:, 1:].argmax(1, keepdim=True) + 1
            use_best = clicked[:, None] & (turn == 0)
            index = torch.where(use_best, best, torch.zeros_like(best))
            logits = predicted.detach().gather(1, index[:, :, None, None].expand(-1, -1, *predicted.shape[2:]))
            quality = ious.gather(1, index)[:, 0]
            if turn == 0:
                metrics["box_iou"] = quality[~clicked].mean().item()
                metrics["click_iou"] = quality[clicked].mean().item()
            metrics["refined_iou"] = quality.mean().item()
        metrics["score_error"] = (scores.detach() - ious).abs().mean().item()
        return total / rounds, metrics

    def start_from(self, folder: Path) -> None:
        """Replace the random weights with the weights of a checkpoint. The checkpoint's input may have another size."""
        for model in (self.model, self.average):
            model.load_state_dict(network.load_weights(folder, model))

    def save_state(self, path: Path) -> None:
        """Write the state that a resumed training needs. The file is written under another name first, then renamed."""
        state = {
            "plan": asdict(self.plan),
            "family": self.model.config.model_type,
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        part = path.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, path)

    def load_state(self, path: Path) -> None:
        """Load a saved state. Raises BadParameter if the state belongs to another plan or family."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        if (state["plan"], state["family"]) != (asdict(self.plan), self.model.config.model_type):
            raise BadParameter(
                f"'{path}' belongs to another training ({state['family']}, {state['plan']}); "
                "choose another --cache, or remove the file"
            )
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)


def make_batches(plan: Plan, cache: SceneCache, family: type[Network], mixture: Mixture | None = None) -> Batches:
    """Return the batches of a plan.

    Args:
        plan: The plan.
        cache: The scenes.
        family: The network class, which decides whether images are padded or stretched.
        mixture: Photographs and composites; None to train on drawn scenes only.
    """
    return Batches(
        cache,
        plan.seed,
        images=plan.images,
        masks=plan.masks,
        side=plan.side,
        windowed=plan.windowed,
        whole_every=plan.whole_every,
        stretched=family.stretched,
        close=plan.close,
        mixture=mixture,
    )


def normalize(images: Tensor, sizes: Tensor) -> Tensor:
    """Normalise images with the mean and standard deviation that published checkpoints use.

    Args:
        images: (images, side, side, 3) uint8.
        sizes: (images, 2), the height and width of each image without its padding.

    Returns:
        (images, 3, side, side) float32, zero in the padding.
    """
    mean = torch.tensor(Family.usual_mean, device=images.device)
    std = torch.tensor(Family.usual_std, device=images.device)
    pixels = (images / 255.0 - mean) / std
    line = torch.arange(images.shape[1], device=images.device)
    inside = (line[None, :, None] < sizes[:, 0, None, None]) & (line[None, None, :] < sizes[:, 1, None, None])
    return (pixels * inside[..., None]).permute(0, 3, 1, 2).contiguous()
