"""Sequences: what is judged of a labelled case.

One sequence per case and label: the slices from the first to the last one that shows the label. One slice of it is
painted, which one the protocol says; that slice is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

FEWEST_SLICES = 4
"""Labels on fewer slices are left out."""

SMALLEST_AREA = 12
"""Pixels: labels never larger are left out, and protocol `first` paints no smaller slice."""


class Protocol(StrEnum):
    """Which slice is painted."""

    LARGEST = "largest"
    FIRST = "first"


@dataclass(frozen=True, slots=True)
class Sequence:
    """One label of one case.

    Attributes:
        label: Its value.
        first: First slice that shows it.
        last: Last slice that shows it.
        painted: Slice that is painted.
    """

    label: int
    first: int
    last: int
    painted: int

    @property
    def judged(self) -> list[int]:
        """The slices that count."""
        return [index for index in range(self.first, self.last + 1) if index != self.painted]


def sequences_of(labels: NDArray[np.uint8], protocol: Protocol, *, is_video: bool) -> list[Sequence]:
    """The sequences of a case.

    Args:
        labels: `(D, H, W)` label values, walked along the first axis.
        protocol: `largest` paints the slice with the largest area (the first of equals), `first` the first one with at
            least 12 pixels.
        is_video: Frames: protocol `first` takes only the labels that frame 0 shows, the others are not fair.
    """
    areas = np.stack([np.bincount(plane.ravel(), minlength=256) for plane in labels])
    found: list[Sequence] = []
    for label in range(1, areas.shape[1]):
        area = areas[:, label]
        shown = np.flatnonzero(area)
        if shown.size < FEWEST_SLICES or area.max() <= SMALLEST_AREA:
            continue
        if protocol is Protocol.FIRST and is_video and not area[0]:
            continue
        painted = area.argmax() if protocol is Protocol.LARGEST else np.flatnonzero(area >= SMALLEST_AREA)[0]
        found.append(Sequence(label, int(shown[0]), int(shown[-1]), int(painted)))
    return found


def paint(labels: NDArray[np.uint8], sequences: Iterable[Sequence]) -> NDArray[np.uint8]:
    """The label map `(D, H, W)` with nothing but the painted slices, each label on its own."""
    painted = np.zeros_like(labels)
    for sequence in sequences:
        mask = labels[sequence.painted] == sequence.label
        painted[sequence.painted][mask] = sequence.label
    return painted
