"""The other two planes of a volume (paper, Fig. 6).

A volume is judged in its own plane, the one in which its slices are painted. Here the same is done along the two other
array axes: once with the objects painted and walked along that axis, and once with the volume as it came out of the own
plane, only cut along that axis, where a slip from slice to slice is a step in the outline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from imos.evaluation.judging import Score, judge
from imos.evaluation.sequences import Protocol, Sequence, paint, sequences_of


class View(StrEnum):
    """Along which axis a volume was walked and is judged; the second and third in the order of the array's axes."""

    OWN = "own"
    WALKED_SECOND = "walked-2"
    WALKED_THIRD = "walked-3"
    SEEN_SECOND = "seen-2"
    SEEN_THIRD = "seen-3"


_OTHERS = ((1, View.WALKED_SECOND, View.SEEN_SECOND), (2, View.WALKED_THIRD, View.SEEN_THIRD))


def other_planes(
    slices: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    own: NDArray[np.uint8],
    protocol: Protocol,
    propagate: Callable[[NDArray[np.uint8], NDArray[np.uint8]], NDArray[np.uint8]],
) -> Iterator[tuple[View, Sequence, Score]]:
    """Judge a volume along its two other axes.

    Args:
        slices: `(D, H, W)`.
        labels: `(D, H, W)` the truth.
        own: `(D, H, W)` label map made along the first axis.
        protocol: Which slice is painted.
        propagate: Makes a label map along the first axis of slices and painted slices.
    """
    for axis, walked, seen in _OTHERS:
        turned, truth, shown = (np.ascontiguousarray(np.moveaxis(array, axis, 0)) for array in (slices, labels, own))
        sequences = sequences_of(truth, protocol, is_video=False)
        if not sequences:
            continue
        made = propagate(turned, paint(truth, sequences))
        for sequence in sequences:
            yield walked, sequence, judge(made, truth, sequence)
            whole = replace(sequence, painted=-1)  # nothing was painted in this plane, so every slice counts
            yield seen, whole, judge(shown, truth, whole)
