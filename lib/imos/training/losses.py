"""Losses: of the reference method (bootstrapped cross entropy and Dice on aggregated objects, XMem), and of `small`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from imos.training.unroll import Step

WARM_UP = (20_000, 70_000)
HARDEST = 0.15


def kept_fraction(iteration: int, warm_up: tuple[int, int] = WARM_UP, hardest: float = HARDEST) -> float:
    """The share of pixels, the hardest ones, that the bootstrapped loss keeps: all, then fewer and fewer."""
    start, end = warm_up
    if iteration < start:
        return 1.0
    if iteration > end:
        return hardest
    return hardest + (1 - hardest) * (end - iteration) / (end - start)


def bootstrapped_cross_entropy(
    logits: Tensor,
    target: Tensor,
    iteration: int,
    *,
    warm_up: tuple[int, int] = WARM_UP,
    hardest: float = HARDEST,
) -> tuple[Tensor, float]:
    """Cross entropy of the hardest pixels.

    Args:
        logits: `(B, 1 + K, H, W)`, aggregated, restricted to the objects that exist.
        target: `(B, H, W)` int64 in 0…K.
        iteration: Of the training.
        warm_up: From where to where the share of kept pixels falls.
        hardest: The share of pixels kept in the end.

    Returns:
        The mean loss of the pixels kept, and their share.
    """
    pixels = functional.cross_entropy(logits, target, reduction="none").flatten()
    fraction = kept_fraction(iteration, warm_up, hardest)
    if fraction == 1:
        return pixels.mean(), fraction
    return pixels.topk(int(pixels.numel() * fraction)).values.mean(), fraction


def dice_loss(probabilities: Tensor, masks: Tensor) -> Tensor:
    """One minus soft Dice, with 1 added above and below so that an absent object can be right.

    Args:
        probabilities: `(B, K, H, W)` in [0, 1].
        masks: `(B, K, H, W)`, 0 or 1.

    Returns:
        The mean over objects and batch.
    """
    probabilities, masks = probabilities.flatten(2), masks.flatten(2)
    overlap = (probabilities * masks).sum(dim=2)
    total = probabilities.sum(dim=2) + masks.sum(dim=2)
    return (1 - (2 * overlap + 1) / (total + 1)).mean()


def sequence_loss(steps: list[Step], masks: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Loss of one unrolled batch.

    Masks are judged only on slices that show the object: counting the others teaches the mask to shrink. Whether it is
    there is the existence head's task.

    Args:
        steps: Predictions on slices 1…T-1.
        masks: `(B, T, S, S)`.

    Returns:
        The loss, and its parts by name.
    """
    total = masks.new_zeros(())
    parts: dict[str, list[float]] = {"cross entropy": [], "dice": [], "existence": [], "quality": []}
    for t, step in enumerate(steps, 1):
        mask = masks[:, t]
        there = (mask.sum((1, 2)) >= 6).float()
        shown = there.sum().clamp_min(1.0)
        pixel = functional.binary_cross_entropy_with_logits(step.logits, mask, reduction="none")
        # the object fills a tenth of its region: pixels near either outline decide
        either = torch.maximum(mask, (step.floor > 0).float())[:, None]
        near = functional.max_pool2d(functional.max_pool2d(either, 4), 5, 1, 2)
        weight = 0.2 + functional.interpolate(near, scale_factor=4)[:, 0]
        entropy = ((pixel * weight).sum((1, 2)) / weight.sum((1, 2)) * there).sum() / shown
        probability = step.logits.sigmoid()
        overlap = 2 * (probability * mask).sum((1, 2)) + 1
        dice = ((1 - overlap / (probability.sum((1, 2)) + mask.sum((1, 2)) + 1)) * there).sum() / shown
        existence = functional.binary_cross_entropy_with_logits(step.existence.float(), there)
        hard, true = step.logits > 0, mask > 0.5
        union = (hard | true).sum((1, 2)).clamp_min(1)
        true_j = (hard & true).sum((1, 2)) / union
        judged = functional.binary_cross_entropy_with_logits(step.quality.float(), true_j, reduction="none")
        quality = (judged * there).sum() / shown
        total = total + 2 * entropy + dice + 0.2 * existence + 0.2 * quality
        for name, value in zip(parts, (entropy, dice, existence, quality), strict=True):
            parts[name].append(float(value.detach()))
    return total / len(steps), {name: float(np.mean(values)) for name, values in parts.items()}
