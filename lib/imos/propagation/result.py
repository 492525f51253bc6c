"""Result: what a session knows after a propagation, ready for a viewer, a file or a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imos.propagation.blending import Layer
from imos.propagation.states import SliceState


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a propagation has come.

    Attributes:
        done: Slices computed; a pass that ends early counts its remaining slices at once.
        total: Slices to compute in all passes of this run.
        label: Object of the slice computed last.
        index: That slice.
        axis: Array axis across which it lies.
        layer: What this pass sees there, before passes are blended and objects compete; None where it has ended.
    """

    done: int
    total: int
    label: int
    index: int
    axis: int = 2
    layer: Layer | None = None

    def __str__(self) -> str:
        """One line for people."""
        return f"object {self.label}: slice {self.index} ({self.done} of {self.total})"


@dataclass(frozen=True, eq=False, slots=True)
class Result:
    """The segmented volume, and what is known about each object on each slice.

    Slices of an object are numbered along its own axis, `axes[label]`.

    Attributes:
        labels: `(I, J, K)` label map on the image's grid; uint8, or uint16 when a label exceeds 255;
            cannot be written to (`labels.copy()` can).
        confidence: label → slice → predicted J in [0, 1], for every slice that is painted, accepted or that a pass
            reached; 1 where the user painted or accepted.
        states: label → slice → what is known there, for every slice.
        suggested: label → the slice whose painting is expected to gain most; None when nothing is left to gain.
        axes: label → array axis that its passes walk along.
        seconds: Time the propagation took.
        computed: Slices computed anew in this run; the others were kept.
        cancelled: The run was stopped by the caller: this is the last good result.
    """

    labels: NDArray[np.uint8] | NDArray[np.uint16]
    confidence: dict[int, dict[int, float]]
    states: dict[int, dict[int, SliceState]]
    suggested: dict[int, int | None]
    axes: dict[int, int]
    seconds: float = 0.0
    computed: int = 0
    cancelled: bool = False

    @property
    def axis(self) -> int:
        """Array axis that the passes of most objects walk along (the last axis when there is no object)."""
        return self.main_axis(self.axes)

    @staticmethod
    def main_axis(axes: Mapping[int, int]) -> int:
        """The most frequent of the objects' axes."""
        counts = Counter(axes.values())
        return max(counts, key=lambda axis: (counts[axis], axis)) if counts else 2
