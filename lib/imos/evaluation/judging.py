"""Judging: J, F and leak of one predicted sequence."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import NDArray

from imos.evaluation.sequences import Sequence
from imos.metrics import boundary_f, jaccard


@dataclass(frozen=True, slots=True)
class Score:
    """How good one sequence is.

    Attributes:
        j: Mean J over the judged slices.
        f: Mean F.
        leak: Voxels predicted before the object's first slice and behind its last one, over the object's voxels.
        forward: Mean J&F of the slices behind the painted one; NaN where there are none.
        backward: Mean J&F of the slices before it; NaN where there are none.
    """

    j: float
    f: float
    leak: float
    forward: float
    backward: float

    @property
    def j_and_f(self) -> float:
        """The mean of J and F."""
        return (self.j + self.f) / 2


def judge(predicted: NDArray[np.uint8], true: NDArray[np.uint8], sequence: Sequence) -> Score:
    """Judge one label of a label map.

    Args:
        predicted: `(D, H, W)` label map.
        true: `(D, H, W)` label map.
        sequence: What to judge.
    """
    label, judged = sequence.label, sequence.judged
    pairs = [(predicted[index] == label, true[index] == label) for index in judged]
    values = np.array([(jaccard(*pair), boundary_f(*pair)) for pair in pairs])
    both = values.mean(1)
    behind = np.array(judged) > sequence.painted
    parts = predicted[: sequence.first], predicted[sequence.last + 1 :]
    leaked = sum(int(np.count_nonzero(part == label)) for part in parts)
    j, f = (float(value) for value in values.mean(0))
    return Score(j, f, leaked / int(np.count_nonzero(true == label)), _mean(both[behind]), _mean(both[~behind]))


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else nan
