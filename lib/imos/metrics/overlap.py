"""Overlap of two masks: the Jaccard index J and the Dice coefficient."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def jaccard(predicted: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    """J = |P ∩ G| / |P ∪ G| in [0, 1]; two empty masks agree (1), as in DAVIS."""
    union = int(np.count_nonzero(predicted | true))
    return int(np.count_nonzero(predicted & true)) / union if union else 1.0


def dice(predicted: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    """Dice = 2 |P ∩ G| / (|P| + |G|) in [0, 1]; two empty masks agree (1)."""
    total = int(np.count_nonzero(predicted)) + int(np.count_nonzero(true))
    return 2 * int(np.count_nonzero(predicted & true)) / total if total else 1.0
