"""The loss of predicted masks and scores: focal and dice loss of the masks, and the error of the scores."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

FOCAL_WEIGHT = 20.0
REMAINDER_WEIGHT = 0.1  # multiplies a third of the summed costs of the two worse alternatives; see `decoding_loss`
SQUARE_WEIGHT = 3.0  # of the squared error of a score
TEMPERATURE = 0.05  # of the softmax over the scores of the three alternatives


def iou(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the IoU of predicted masks, `logits > 0`, with true masks, `targets > 0.5`.

    Args:
        logits: (..., height, width).
        targets: (..., height, width), 0 to 1.

    Returns:
        (...) float32.
    """
    predicted, true = logits > 0, targets > 0.5
    intersection = (predicted & true).sum((-2, -1)).float()
    return intersection / (predicted | true).sum((-2, -1)).clamp(min=1)


def mask_costs(logits: Tensor, targets: Tensor, balance: float) -> Tensor:
    """Return the cost of each mask: 20 times the focal loss plus the dice loss, as in SAM, plus a balanced term.

    The focal loss is that of Lin et al. (2017) with gamma 2, the dice loss that of Milletari et al. (2016). A pixel of
    a target holds the share of its area that the object covers. The focal loss weights the cross entropy of a pixel by
    the squared difference between the predicted probability and this share. The quality focal loss (Li et al. 2020) has
    the same weight.

    The balanced term is a cross entropy in which object and background have equal weights, independent of their areas.
    Without this term, a new model first learns to predict empty masks, because most objects are small, and recovers
    slowly.

    Args:
        logits: (prompts, masks, height, width).
        targets: (prompts, 1, height, width), 0 to 1.
        balance: The weight of the balanced term; 0 for none.

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

    The loss is a sum:

    - the cost of the single mask;
    - the cost of the best of the three alternatives, which is the one with the lowest cost;
    - a thirtieth of the cost of each other alternative, so that all three are trained;
    - the absolute error of the scores (SAM uses the squared error).

    If `picked` is not 0, two things change:

    - The loss includes the expected cost of the mask that users take, which is the alternative with the highest score.
      A softmax over the scores gives the probability of each alternative.
    - Three times the squared error of the scores replaces the absolute error. If a click is ambiguous, a score then
      approaches the mean of the possible IoUs instead of their median. On average, the mask with the highest mean
      IoU is the best choice.

    Args:
        logits: (prompts, 4, height, width); mask 0 is the single mask.
        scores: (prompts, 4).
        targets: (prompts, height, width), 0 to 1.
        balance: As in `mask_costs`.
        picked: The weight of the expected cost; 0 for none.

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


def answer_loss(logits: Tensor, scores: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of one or three masks for each prompt, a scalar.

    The loss is the sum of the following terms. With a single mask, the second and third terms are missing:

    - the cost of the best mask, which is the mask with the lowest cost;
    - the costs of the other masks, divided by three and multiplied by `REMAINDER_WEIGHT`;
    - the expected cost of the mask with the highest score, which users take. A softmax of the scores gives the
      probability of each mask;
    - the squared error of the scores, multiplied by `SQUARE_WEIGHT`.

    Args:
        logits: (p, m, h, w).
        scores: (p, m) predicted IoU.
        targets: (p, h, w), 0 to 1.
    """
    costs = mask_costs(logits, targets[:, None], balance=0)
    loss = costs.amin(1).mean()
    if costs.shape[1] > 1:
        remainder = costs.mean(1) - costs.amin(1) / costs.shape[1]
        probabilities = (scores.detach() / TEMPERATURE).softmax(1)
        loss = loss + REMAINDER_WEIGHT * remainder.mean() + (probabilities * costs).sum(1).mean()
    true = iou(logits.detach(), targets[:, None])
    return loss + SQUARE_WEIGHT * F.mse_loss(scores, true)
