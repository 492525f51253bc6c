"""Whole passes over labelled stacks: what training sequences of a few slices cannot tell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imos.metrics import boundary_f, jaccard
from imos.propagation.model import Model
from imos.propagation.track import PATIENCE, Estimate, track
from imos.training.volumes import Stack


class StackSlices:
    """Slices of a stack, as a pass wants them."""

    def __init__(self, stack: Stack) -> None:
        self._slices = stack.slices
        self.shape = (stack.slices.shape[1], stack.slices.shape[2])
        self.count = stack.slices.shape[0]

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Slice `index`: `(H, W)` gray or `(H, W, 3)` RGB."""
        plane: NDArray[np.uint8] = self._slices[index]
        return plane


@dataclass(frozen=True)
class Walk:
    """One object of a stack, from its largest slice to where it ends.

    Attributes:
        stack: Where it lies.
        value: Its label value.
        first: First slice that shows it.
        last: Last slice that shows it.
        painted: The slice with its largest area.
    """

    stack: Stack
    value: int
    first: int
    last: int
    painted: int


def walks(stacks: list[Stack], most: int) -> list[Walk]:
    """Objects on four slices or more, at most `most` of them, drawn evenly from all."""
    found = []
    for stack in stacks:
        for value in stack.objects():
            shown = np.flatnonzero(stack.areas[:, value])
            if shown.size >= 4:
                painted = int(stack.areas[:, value].argmax())
                found.append(Walk(stack, int(value), int(shown[0]), int(shown[-1]), painted))
    chosen = np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int)
    return [found[number] for number in chosen]


def mask_of(estimate: Estimate, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """An estimate as a mask of the whole slice, `(H, W)`."""
    mask = np.zeros(shape, bool)
    height, width = estimate.probability.shape
    window = np.s_[estimate.top : estimate.top + height, estimate.left : estimate.left + width]
    mask[window] = estimate.probability > 0.5
    return mask


def quality_of(model: Model, walk: Walk) -> float:
    """Mean J&F over the object's slices but the painted one; slices that the pass does not reach count as empty."""
    slices, truth = StackSlices(walk.stack), walk.stack.labels == walk.value
    found = np.zeros_like(truth)
    for stop in {walk.first, walk.last} - {walk.painted}:
        patience = None if walk.stack.is_video else PATIENCE
        for estimate in track(model, slices, truth[walk.painted], walk.painted, stop, patience=patience):
            found[estimate.index] = mask_of(estimate, slices.shape)
    judged = [index for index in range(walk.first, walk.last + 1) if index != walk.painted]
    values = [(jaccard(found[index], truth[index]) + boundary_f(found[index], truth[index])) / 2 for index in judged]
    return float(np.mean(values))
