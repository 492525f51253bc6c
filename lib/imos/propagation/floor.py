"""The untrained floor: prior log odds of the flow-warped mask plus a share of the target model's score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class FloorSettings:
    """Constants of the untrained floor.

    Attributes:
        score_weight: Share of the target model's log odds added to the prior's.
        prior_blur: Standard deviation in grid pixels by which the warped mask is blurred.
        prior_limit: Bound of the prior's log odds.
        least_confidence: Predicted J below which a slice counts as one without the object.
    """

    score_weight: float = 0.45
    prior_blur: float = 1.0
    prior_limit: float = 4.0
    least_confidence: float = 0.1


FLOOR = FloorSettings()


def logit(probability: NDArray[np.float32], limit: float) -> NDArray[np.float32]:
    """Log odds, bounded to ±limit."""
    edge = 1.0 / (1.0 + np.exp(limit))
    clipped = np.clip(probability, edge, 1.0 - edge)
    return np.log(clipped / (1.0 - clipped)).astype(np.float32)


def sigmoid(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probability of log odds."""
    return (1.0 / (1.0 + np.exp(-np.clip(values, -60, 60)))).astype(np.float32)
