"""Calibration: whether the confidence that a user sees is the J that he gets.

Of every judged slice there is a confidence, the expected J, and the true J. They are compared by Pearson's correlation
(does the confidence order the slices?) and by the expected calibration error (does it say the right value?).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import nan

import numpy as np
from numpy.typing import ArrayLike

from imos.evaluation.judging import Score

BINS = 10
"""Bins of equal width over [0, 1]."""


@dataclass(frozen=True, slots=True)
class Bin:
    """The slices whose confidence lies in one interval.

    Attributes:
        low: Where it begins.
        high: Where it ends; belongs to the next bin, in the last one to itself.
        count: Slices in it.
        confidence: Their mean confidence; NaN where there are none.
        j: Their mean true J; NaN where there are none.
    """

    low: float
    high: float
    count: int
    confidence: float
    j: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """How confidence and J agree.

    Attributes:
        count: Slices with a confidence.
        silent: Slices without: every pass had ended before, so nothing was found there and no confidence was given.
        pearson: Correlation in [-1, 1]; NaN where one of both is the same on all slices.
        error: Expected calibration error: mean over bins of |mean confidence - mean J|, weighted by their slices.
        bins: From 0 to 1.
    """

    count: int
    silent: int
    pearson: float
    error: float
    bins: tuple[Bin, ...]


def calibrate(confidence: ArrayLike, j: ArrayLike) -> Calibration:
    """Compare confidences with true values.

    Args:
        confidence: One value a slice in [0, 1]; NaN where none was given.
        j: The true J of the same slices.
    """
    said, true = np.asarray(confidence, float), np.asarray(j, float)
    known = ~np.isnan(said)
    silent = int(np.count_nonzero(~known))
    said, true = said[known], true[known]
    places = np.minimum((said * BINS).astype(int), BINS - 1)
    bins = []
    for number, (low, high) in enumerate(pairwise(np.linspace(0, 1, BINS + 1))):
        inside = places == number
        count = int(np.count_nonzero(inside))
        means = (float(said[inside].mean()), float(true[inside].mean())) if count else (nan, nan)
        bins.append(Bin(float(low), float(high), count, *means))
    if not said.size:
        return Calibration(0, silent, nan, nan, tuple(bins))
    error = sum(part.count * abs(part.confidence - part.j) for part in bins if part.count) / said.size
    varies = said.std() > 1e-12 and true.std() > 1e-12
    pearson = float(np.corrcoef(said, true)[0, 1]) if varies else nan
    return Calibration(int(said.size), silent, pearson, error, tuple(bins))


def calibration_of(scores: Iterable[Score]) -> Calibration:
    """Compare the confidences of all judged slices with their true J."""
    slices = [part for score in scores for part in score.slices]
    return calibrate([part.confidence for part in slices], [part.j for part in slices])
