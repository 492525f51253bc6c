"""Is the object on this slice at all, and how good is its mask? Judged from what a step of the floor saw.

Running on past the object's end is the main error of propagation in volumes; an empty mask comes too late. Two small
logistic models look at the evidence of a step. They were fitted on passes over labelled open volumes that ran on to the
end of the volume (docs/training.md says how), so that their answers are probabilities and not scores.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a step saw.

    Attributes:
        size: Log of the mask's area over the largest on the way, the painted one included.
        least: The smallest that `size` has been on the way: what shrank to a scrap and grows again is another thing.
        change: Log of the mask's area over that of the previous slice.
        score: Mean score of the target model inside the mask.
        contrast: That mean less the mean in a band around the mask.
        margin: Mean of |2p - 1| over mask and prior.
        agreement: J of the mask and the flow-warped previous mask.
        likeness: Correlation of the picture and the warped previous picture around the object.
        distance: Log of the number of slices from the painted one.
        head_existence: The memory network's log odds that the object is there; 0 without a network.
        head_quality: Its log odds of J; 0 without a network.
    """

    size: float
    least: float
    change: float
    score: float
    contrast: float
    margin: float
    agreement: float
    likeness: float
    distance: float
    head_existence: float = 0.0
    head_quality: float = 0.0


@dataclass(frozen=True, slots=True)
class Areas:
    """Areas of the mask on the way, all in the same unit.

    Attributes:
        now: On this slice.
        previous: On the one before.
        largest: So far, the painted one included.
        least: The smallest log of an area over the largest until then.
    """

    now: float
    previous: float
    largest: float
    least: float = 0.0

    @classmethod
    def painted(cls, area: float) -> Areas:
        """At the start of a pass."""
        return cls(area, area, area)

    def then(self, area: float) -> Areas:
        """One slice further."""
        largest = max(self.largest, area)
        return Areas(area, self.now, largest, min(self.least, _log_ratio(area, largest)))

    @property
    def size(self) -> float:
        """Log of the area over the largest."""
        return _log_ratio(self.now, self.largest)


def _log_ratio(area: float, other: float) -> float:
    return float(np.clip(np.log(max(area, 1.0) / max(other, 1.0)), -6, 6))


FEATURES = 2 * len(fields(Evidence)) + 1
"""Numbers that a judge weighs."""
DISTANCE = [field.name for field in fields(Evidence)].index("distance")
"""Where the distance is among them; its square is `FEATURES // 2` further."""


def gather(
    probability: NDArray[np.float32],
    prior: NDArray[np.float32],
    score: NDArray[np.float32],
    current: NDArray[np.uint8],
    warped: NDArray[np.float32],
    areas: Areas,
    distance: int,
    heads: tuple[float, float] = (0.0, 0.0),
) -> Evidence:
    """Collect the evidence of a step.

    Args:
        probability: `(S, S)` the object.
        prior: `(S, S)` flow-warped previous mask, blurred.
        score: `(S, S)` target model.
        current: `(S, S)` gray picture.
        warped: `(S, S)` previous gray picture, warped.
        areas: Of the mask, up to this slice.
        distance: Slices from the painted one, at least 1.
        heads: The memory network's log odds of existence and of J.
    """
    head_existence, head_quality = (float(np.clip(value, -8, 8)) for value in heads)
    inside, before = probability > 0.5, prior > 0.5
    either = inside | before
    if not inside.any():
        return Evidence(-6, -6, -3, -8, -4, 0, 0, 0, float(np.log(distance)), head_existence, head_quality)
    wide = cv2.dilate(inside.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    band = wide & ~inside
    score_inside = float(score[inside].mean())
    score_band = float(score[band].mean()) if band.any() else score_inside
    a, b = current[wide].astype(np.float32), warped[wide]
    deviation = float(a.std() * b.std())
    likeness = float(((a - a.mean()) * (b - b.mean())).mean()) / deviation if deviation > 1.0 else 0.0
    return Evidence(
        size=areas.size,
        least=areas.least,
        change=float(np.clip(_log_ratio(areas.now, areas.previous), -3, 3)),
        score=score_inside,
        contrast=score_inside - score_band,
        margin=float(np.abs(2 * probability[either] - 1).mean()),
        agreement=float((inside & before).sum() / max(1, either.sum())),
        likeness=likeness,
        distance=float(np.log(distance)),
        head_existence=head_existence,
        head_quality=head_quality,
    )


def features(evidence: Evidence) -> NDArray[np.float64]:
    """The evidence, its squares, and 1."""
    values = np.array(astuple(evidence))
    return np.concatenate([values, values * values, [1.0]])


@dataclass
class Judge:
    """Two logistic models of the evidence.

    Attributes:
        existence: `(23,)` weights of the log odds that the object is on the slice.
        quality: `(23,)` weights of the log odds of J, given that it is.
    """

    existence: NDArray[np.float64]
    quality: NDArray[np.float64]

    def of(self, evidence: Evidence) -> tuple[float, float]:
        """Probability that the object is there, and predicted J."""
        values = features(evidence)
        existence, quality = (
            float(1 / (1 + np.exp(-np.clip(values @ weights, -20, 20)))) for weights in (self.existence, self.quality)
        )
        return existence, quality * existence


class Sure(Judge):
    """Lets every pass run on."""

    def __init__(self) -> None:
        super().__init__(np.zeros(FEATURES), np.zeros(FEATURES))

    def of(self, evidence: Evidence) -> tuple[float, float]:
        """Sure of everything."""
        return 1.0, 1.0


def _untaught() -> Judge:
    existence, quality = np.zeros(FEATURES), np.zeros(FEATURES)
    existence[[0, 3, -1]] = 1.0, 1.0, 4.0
    quality[[5, 6, -1]] = 2.0, 2.0, -1.5
    return Judge(existence, quality)


UNTAUGHT = _untaught()
"""A plain rule for weights without a fitted judge: the object ends when it is tiny or looks like background."""
