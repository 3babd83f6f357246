"""The trainer of memory parts: it tracks the objects of short windows of clips with gradients."""

from __future__ import annotations

import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sam_endpoint.model import families
from sam_endpoint.model.errors import BadParameter
from sam_endpoint.model.families.sam2_video import DecodedObjects, Recall, Sam2Video
from sam_endpoint.training import losses, network, prompts
from sam_endpoint.training.memory import model as video_model
from sam_endpoint.training.memory.clips import ClipCache, Window
from sam_endpoint.training.memory.options import MemoryPlan

CLICK, BOX, MASK = KINDS = ("click", "box", "mask")
SHARES = (0.5, 0.3, 0.2)  # of the kinds of prompts
CORNERS = (2, 3)  # labels of the corners of a box
VISIBLE_SHARE = 0.5  # an object of which no cell of the grid has this share is hidden
VISIBILITY_WEIGHT = 1.0  # of the loss of the visibility
MIN_LOGIT = -30.0  # objects that the model takes for hidden have the logits -1024


class MemoryTrainer:
    """A training of memory parts that can be stopped and resumed at any step.

    Args:
        plan: The options that determine the weights.
        start: The folder of the checkpoint whose weights the model takes.
        clips: The clips to train on.
        device: The torch device.

    Attributes:
        step: The number of finished steps.
        average: The moving average of the trained weights, by name.
    """

    def __init__(self, plan: MemoryPlan, start: Path, clips: ClipCache, device: str) -> None:
        self.plan, self.clips, self.step = plan, clips, 0
        config = video_model.video_config(plan.side, plan.memories, plan.layers)
        self.model = video_model.create(config, start, plan.seed).to(device)
        family = families.wrap(self.model)
        assert isinstance(family, Sam2Video)
        self.family = family
        video_model.scale_rotation(family, plan.full_side)
        self.model.requires_grad_(False)
        self.weights = video_model.trainable(self.model)
        for weight in self.weights.values():
            weight.requires_grad_(True)
        self.average = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self._optimizer = torch.optim.AdamW(
            self.weights.values(), lr=plan.rate, betas=(0.9, 0.99), weight_decay=plan.decay
        )

    def learning_rate(self) -> float:
        """Return the learning rate of the current step. The rate rises linearly, then falls along a cosine to 1/50."""
        plan = self.plan
        rise = min(1.0, (self.step + 1) / plan.warmup)
        return plan.rate * rise * max(0.02, 0.5 * (1 + math.cos(math.pi * self.step / plan.steps)))

    def train_step(self) -> dict[str, float]:
        """Train on `plan.windows` windows and return the metrics of the step."""
        rng = np.random.default_rng([self.plan.seed, self.step])
        measured: list[dict[str, float]] = []
        for _ in range(self.plan.windows):
            window = self.clips.window(rng, self.plan.frames, self.plan.objects)
            loss, metrics = self.compute_loss(window, rng)
            torch.autograd.backward(loss / self.plan.windows)
            measured.append(metrics | {"loss": loss.item()})
        norm = torch.nn.utils.clip_grad_norm_(self.weights.values(), 1.0)
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        share = 1 - min(self.plan.averaging, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), list(self.weights.values()), share)
        self.step += 1
        means = {name: _mean([metrics[name] for metrics in measured]) for name in measured[0]}
        return means | {"rate": self.learning_rate(), "norm": float(norm)}

    def compute_loss(self, window: Window, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        """Track the objects of a window. Return the loss (scalar) and the metrics.

        In the first frame, a click, a box or the true mask prompts each object. In the other frames, the model attends
        to its memories. With a probability that falls during the training, the memory of a frame is that of the true
        mask, so that early training does not depend on wrong masks.
        """
        family, device = self.family, self.family.device
        features = self._encode(window)
        targets = self._targets(window)
        visible = (targets.flatten(2).amax(2) >= VISIBLE_SHARE).float()
        forced = self.plan.forced * max(0.0, 1 - 2 * self.step / self.plan.steps)
        kind = KINDS[rng.choice(len(KINDS), p=SHARES)]
        memories: list[Tensor] = []
        pointers: list[Tensor] = []
        total = torch.zeros((), device=device)
        ious = []
        for t, maps in enumerate(features):
            if t == 0:
                decoded = self._prompt(maps, window, targets[0], kind)
            else:
                image = family.condition(maps[-1], self._recall(memories, pointers))
                decoded = family.decode_objects((*maps[:-1], image), None, None, False)
            logits = decoded.logits.clamp(min=MIN_LOGIT)
            if t:
                costs = losses.mask_costs(logits[:, None], targets[t][:, None], balance=0)[:, 0]
                seen = F.binary_cross_entropy_with_logits(decoded.visible.clamp(-15, 15), visible[t])
                total = total + costs.mean() + VISIBILITY_WEIGHT * seen
                iou = losses.iou(logits.detach(), targets[t])
                ious.append(torch.where(visible[t] > 0, iou, (logits.detach() <= 0).flatten(1).all(1).float()))
            elif kind != MASK:
                total = total + F.binary_cross_entropy_with_logits(decoded.visible.clamp(-15, 15), visible[0])
            is_forced = t > 0 and rng.random() < forced
            memories.append(self._memorize(maps[-1], decoded, targets[t] if is_forced else None, t == 0))
            pointers.append(decoded.pointers)
        tracked = torch.stack(ious)
        hidden = visible[1:] == 0
        metrics = {
            "iou": tracked[~hidden].mean().item(),
            "last_iou": tracked[-1][~hidden[-1]].mean().item(),
            "hidden_iou": tracked[hidden].mean().item(),
        }
        return total / (len(features) - 1), metrics

    @torch.no_grad()
    def _encode(self, window: Window) -> list[tuple[Tensor, ...]]:
        """Return the feature maps of each frame, each (1, channels, height, width)."""
        pixels = torch.stack([self.family.preprocess(frame) for frame in window.frames]).to(self.family.device)
        maps = self.family.embed(pixels)
        return [tuple(part[t : t + 1] for part in maps) for t in range(len(pixels))]

    def _targets(self, window: Window) -> Tensor:
        """Return the share of each low-resolution cell that each object covers, (T, p, h, w) float32."""
        masks = torch.from_numpy(window.masks).to(self.family.device).float()
        return F.interpolate(masks, self.family.low_res_size, mode="bilinear", antialias=True)

    def _prompt(self, maps: tuple[Tensor, ...], window: Window, targets: Tensor, kind: str) -> DecodedObjects:
        """Decode the first frame with prompts of one kind."""
        family = self.family
        if kind == MASK:
            masks = torch.stack([family.prepare_mask(torch.from_numpy(mask)) for mask in window.masks[0]])
            return family.use_masks(maps, masks.to(targets.device))
        generator = torch.Generator().manual_seed(self.plan.seed * 1_000_003 + self.step)
        stride = family.input_size / family.low_res_size[0]
        if kind == BOX:
            inside = targets > VISIBLE_SHARE
            boxes = torch.stack([_box(mask) for mask in inside]) * stride
            points = prompts.jitter_boxes(boxes, generator).unflatten(1, (2, 2))
            labels = torch.tensor([CORNERS] * len(boxes), device=targets.device)
        else:
            cells, labels = prompts.first_clicks(targets, generator)
            points, labels = ((cells.float() + 0.5) * stride)[:, None], labels[:, None]
        image = family.mark(maps[-1]).expand(len(targets), -1, -1, -1)
        return family.decode_objects((*maps[:-1], image), points, labels, True)

    def _recall(self, memories: list[Tensor], pointers: list[Tensor]) -> Recall:
        """Return what the objects remember of the frames before: the prompted frame 0, and the latest frames."""
        family, now = self.family, len(memories)
        latest = [(distance, now - distance) for distance in range(family.num_memories, 0, -1) if now - distance > 0]
        frames = [(0, 0), *latest]
        # `_recalled` in model/tracking/step.py lists the pointers in the same order.
        pointed = [
            (now, 0),
            *((distance, now - distance) for distance in range(1, family.max_pointers) if distance < now),
        ]
        count, device = len(memories[0]), family.device
        return Recall(
            torch.stack([memories[frame] for _, frame in frames], 1),
            torch.tensor([[distance for distance, _ in frames]] * count, device=device),
            torch.stack([pointers[frame] for _, frame in pointed], 1),
            torch.tensor([[distance for distance, _ in pointed]] * count, device=device),
            family.max_pointers - 1,
        )

    def _memorize(self, image: Tensor, decoded: DecodedObjects, true: Tensor | None, is_prompted: bool) -> Tensor:
        """Return the memories of a frame: those of the decoded masks, or of `true` masks (p, h, w)."""
        family = self.family
        if true is None:
            large = family.enlarge(decoded.logits) if decoded.large is None else decoded.large
            visible = decoded.visible
        else:
            large = family.enlarge(true) * 20 - 10
            visible = (true.flatten(1).amax(1) >= VISIBLE_SHARE).float() * 20 - 10
        binarize = torch.full((len(large),), is_prompted, device=large.device)
        return family.memorize(image, large, visible, binarize)

    def export(self, folder: Path) -> None:
        """Write a checkpoint with the averaged weights, for the input of `plan.full_side` pixels."""
        plan = self.plan
        config = video_model.video_config(plan.full_side, plan.memories, plan.layers)
        model: Any = type(self.model)(config)
        model.load_state_dict({**self.model.state_dict(), **self.average})
        network.save_checkpoint(model, folder)

    def save_state(self, path: Path) -> None:
        """Write the state that a resumed training needs. The file is written under another name first, then renamed."""
        state = {
            "plan": asdict(self.plan),
            "step": self.step,
            "weights": {name: weight.detach() for name, weight in self.weights.items()},
            "average": self.average,
            "optimizer": self._optimizer.state_dict(),
        }
        part = path.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, path)

    def load_state(self, path: Path) -> None:
        """Load a saved state. Raises BadParameter if the state belongs to another plan."""
        state = torch.load(path, map_location=self.family.device, weights_only=True)
        if state["plan"] != asdict(self.plan):
            raise BadParameter(f"'{path}' belongs to another training; choose another --cache, or remove the file")
        self.step, self.average = state["step"], state["average"]
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(state["weights"][name])
        self._optimizer.load_state_dict(state["optimizer"])


def _mean(values: list[float]) -> float:
    """Return the mean of the values that are not nan; nan if all are."""
    numbers = [value for value in values if not math.isnan(value)]
    return sum(numbers) / len(numbers) if numbers else math.nan


def _box(mask: Tensor) -> Tensor:
    """Return the bounding box x1, y1, x2, y2 (4,) float32 of a mask (height, width) in cells; the mask can be empty."""
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    if not len(rows):
        return mask.new_zeros(4, dtype=torch.float32)
    return torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).float()
