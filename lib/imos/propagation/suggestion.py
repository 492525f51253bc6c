"""Suggestion: which slice the user should paint next.

A slice's expected loss is the part of the object that is expected to be wrong there, (1 - confidence) · area, as far as
the object is there at all: where the confidence is near zero a pass has mostly run on beyond the object's end, and a
painted slice would say no more than that. So the loss counts by the confidence once more. Painting a slice repairs it
fully and its neighbours the less the farther they are, because the new passes lose accuracy on their way as the old
ones did; the repair is taken to fall linearly to zero over `REACH` slices, and it never passes a prompt. The suggested
slice is the one with the largest repaired loss in all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise

import numpy as np

REACH = 10
"""Slices over which a painted slice is expected to help."""


def expected_loss(confidence: float, area: int) -> float:
    """What is expected to be gained on a slice by painting it, in pixels."""
    return confidence * (1.0 - confidence) * area


def suggest(losses: Mapping[int, float], settled: Iterable[int] = ()) -> int | None:
    """The slice whose painting is expected to gain most.

    Args:
        losses: Slice → expected loss, at least 0, of every slice that a pass reached.
        settled: Slices that the user painted or accepted: never suggested, and repairs stop there.

    Returns:
        The slice, or None where nothing is to be gained. Of equals the one nearest to the middle.
    """
    done = set(settled)
    # Slices that no pass reached (the object has ended) carry no loss, but a repair passes over them.
    open_slices = {index: loss for index, loss in losses.items() if index not in done}
    if not open_slices:
        return None
    first, last = min(open_slices), max(open_slices)
    loss = np.zeros(last - first + 1)
    for index, value in open_slices.items():
        loss[index - first] = max(0.0, value)
    barriers = [-1, *sorted(index - first for index in done if first < index < last), loss.size]
    gains = np.zeros_like(loss)
    kernel = 1.0 - np.abs(np.arange(1 - REACH, REACH)) / REACH
    for before, behind in pairwise(barriers):
        part = loss[before + 1 : behind]
        if part.size:
            gains[before + 1 : behind] = np.convolve(part, kernel)[REACH - 1 : REACH - 1 + part.size]
    candidates = sorted(open_slices)
    middle = 0.5 * (first + last)
    best = max(candidates, key=lambda index: (round(float(gains[index - first]), 9), -abs(index - middle), -index))
    return best if gains[best - first] > 0 else None
