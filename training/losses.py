"""What a decoded mask costs: focal and dice loss against the covered share of each cell, and the IoU head's error."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

FOCAL_WEIGHT = 20.0
REST_WEIGHT = 0.1
SQUARE_WEIGHT = 3.0
PICKING = 0.05  # of predicted IoU, by which an alternative is e times as likely to be the one


def iou(logits: Tensor, targets: Tensor) -> Tensor:
    """IoU (...) of masks `logits > 0` with `targets > 0.5`, both (..., height, width)."""
    found, true = logits > 0, targets > 0.5
    both = (found & true).sum((-2, -1)).float()
    return both / (found | true).sum((-2, -1)).clamp(min=1)


def mask_costs(logits: Tensor, targets: Tensor, balance: float) -> Tensor:
    """Focal loss (Lin et al. 2017, gamma 2) times 20 plus dice loss (Milletari et al. 2016), as in SAM, plus `balance`
    times the cross entropy in which object and background weigh the same whatever their areas.

    Without the last, a new model first learns to answer nothing at all, since most things are small, and is slow to
    come back from there. `logits` (prompts, masks, height, width), `targets` (prompts, 1, height, width) in 0 to 1,
    which for the focal weight stand in for the label (Li et al. 2020, quality focal loss); the result is
    (prompts, masks).
    """
    share = logits.sigmoid()
    targets = targets.expand_as(share)
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    focal = (entropy * (share - targets).square()).mean((-2, -1))
    both = (share * targets).sum((-2, -1))
    dice = 1 - (2 * both + 1) / (share.sum((-2, -1)) + targets.sum((-2, -1)) + 1)
    costs = FOCAL_WEIGHT * focal + dice
    if balance:
        inside = (entropy * targets).sum((-2, -1)) / (targets.sum((-2, -1)) + 1)
        outside = (entropy * (1 - targets)).sum((-2, -1)) / ((1 - targets).sum((-2, -1)) + 1)
        costs = costs + balance * (inside + outside)
    return costs


def decoding_loss(
    logits: Tensor, scores: Tensor, targets: Tensor, balance: float, picked: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The loss (scalar) of four masks a prompt, and their true IoU (prompts, 4).

    The single mask pays for itself; of the three alternatives the best pays, the others a tenth, so that none is
    forgotten. A score pays its distance from the true IoU, as it is judged (SAM's own pays the square of it).

    With `picked` the alternatives pay as well, that much, for the mask that users take, the one with the best score:
    each as likely as a softmax of the scores has it. And a score pays the square, three times: where a click may mean
    two things, the mean of what they would give tells which mask to take, and the median does not.
    `logits` (prompts, 4, height, width), `scores` (prompts, 4), `targets` (prompts, height, width); `balance` as in
    `mask_costs`.
    """
    costs = mask_costs(logits, targets[:, None], balance)
    several = costs[:, 1:]
    rest = (several.mean() - several.amin(1).mean() / 3) * REST_WEIGHT
    true = iou(logits.detach(), targets[:, None])
    loss = costs[:, 0].mean() + several.amin(1).mean() + rest
    if not picked:
        return loss + F.l1_loss(scores, true), true
    chances = (scores[:, 1:].detach() / PICKING).softmax(1)
    loss = loss + picked * (chances * several).sum(1).mean()
    return loss + SQUARE_WEIGHT * F.mse_loss(scores, true), true
