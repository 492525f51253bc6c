"""Soft aggregation: independent object probabilities become one distribution over background and objects."""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST = 1e-7


def aggregate(probabilities: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Lets the objects and the background compete for every pixel.

    The background is where no object is. A hard mask comes back almost unchanged.

    Args:
        probabilities: In [0, 1], with K objects along `dim`; they may overlap.
        dim: The object axis.

    Returns:
        Logits and probabilities, both with K + 1 entries along `dim`, the background first. float32.
    """
    probabilities = probabilities.float()
    background = (1 - probabilities).prod(dim=dim, keepdim=True)
    every = torch.cat([background, probabilities], dim=dim).clamp(SMALLEST, 1 - SMALLEST)
    logits = torch.log(every / (1 - every))
    return logits, logits.softmax(dim=dim)
