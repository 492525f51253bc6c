"""Why a sequence is bad: the first slice, outward from the painted one, on which less than half of it is right.

What follows that slice mostly follows from it. So it alone is looked at: what the truth does there, what the picture
shows, what was found.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from imos.evaluation.sequences import Sequence as Judged
from imos.metrics import jaccard

GOOD = 0.5
"""J of a slice below which it is bad."""

WORST = 20
_LEAK = 0.5
_STEP = 0.5
_THIN = 2.5
_CONTRAST = 0.6
_SIZE = 1.4
_RIM = 4


class Cause(StrEnum):
    """What happens on the first bad slice; the first of these that applies.

    Past the end: there is no bad slice, but more than half of the object's size lies beyond its ends.
    """

    MOVED = "large step between slices"
    PARTS = "another part appears, or the object splits"
    ENDED = "taken for ended"
    ELSEWHERE = "jumped to something else"
    THIN = "thin"
    CONTRAST = "low contrast"
    GREW = "grew into its surroundings"
    SHRANK = "shrank"
    OUTLINE = "another outline"
    PAST_END = "ran past the end"
    NONE = "-"


@dataclass(frozen=True, slots=True)
class Explained:
    """Why a sequence is as it is.

    Attributes:
        cause: Of its first bad slice.
        at: How many slices from the painted one; 0 where there is no bad one.
    """

    cause: Cause
    at: int = 0


def explain(
    slices: NDArray[np.uint8], labels: NDArray[np.uint8], found: NDArray[np.uint8], sequence: Judged
) -> Explained:
    """Look at one sequence.

    Args:
        slices: `(D, H, W)` or `(D, H, W, 3)`.
        labels: `(D, H, W)` the truth.
        found: `(D, H, W)` label map.
        sequence: Label and slices.
    """
    true, seen = labels == sequence.label, found == sequence.label
    for distance in range(1, max(sequence.last - sequence.painted, sequence.painted - sequence.first) + 1):
        for step in (1, -1):
            index = sequence.painted + step * distance
            if sequence.first <= index <= sequence.last and jaccard(seen[index], true[index]) < GOOD:
                return Explained(_cause(slices[index], true[index - step], true[index], seen[index]), distance)
    beyond = np.count_nonzero(seen[: sequence.first]) + np.count_nonzero(seen[sequence.last + 1 :])
    return Explained(Cause.PAST_END if beyond > _LEAK * np.count_nonzero(true) else Cause.NONE)


def _cause(
    picture: NDArray[np.uint8], before: NDArray[np.bool_], true: NDArray[np.bool_], seen: NDArray[np.bool_]
) -> Cause:
    if before.any() and jaccard(before, true) < _STEP:
        return Cause.MOVED
    if ndimage.label(true)[1] > ndimage.label(before)[1] > 0:
        return Cause.PARTS
    if not seen.any():
        return Cause.ENDED
    if not (seen & true).any():
        return Cause.ELSEWHERE
    if cv2.distanceTransform(true.astype(np.uint8), cv2.DIST_L2, 3).max() < _THIN:
        return Cause.THIN
    if _contrast(picture, true) < _CONTRAST:
        return Cause.CONTRAST
    ratio = np.count_nonzero(seen) / max(1, np.count_nonzero(true))
    if ratio > _SIZE:
        return Cause.GREW
    return Cause.SHRANK if ratio < 1 / _SIZE else Cause.OUTLINE


def _contrast(picture: NDArray[np.uint8], true: NDArray[np.bool_]) -> float:
    """Difference of the means inside and in a rim outside, over the deviation in both."""
    gray = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _RIM + 1, 2 * _RIM + 1))
    rim = (cv2.dilate(true.astype(np.uint8), disc) > 0) & ~true
    inside, outside = gray[true].astype(np.float64), gray[rim].astype(np.float64)
    if not outside.size:
        return 0.0
    spread = np.sqrt((inside.var() + outside.var()) / 2)
    return float(abs(inside.mean() - outside.mean()) / max(spread, 1.0))


@dataclass(frozen=True, slots=True)
class Told:
    """A sequence as the table names it.

    Attributes:
        name: Data set, volume, label.
        modality: Group of the tables.
        j_and_f: How good it is.
        leak: Voxels beyond its ends over its own.
        explained: Why.
    """

    name: str
    modality: str
    j_and_f: float
    leak: float
    explained: Explained


def as_markdown(told: Iterable[Told], worst: int = WORST) -> str:
    """How often each cause is the first, and the worst sequences."""
    everything = sorted(told, key=lambda one: one.j_and_f)
    lines = [
        f"{len(everything)} sequences.",
        "",
        "| first bad slice | sequences | mean J&F | mean leak |",
        "|---|---|---|---|",
    ]
    for cause, of_cause in _by_cause(everything):
        mean, leak = (
            float(np.mean(values)) for values in zip(*((one.j_and_f, one.leak) for one in of_cause), strict=True)
        )
        name = "none" if cause is Cause.NONE else cause
        lines.append(f"| {name} | {len(of_cause)} | {mean:.3f} | {leak:.2f} |")
    lines += [
        "",
        "| worst | | J&F | leak | first bad slice | slices from the painted one |",
        "|---|---|---|---|---|---|",
    ]
    for one in everything[:worst]:
        at = str(one.explained.at or "-")
        lines.append(
            f"| {one.name} | {one.modality} | {one.j_and_f:.3f} | {one.leak:.2f} | {one.explained.cause} | {at} |"
        )
    return "\n".join(lines) + "\n"


def _by_cause(told: Sequence[Told]) -> list[tuple[Cause, list[Told]]]:
    groups = [(cause, [one for one in told if one.explained.cause is cause]) for cause in Cause]
    return sorted((group for group in groups if group[1]), key=lambda group: (group[0] is Cause.NONE, -len(group[1])))
