"""Simulated annotator: how many slices must be painted until a volume is good enough.

He paints the slice with the largest area of one object, as the truth has it, and looks at what a technique makes of it.
As long as the object's Dice from its first to its last slice is below the target he paints one more slice, where the
technique proposes. Every painted slice counts, and he never paints more slices than the object has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from math import nan
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from imos.datasets.collection import Case, Modality
from imos.evaluation import interpolation, walker
from imos.evaluation.sequences import Protocol as PaintProtocol
from imos.evaluation.sequences import Sequence, sequences_of
from imos.imaging import Image, ImageKind
from imos.metrics import dice

if TYPE_CHECKING:
    from imos.propagation.model import Model
    from imos.propagation.session import Session

TARGETS = (0.90, 0.95)
"""Dice of an object at which the annotator is content; ascending."""

ACCEPTABLE = 0.90
"""Dice of a slice at which it is accepted untouched."""

_LABEL = 1


class Technique(StrEnum):
    """What makes the volume, and who says which slice is painted next.

    `ours`: the loaded weights, and the slice they propose; a proposed slice that does not show the object is answered
    with "absent" and counts as painted. `ours-even`: the same weights, slices evenly spaced. `itk`: ITK's morphological
    contour interpolation; the first and the last slice are painted from the start, then evenly spaced ones. `walker`:
    random walks, slices evenly spaced.
    """

    OURS = "ours"
    EVEN = "ours-even"
    ITK = "itk"
    WALKER = "walker"


@dataclass(frozen=True, slots=True)
class Step:
    """What the volume was like after some slices were painted.

    Attributes:
        painted: Number of painted slices.
        dice: Dice of the object from its first to its last slice.
    """

    painted: int
    dice: float


@dataclass(frozen=True, slots=True)
class Effort:
    """One object annotated with one technique.

    Attributes:
        technique: Which one.
        group: Data set.
        case: Volume.
        modality: Group of the tables.
        sequence: Label and slices; `painted` is the one painted first.
        steps: After every painted slice, until the last target was met or everything was painted.
        accepted: Share of the other slices that could be accepted untouched after one painted slice; NaN where the
            technique makes nothing of one slice.
        outside: Painted slices beyond the object: the technique proposed them.
    """

    technique: Technique
    group: str
    case: str
    modality: Modality
    sequence: Sequence
    steps: tuple[Step, ...]
    accepted: float
    outside: int

    @property
    def slices(self) -> int:
        """Slices from the object's first to its last."""
        return self.sequence.last - self.sequence.first + 1

    def painted_until(self, target: float) -> int:
        """Painted slices until the object's Dice was at least `target`; all of the object's where it never was."""
        needed = next((step.painted for step in self.steps if step.dice >= target), self.slices)
        return min(needed, self.slices)


class Filler(Protocol):
    """Makes a volume from painted slices."""

    def paint(self, index: int, mask: NDArray[np.bool_]) -> None:
        """Take a painted slice `(H, W)`; empty: the object is not there."""

    def volume(self) -> NDArray[np.bool_]:
        """The object `(D, H, W)` from what was painted so far."""

    def proposal(self) -> int | None:
        """The slice to paint next; None leaves it to the annotator."""


class SessionFiller:
    """Our own method, as a user's program works with it.

    Args:
        session: Nothing painted yet.
        proposes: Whether its suggestions are followed.
    """

    def __init__(self, session: Session, *, proposes: bool) -> None:
        self._session = session
        self._proposes = proposes

    def paint(self, index: int, mask: NDArray[np.bool_]) -> None:
        """Prompt the session; an empty mask says "absent"."""
        if mask.any():
            self._session.paint(plane="axial", index=index, labels=mask.astype(np.uint8) * _LABEL)
        else:
            self._session.absent(_LABEL, "axial", index)

    def volume(self) -> NDArray[np.bool_]:
        """Propagate what is new."""
        return np.moveaxis(self._session.propagate().labels == _LABEL, 2, 0)

    def proposal(self) -> int | None:
        """The session's suggestion."""
        return self._session.result.suggested.get(_LABEL) if self._proposes else None


class GapFiller:
    """A method that fills every gap between painted slices on its own; new gaps only are computed.

    Args:
        shape: `(D, H, W)`.
        first: First slice to fill.
        last: Last one.
        between: Fills the slices of a range; its arguments are the masks painted before and behind it, None where there
            is none. It returns `(N, H, W)`.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        first: int,
        last: int,
        between: Callable[[range, NDArray[np.bool_] | None, NDArray[np.bool_] | None], NDArray[np.bool_]],
    ) -> None:
        self._shape = shape
        self._first, self._last = first, last
        self._between = between
        self._painted: dict[int, NDArray[np.bool_]] = {}
        self._filled: dict[tuple[int, int], NDArray[np.bool_]] = {}

    def paint(self, index: int, mask: NDArray[np.bool_]) -> None:
        """Keep a painted slice."""
        self._painted[index] = mask

    def volume(self) -> NDArray[np.bool_]:
        """Painted slices, and the gaps between them."""
        made = np.zeros(self._shape, bool)
        filled: dict[tuple[int, int], NDArray[np.bool_]] = {}
        for lower, upper in pairwise([self._first - 1, *sorted(self._painted), self._last + 1]):
            gap = range(lower + 1, upper)
            if gap:
                known = self._filled.get((lower, upper))
                if known is None:
                    known = self._between(gap, self._painted.get(lower), self._painted.get(upper))
                filled[lower, upper] = known
                made[gap.start : gap.stop] = known
        self._filled = filled
        for index, mask in self._painted.items():
            made[index] = mask
        return made

    def proposal(self) -> int | None:
        """None: such methods say nothing about it."""
        return None


def simulate(
    filler: Filler,
    truth: NDArray[np.bool_],
    sequence: Sequence,
    start: Iterable[int] | None = None,
    until: float = TARGETS[-1],
) -> tuple[tuple[Step, ...], float, int]:
    """Annotate one object.

    Args:
        filler: Makes the volume; nothing is painted yet.
        truth: `(D, H, W)`.
        sequence: Where the object is and which slice is painted first.
        start: Slices that are painted before the first look; None for the sequence's painted slice.
        until: Dice at which the annotator stops.

    Returns:
        The steps, the share of slices accepted after one painted slice, the painted slices beyond the object: as in
        `Effort`.
    """
    first, last = sequence.first, sequence.last
    inside = slice(first, last + 1)
    painted: set[int] = set()
    steps: list[Step] = []
    accepted = nan
    waiting = sorted(set(start if start is not None else (sequence.painted,)))
    while True:
        for index in waiting:
            filler.paint(index, truth[index])
            painted.add(index)
        made = filler.volume()
        steps.append(Step(len(painted), dice(made[inside], truth[inside])))
        if len(painted) == 1:
            good = [dice(made[index], truth[index]) >= ACCEPTABLE for index in sequence.judged]
            accepted = sum(good) / len(good)
        if steps[-1].dice >= until or len(painted) >= last - first + 1:
            break
        proposed = filler.proposal()
        if proposed is None or proposed in painted:
            proposed = middle_of_greatest_gap(painted, first, last)
        if proposed is None:
            break
        waiting = [proposed]
    return tuple(steps), accepted, sum(not first <= index <= last for index in painted)


def middle_of_greatest_gap(painted: Iterable[int], first: int, last: int) -> int | None:
    """The middle of the longest run of unpainted slices, the first of equals; None where all are painted."""
    inside = sorted(index for index in set(painted) if first <= index <= last)
    gaps = [(lower + 1, upper - 1) for lower, upper in pairwise([first - 1, *inside, last + 1]) if upper - lower > 1]
    if not gaps:
        return None
    begin, end = max(gaps, key=lambda gap: (gap[1] - gap[0], -gap[0]))
    return (begin + end) // 2


def annotate_case(
    case: Case,
    slices: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    techniques: Iterable[Technique],
    model: Model,
    until: float = TARGETS[-1],
) -> Iterator[Effort]:
    """Annotate every object of a volume on its own, with every technique.

    Args:
        case: A volume.
        slices: `(D, H, W)`.
        labels: `(D, H, W)` the truth.
        techniques: Which ones.
        model: Loaded weights.
        until: Dice at which the annotator stops.
    """
    import imos

    wanted = list(techniques)
    image = Image(np.moveaxis(slices, 0, 2), np.eye(4), ImageKind.VOLUME, case.name)
    for sequence in sequences_of(labels, PaintProtocol.LARGEST, is_video=False):
        truth = labels == sequence.label
        for technique in wanted:
            start: tuple[int, ...] | None = None
            filler: Filler
            if technique in (Technique.OURS, Technique.EVEN):
                filler = SessionFiller(imos.Session(model, image), proposes=technique is Technique.OURS)
            else:
                filler = _gap_filler(technique, slices, sequence)
                if technique is Technique.ITK:
                    start = sequence.first, sequence.painted, sequence.last
            steps, accepted, outside = simulate(filler, truth, sequence, start, until)
            yield Effort(technique, case.group, case.name, case.modality, sequence, steps, accepted, outside)


def _gap_filler(technique: Technique, slices: NDArray[np.uint8], sequence: Sequence) -> GapFiller:
    def interpolated(gap: range, lower: NDArray[np.bool_] | None, upper: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        return interpolation.between(lower, upper, len(gap))

    def walked(gap: range, lower: NDArray[np.bool_] | None, upper: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        seen = slices[gap.start - (lower is not None) : gap.stop + (upper is not None)]
        return walker.between(seen, lower, upper) > 0.5

    depth, height, width = slices.shape
    between = interpolated if technique is Technique.ITK else walked
    return GapFiller((depth, height, width), sequence.first, sequence.last, between)
