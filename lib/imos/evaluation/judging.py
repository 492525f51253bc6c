"""Judging: J, F and leak of one predicted sequence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import NDArray

from imos.evaluation.sequences import Sequence
from imos.metrics import boundary_f, jaccard


@dataclass(frozen=True, slots=True)
class SliceScore:
    """How good one slice is.

    Attributes:
        index: The slice.
        j: Its J.
        f: Its F.
        confidence: The J that the method expected; NaN where it said nothing.
    """

    index: int
    j: float
    f: float
    confidence: float = nan


@dataclass(frozen=True, slots=True)
class Score:
    """How good one sequence is.

    Attributes:
        j: Mean J over the judged slices.
        f: Mean F.
        leak: Voxels predicted before the object's first slice and behind its last one, over the object's voxels.
        forward: Mean J&F of the slices behind the painted one; NaN where there are none.
        backward: Mean J&F of the slices before it; NaN where there are none.
        slices: Every judged slice.
    """

    j: float
    f: float
    leak: float
    forward: float
    backward: float
    slices: tuple[SliceScore, ...] = ()

    @property
    def j_and_f(self) -> float:
        """The mean of J and F."""
        return (self.j + self.f) / 2


def judge(
    predicted: NDArray[np.uint8],
    true: NDArray[np.uint8],
    sequence: Sequence,
    confidence: Mapping[int, float] | None = None,
) -> Score:
    """Judge one label of a label map.

    Args:
        predicted: `(D, H, W)` label map.
        true: `(D, H, W)` label map.
        sequence: What to judge.
        confidence: Slice → expected J of this label, where the method says it.
    """
    label, judged = sequence.label, sequence.judged
    pairs = [(predicted[index] == label, true[index] == label) for index in judged]
    values = np.array([(jaccard(*pair), boundary_f(*pair)) for pair in pairs])
    both = values.mean(1)
    behind = np.array(judged) > sequence.painted
    parts = predicted[: sequence.first], predicted[sequence.last + 1 :]
    leaked = sum(int(np.count_nonzero(part == label)) for part in parts)
    j, f = (float(value) for value in values.mean(0))
    said = confidence or {}
    slices = tuple(
        SliceScore(index, float(value[0]), float(value[1]), said.get(index, nan))
        for index, value in zip(judged, values, strict=True)
    )
    leak = leaked / int(np.count_nonzero(true == label))
    return Score(j, f, leak, _mean(both[behind]), _mean(both[~behind]), slices)


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else nan
