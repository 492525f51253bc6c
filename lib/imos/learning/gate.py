"""The gate: whether a candidate is used, from what it and others did on the same held-out volumes.

It is used only if it is better than the version in use and than the base, both by more than chance: the lower end of
the interval of the mean difference, from a bootstrap over volumes, must lie above zero. Drawing is paired, a volume
brings all its figures along, because volumes differ far more from each other than versions do.

At least five volumes must be judged. With four, even a candidate that wins on each of them would win so by luck once in
sixteen times; with five once in thirty-two, below one in twenty. Without that many nothing is ever promoted; a person
may activate the version by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from imos.registry.records import BASE, Figures, Gain, LabelRef

FEWEST_VOLUMES = 5
DRAWS = 10_000
CHANCE = 0.05
"""Both tails of the interval together."""

Scores = Mapping[LabelRef, float]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says.

    Attributes:
        promoted: Whether the candidate shall be used.
        reason: One sentence.
        figures: What it was decided by.
    """

    promoted: bool
    reason: str
    figures: Figures


def decide(candidate: Scores, champion: Scores, base: Scores, champion_name: str = "the champion") -> Verdict:
    """Let a candidate pass, or not.

    Args:
        candidate: J&F of each volume.
        champion: That of the version in use.
        base: That of the weights without any adapter of the project.
        champion_name: For the sentence.
    """
    volumes = sorted(candidate.keys() & champion.keys() & base.keys())
    if not volumes:
        reason = f"Not judged: no accepted label is held out yet, and {FEWEST_VOLUMES} volumes are the least."
        return Verdict(False, reason, Figures())
    columns = [np.array([scores[one] for one in volumes]) for scores in (candidate, champion, base)]
    over_champion, over_base = (gain(columns[0] - other) for other in columns[1:])
    means = [float(column.mean()) for column in columns]
    figures = Figures(len(volumes), means[0], means[1], means[2], over_champion, over_base)
    if len(volumes) < FEWEST_VOLUMES:
        count = "1 volume is" if len(volumes) == 1 else f"{len(volumes)} volumes are"
        return Verdict(False, f"Not promoted: {count} held out, {FEWEST_VOLUMES} are the least.", figures)
    compared = {champion_name: over_champion} | ({} if champion_name == BASE else {BASE: over_base})
    for name, found in compared.items():
        if found.low <= 0:
            what = "not better" if found.mean <= 0 else "not better by more than chance"
            return Verdict(False, f"Not promoted: {what} than {name} ({_said(found)}).", figures)
    better = " and ".join(f"{name} by {_said(found)}" for name, found in compared.items())
    return Verdict(True, f"Better than {better} on {len(volumes)} volumes.", figures)


def gain(differences: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Gain:
    """Mean difference over volumes, with the interval of a bootstrap; the same figures give the same interval.

    Args:
        differences: `(N,)`, one a volume.
    """
    random = np.random.default_rng(0)
    drawn = random.integers(differences.size, size=(DRAWS, differences.size))
    low, high = np.quantile(differences[drawn].mean(axis=1), (CHANCE / 2, 1 - CHANCE / 2))
    return Gain(float(differences.mean()), float(low), float(high))


def _said(found: Gain) -> str:
    return f"{found.mean:+.3f}, {found.low:+.3f} to {found.high:+.3f}"
