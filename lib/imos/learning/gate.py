"""The gate: whether a candidate is used, from what it and others did on the same held-out volumes.

It is used only if it is better than the version in use and than the base, both by more than chance. Two tests must
agree, both paired, because volumes differ far more from each other than versions do, and both over patients: two series
of one patient are like each other, so a patient has one figure, the mean of his volumes.

- Bootstrap: the lower end of the 95 % interval of the mean difference lies above zero. Of few patients it says so too
  easily, because what it draws from varies less than what they came from.
- Exchange of signs: if the two versions are alike, each difference might as well have the other sign. Of all 2^n ways
  to sign them at most one in thirty-two may give as large a mean. That is exact for any number of patients; it is done
  for few, until the bootstrap can be trusted.

At least five patients must be judged. With four, even a candidate that wins on each of them would win so by luck once
in sixteen times; with five once in thirty-two, below one in twenty. Without that many nothing is ever promoted; a
person may activate the version by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from imos.registry.records import BASE, Figures, Gain, LabelRef

FEWEST_VOLUMES = 5
"""Volumes of as many patients must be judged."""
FEW = 16
"""Patients up to which signs are exchanged, too."""
DRAWS = 10_000
CHANCE = 0.05
"""Both tails of the bootstrap's interval together."""
LUCK = 1 / 2**FEWEST_VOLUMES
"""The one tail of the exchange of signs: what five of five comes to, so that five are enough."""

Scores = Mapping[LabelRef, float]
Differences = np.ndarray[tuple[int], np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says.

    Attributes:
        promoted: Whether the candidate shall be used.
        reason: One sentence.
        figures: What it was decided by: means over patients.
    """

    promoted: bool
    reason: str
    figures: Figures


def decide(
    candidate: Scores,
    champion: Scores,
    base: Scores,
    champion_name: str = "the champion",
    patients: Mapping[LabelRef, str] | None = None,
) -> Verdict:
    """Let a candidate pass, or not.

    Args:
        candidate: J&F of each volume.
        champion: That of the version in use.
        base: That of the weights without any adapter of the project.
        champion_name: For the sentence.
        patients: Whose volumes they are; one that is not named has a patient of its own.
    """
    volumes = sorted(candidate.keys() & champion.keys() & base.keys())
    if not volumes:
        reason = f"Not judged: no accepted label is held out yet, and {FEWEST_VOLUMES} volumes are the least."
        return Verdict(False, reason, Figures())
    whose = np.array([(patients or {}).get(one) or one.image for one in volumes])
    columns = [_by_patient([scores[one] for one in volumes], whose) for scores in (candidate, champion, base)]
    differences = {champion_name: columns[0] - columns[1], BASE: columns[0] - columns[2]}
    over_champion, over_base = (gain(columns[0] - other) for other in columns[1:])
    means = [float(column.mean()) for column in columns]
    figures = Figures(len(volumes), means[0], means[1], means[2], over_champion, over_base)
    shown = _counted(len(volumes), columns[0].size)
    if columns[0].size < FEWEST_VOLUMES:
        are = "is" if len(volumes) == 1 else "are"
        who = "" if len(volumes) == columns[0].size else " patients"
        return Verdict(False, f"Not promoted: {shown} {are} held out, {FEWEST_VOLUMES}{who} are the least.", figures)
    found = {champion_name: over_champion, BASE: over_base}
    for name, over in found.items():
        if over.low <= 0 or by_luck(differences[name]) > LUCK:
            what = "not better" if over.mean <= 0 else "not better by more than chance"
            return Verdict(False, f"Not promoted: {what} than {name} ({_said(over)}).", figures)
    better = " and ".join(f"{name} by {_said(over)}" for name, over in found.items())
    return Verdict(True, f"Better than {better} on {shown}.", figures)


def gain(differences: Differences) -> Gain:
    """Mean difference over patients, with the interval of a bootstrap; the same figures give the same interval.

    Args:
        differences: `(N,)`, one a patient.
    """
    random = np.random.default_rng(0)
    drawn = random.integers(differences.size, size=(DRAWS, differences.size))
    low, high = np.quantile(differences[drawn].mean(axis=1), (CHANCE / 2, 1 - CHANCE / 2))
    return Gain(float(differences.mean()), float(low), float(high))


def by_luck(differences: Differences) -> float:
    """How often as large a mean comes about if every difference might as well have the other sign (exact, one-sided).

    Args:
        differences: `(N,)`, one a patient.

    Returns:
        The share of the 2^N ways to sign them; 0 where there are so many patients that the bootstrap decides alone.
    """
    count = differences.size
    if count > FEW:
        return 0.0
    signs = 1.0 - 2.0 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
    # not exactly as large: sums of the same numbers in another order differ in their last bits
    return float(np.mean(signs @ np.abs(differences) >= differences.sum() - 1e-9))


def _by_patient(scores: list[float], whose: np.ndarray[tuple[int], np.dtype[np.str_]]) -> Differences:
    """One figure a patient, `(N,)`: the mean of his volumes."""
    _, places = np.unique(whose, return_inverse=True)
    sums = np.bincount(places, weights=np.array(scores))
    means: Differences = sums / np.bincount(places)
    return means


def _counted(volumes: int, patients: int) -> str:
    said = "1 volume" if volumes == 1 else f"{volumes} volumes"
    if patients == volumes:
        return said
    return f"{said} of 1 patient" if patients == 1 else f"{said} of {patients} patients"


def _said(found: Gain) -> str:
    return f"{found.mean:+.3f}, {found.low:+.3f} to {found.high:+.3f}"
