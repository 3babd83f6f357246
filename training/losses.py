"""The loss of decoded masks: focal and dice loss against the covered share of each cell, and the scores' error."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

FOCAL_WEIGHT = 20.0
REMAINDER_WEIGHT = 0.1
SQUARE_WEIGHT = 3.0
TEMPERATURE = 0.05  # of the softmax of predicted IoU over the three alternatives


def iou(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the IoU (...) of masks `logits > 0` with `targets > 0.5`, both (..., height, width)."""
    predicted, true = logits > 0, targets > 0.5
    intersection = (predicted & true).sum((-2, -1)).float()
    return intersection / (predicted | true).sum((-2, -1)).clamp(min=1)


def mask_costs(logits: Tensor, targets: Tensor, balance: float) -> Tensor:
    """Return the cost of each mask: 20 times the focal loss plus the dice loss, as in SAM, plus a balanced term.

    Focal loss is that of Lin et al. (2017) with gamma 2, dice loss that of Milletari et al. (2016). The targets are
    shares, which replace the label in the focal weight (Li et al. 2020, quality focal loss).

    The balanced term is `balance` times the cross entropy with equal weights of object and background, whatever their
    areas. Without it a new model first learns to predict empty masks, because most objects are small, and recovers
    slowly.

    Args:
        logits: (prompts, masks, height, width).
        targets: (prompts, 1, height, width), 0 to 1.

    Returns:
        (prompts, masks).
    """
    share = logits.sigmoid()
    targets = targets.expand_as(share)
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    focal = (entropy * (share - targets).square()).mean((-2, -1))
    intersection = (share * targets).sum((-2, -1))
    dice = 1 - (2 * intersection + 1) / (share.sum((-2, -1)) + targets.sum((-2, -1)) + 1)
    costs = FOCAL_WEIGHT * focal + dice
    if balance:
        inside = (entropy * targets).sum((-2, -1)) / (targets.sum((-2, -1)) + 1)
        outside = (entropy * (1 - targets)).sum((-2, -1)) / ((1 - targets).sum((-2, -1)) + 1)
        costs = costs + balance * (inside + outside)
    return costs


def decoding_loss(
    logits: Tensor, scores: Tensor, targets: Tensor, balance: float, picked: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return the loss of four masks for each prompt, and their true IoU.

    The single mask has its own cost. Of the three alternatives the best has its full cost, the others a tenth, so that
    none is forgotten. A score costs its distance from the true IoU (its square in SAM).

    With `picked`, the alternatives also cost that much for the mask that users take, the one with the best score; a
    softmax of the scores gives the probability of each. And a score costs three times the square of its error: if a
    click is ambiguous, the mean of the possible IoUs says which mask to take, the median does not.

    Args:
        logits: (prompts, 4, height, width); mask 0 is the single mask.
        scores: (prompts, 4).
        targets: (prompts, height, width), 0 to 1.
        balance: As in `mask_costs`.

    Returns:
        The loss, a scalar, and the true IoU, (prompts, 4).
    """
    costs = mask_costs(logits, targets[:, None], balance)
    alternatives = costs[:, 1:]
    remainder = (alternatives.mean() - alternatives.amin(1).mean() / 3) * REMAINDER_WEIGHT
    true = iou(logits.detach(), targets[:, None])
    loss = costs[:, 0].mean() + alternatives.amin(1).mean() + remainder
    if not picked:
        return loss + F.l1_loss(scores, true), true
    probabilities = (scores[:, 1:].detach() / TEMPERATURE).softmax(1)
    loss = loss + picked * (probabilities * alternatives).sum(1).mean()
    return loss + SQUARE_WEIGHT * F.mse_loss(scores, true), true
