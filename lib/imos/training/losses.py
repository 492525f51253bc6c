"""Losses of the reference method: bootstrapped cross entropy and Dice, both on aggregated objects (XMem)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

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
