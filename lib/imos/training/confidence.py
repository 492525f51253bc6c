"""How sure an adapted network may be.

The judge was fitted to the base. A tuned decoder draws other outlines, mostly softer ones, and the judge takes them for
worse than they are: passes end inside the object, and confidence is too low. So its log odds of J are lifted until they
say of the labelled objects, on average, what they said when the base carried them (docs/training.md). Never lowered: an
adapter is better on what it learned from than on anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from imos.propagation.existence import Evidence, Judge, Sure, features
from imos.propagation.model import Model
from imos.training.passes import Walk, quality_of

MOST = 4.0
"""Log odds by which the judge is lifted at most."""


def lifted(base: Model, adapted: Model, objects: Sequence[Walk], known: Callable[[Model, Walk], Model]) -> Judge | None:
    """The base's judge, as it suits an adapted network.

    Args:
        base: With the judge that was fitted to it.
        adapted: The same with a tuned decoder.
        objects: Labelled objects, walked along to where they end.
        known: A model with what the target model may know of such an object.

    Returns:
        None where the base has no judge.
    """
    judge = base.judge
    if judge is None:
        return None
    before, after = (_heard(model, judge, objects, known) for model in (base, adapted))
    if not before.size or not after.size:
        return judge
    return Judge(judge.existence, judge.quality + _shift(before, after) * _ONE)


_ONE = features(Evidence(*[0.0] * 11))
"""1 where the judge's constant is, 0 elsewhere."""


def _shift(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    """What to add to log odds so that their mean probability is what it was; from 0 to `MOST`."""
    wanted = _mean(before)
    if _mean(after) >= wanted:
        return 0.0
    if _mean(after + MOST) <= wanted:
        return MOST
    return float(brentq(lambda shift: _mean(after + shift) - wanted, 0.0, MOST, xtol=1e-4))


def _mean(log_odds: NDArray[np.float64]) -> float:
    return float((1 / (1 + np.exp(-np.clip(log_odds, -20, 20)))).mean())


class _Listening(Sure):
    """Lets every pass run on, and keeps what a judge would have said of J."""

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self._asked = judge
        self.heard: list[float] = []

    def of(self, evidence: Evidence) -> tuple[float, float]:
        self.heard.append(float(features(evidence) @ self._asked.quality))
        return super().of(evidence)


def _heard(
    model: Model, judge: Judge, objects: Sequence[Walk], known: Callable[[Model, Walk], Model]
) -> NDArray[np.float64]:
    listening = _Listening(judge)
    for walk in objects:  # gray videos are the floor's, whose judge stays
        quality_of(known(model, walk).but(judge=listening, floor_judge=Sure()), walk)
    return np.array(listening.heard)
