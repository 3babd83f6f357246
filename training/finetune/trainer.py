"""The trainer of a fine-tuning: training steps, validation, early stopping, and a saved state to resume from."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sam_endpoint.model.families.family import Family
from sam_endpoint.training import losses, prompts
from sam_endpoint.training.finetune import prompting
from sam_endpoint.training.finetune.encoder import add_adapters, encode_with_gradients
from sam_endpoint.training.finetune.features import FeatureSource, Sample
from sam_endpoint.training.finetune.options import Plan
from sam_endpoint.training.finetune.prompting import ObjectBatch

OUTSIDE = -20.0  # logit of cells outside the image, which makes their loss and gradient nearly zero
# Number of prompt rounds of an object. Batch i has `ROUNDS[i % len(ROUNDS)]` rounds. Most batches have one round, since
# users mostly send a single prompt, and a single round costs the least time.
ROUNDS = (1, 3, 1, 1, 2, 1, 2, 1)
PROBED = 4  # number of batches to time; the first four batches have as many rounds as the average of all batches
MAX_VALIDATED = 200  # approximate maximum number of objects in a validation
AVERAGED = 50  # number of latest steps, approximately, whose weights are averaged for validation and for the result
SAVE_SECONDS = 5.0  # minimum time between two saved states
SAVE_SHARE = 20  # the time between two saved states is at least 20 times the time of saving


class Finetuner:
    """A fine-tuning that can be stopped at any moment and resumed with the same result.

    Args:
        family: The base model, whose weights are trained in place.
        plan: The options that determine the weights; `steps` is above 0.
        samples: The images to train on.
        watched: The images that early stopping watches; can be empty.
        source: Source of the images' features.

    Attributes:
        step: The number of finished steps.
        history: A row of metrics for each validation.
        best_figure: The best validation figure so far.
        finished: Whether all steps are done, or training stopped early.
    """

    def __init__(
        self, family: Family, plan: Plan, samples: Sequence[Sample], watched: Sequence[Sample], source: FeatureSource
    ) -> None:
        self.family, self.plan, self.samples, self.source = family, plan, samples, source
        self.step = 0
        self.finished = False
        self.history: list[dict[str, float]] = []
        self.best_figure, self.best_step, self.waited = -1.0, 0, 0
        self._validation = prompting.fixed_batches(family, watched, MAX_VALIDATED)
        self._recent: list[float] = []
        model = family.model
        model.requires_grad_(False)
        if plan.mode == "lora":
            add_adapters(family, plan.rank, plan.seed)
            for name, weight in family.vision_encoder.named_parameters():
                weight.requires_grad_(name.endswith((".down", ".up")))
        elif plan.mode == "full":
            family.vision_encoder.requires_grad_(True)
        family.prompt_model.mask_decoder.requires_grad_(True)
        self.weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self._average = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self._best = self._copy_average()
        self._optimizer = torch.optim.AdamW(self.weights.values(), lr=plan.rate, weight_decay=plan.decay)
        self._saved_at, self._save_seconds = -math.inf, 0.0

    def learning_rate(self) -> float:
        """Return the learning rate of the current step. The rate rises linearly, then falls along a cosine to 1/20."""
        plan = self.plan
        rise = min(1.0, (self.step + 1) / plan.warmup)
        fall = 0.5 * (1 + math.cos(math.pi * min(1.0, self.step / plan.steps)))
        return plan.rate * rise * max(0.05, fall)

    def train_step(self) -> float:
        """Train one step on `plan.accumulate` batches and return its loss."""
        self.family.prompt_model.mask_decoder.train()
        total = 0.0
        for part in range(self.plan.accumulate):
            number = self.step * self.plan.accumulate + part
            batch = prompting.batch_at(self.family, self.samples, self.plan, number)
            with self._autocast():
                loss = self.compute_loss(batch, number) / self.plan.accumulate
            torch.autograd.backward(loss)
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(self.weights.values(), 1.0)
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        share = max(1 / AVERAGED, 1 / self.step)  # the first steps have equal shares
        for name, weight in self.weights.items():
            self._average[name].lerp_(weight.detach(), share)
        return total

    def probe(self) -> float:
        """Return the seconds of a step's forward and backward passes, without changing any weight."""
        self.family.prompt_model.mask_decoder.train()
        started = time.monotonic()
        for number in range(PROBED):
            batch = prompting.batch_at(self.family, self.samples, self.plan, number)
            with self._autocast():
                loss = self.compute_loss(batch, number)
            torch.autograd.backward(loss)
        self._optimizer.zero_grad(set_to_none=True)
        return (time.monotonic() - started) / PROBED * self.plan.accumulate

    def compute_loss(self, batch: ObjectBatch, number: int) -> Tensor:
        """Return the loss of a batch.

        As in the evaluation, the model predicts three masks for a first click, and a single mask for a box. In every
        fourth batch, it predicts three masks for a box too. Each further round adds a click where the mask of the
        previous round is wrong. The logits of the previous mask are the mask input, and the model predicts a single
        mask.

        Args:
            batch: The objects.
            number: The batch's number, which seeds the prompts.
        """
        generator = torch.Generator().manual_seed(self.plan.seed * 1_000_003 + number)
        features = self._features(batch)
        boxes = prompts.jitter_boxes(batch.boxes, generator)
        cells, labels = prompts.first_clicks(batch.targets, generator)
        points, labels = prompting.to_points(self.family, cells)[:, None], labels[:, None]
        logits = torch.zeros_like(batch.targets)
        rounds = ROUNDS[number % len(ROUNDS)]
        total = torch.zeros((), device=batch.targets.device)
        for turn in range(rounds):
            if turn:
                cells, label = prompts.next_clicks(batch.targets, logits, generator)
                points = torch.cat([points, prompting.to_points(self.family, cells)[:, None]], 1)
                labels = torch.cat([labels, label[:, None]], 1)
            answers = torch.zeros_like(logits)
            # Prompts of different layouts are decoded separately.
            for chosen, boxed in ((batch.clicked, False), (~batch.clicked, True)):
                rows = chosen.nonzero()[:, 0]
                if not len(rows):
                    continue
                first = int(boxed)  # a box takes the place of the first click
                use_points = turn >= first
                predicted, scores = self.family.predict(
                    tuple(part[rows] for part in features),
                    points[rows, first:] if use_points else None,
                    labels[rows, first:] if use_points else None,
                    boxes[rows] if boxed else None,
                    logits[rows][:, None] if turn else None,
                    multimask_output=turn == 0 and (not boxed or number % 4 == 0),
                )
                predicted = predicted.float().masked_fill(~batch.inside[rows][:, None], OUTSIDE)
                loss = losses.answer_loss(predicted, scores.float(), batch.targets[rows])
                total = total + loss * (len(rows) / len(chosen))
                best = scores.argmax(1)
                answers[rows] = predicted.detach()[torch.arange(len(rows), device=best.device), best]
            logits = answers
        return total / rounds

    @torch.no_grad()
    def validate(self) -> float:
        """Return the mean low-resolution IoU of the averaged weights on the watched images.

        One click and the box have equal weights.
        """
        self.family.prompt_model.mask_decoder.eval()
        latest = {name: weight.clone() for name, weight in self.weights.items()}
        self._use(self._average)
        values = []
        for batch in self._validation:
            features = self._features(batch)
            points = prompting.to_points(self.family, prompting.central_clicks(batch.targets))[:, None]
            labels = torch.ones(points.shape[:2], dtype=torch.long, device=points.device)
            for answer in (
                self.family.predict(features, points, labels, None, None, True),
                self.family.predict(features, None, None, batch.boxes, None, False),
            ):
                predicted = answer[0].float().masked_fill(~batch.inside[:, None], OUTSIDE)
                rows = torch.arange(len(predicted), device=predicted.device)
                values.append(losses.iou(predicted[rows, answer[1].argmax(1)], batch.targets))
        self._use(latest)
        return float(torch.cat(values).double().mean()) if values else 0.0

    def advance(self) -> dict[str, float]:
        """Train one step, and validate if a validation is due. Return the loss and the latest validation figure."""
        if not self.history:
            self._check(0.0)
        loss = self.train_step()
        self._recent.append(loss)
        if self.step % self.plan.validate_every == 0 or self.step == self.plan.steps:
            self._check(sum(self._recent) / len(self._recent))
            self._recent = []
        return {"loss": loss, "figure": self.history[-1]["figure"]}

    def _check(self, loss: float) -> None:
        """Validate, keep the weights if they are the best, and decide whether the training is finished."""
        figure = self.validate()
        self.history.append({"step": self.step, "loss": loss, "figure": figure, "rate": self.learning_rate()})
        if figure > self.best_figure or not self._validation:
            self.best_figure, self.best_step, self.waited = figure, self.step, 0
            self._best = self._copy_average()
        else:
            self.waited += 1
        self.finished = self.step == self.plan.steps or self.waited >= self.plan.patience

    def use_best(self) -> None:
        """Give the model the best averaged weights."""
        self._use(self._best)
        self.family.prompt_model.mask_decoder.eval()

    def save_if_due(self, path: Path) -> None:
        """Save the state if the last saved state is old enough, or if the training is finished."""
        age = time.monotonic() - self._saved_at
        if self.finished or age > max(SAVE_SECONDS, SAVE_SHARE * self._save_seconds):
            self.save(path)

    def save(self, path: Path) -> None:
        """Write everything that a resumed training needs. A kill leaves either the previous file or the new file."""
        started = time.monotonic()
        state = {
            "step": self.step,
            "finished": self.finished,
            "history": self.history,
            "recent": self._recent,
            "best": [self.best_figure, self.best_step, self.waited],
            "weights": {name: weight.detach() for name, weight in self.weights.items()},
            "average_weights": self._average,
            "best_weights": self._best,
            "optimizer": self._optimizer.state_dict(),
        }
        part = path.with_suffix(".part")
        try:
            torch.save(state, part)
            os.replace(part, path)
        except (OSError, RuntimeError) as error:
            part.unlink(missing_ok=True)
            raise OSError(f"'{path}' cannot be written: {error}; the previous state is kept") from error
        self._saved_at = time.monotonic()
        self._save_seconds = self._saved_at - started

    def load(self, path: Path) -> None:
        """Continue from a saved state. The state must belong to the same plan, base model and data."""
        state: dict[str, Any] = torch.load(path, map_location=self.family.device, weights_only=True)
        self.step, self.finished = state["step"], state["finished"]
        self.history, self._recent = state["history"], state["recent"]
        self.best_figure, self.best_step, self.waited = state["best"]
        self._average, self._best = state["average_weights"], state["best_weights"]
        self._use(state["weights"])
        self._optimizer.load_state_dict(state["optimizer"])

    def _copy_average(self) -> dict[str, Tensor]:
        return {name: weight.clone() for name, weight in self._average.items()}

    def _use(self, weights: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(weights[name])

    def _features(self, batch: ObjectBatch) -> tuple[Tensor, ...]:
        """Return the feature maps of each object's image, each (p, channels, height, width)."""
        per_image = [self.source.features(sample) for sample in batch.samples]
        if self.source.frozen:
            maps = tuple(torch.cat(parts) for parts in zip(*per_image, strict=True))
        else:
            pixels = torch.cat([parts[0] for parts in per_image])
            maps = encode_with_gradients(self.family, pixels)[: self.family.prompt_maps]
        return tuple(part[batch.owners] for part in maps)

    def _autocast(self) -> AbstractContextManager[Any]:
        """Use bfloat16 on a GPU. On a CPU, float32 is as fast and more exact."""
        if self.family.device.type != "cuda":
            return nullcontext()
        return torch.autocast("cuda", torch.bfloat16)
