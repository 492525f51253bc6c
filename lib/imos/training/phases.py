"""Phases of a training: stills, long sequences, short sequences, as XMem and iMOS are trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from imos.errors import UserError


@dataclass(frozen=True, slots=True)
class Phase:
    """What is cut in one part of a training.

    Attributes:
        name: For people.
        share: Of the steps.
        grid: Grid pixels a side; the network learns nearly as much from half the pixels, in half the time.
        frames: Slices a sequence, the painted one included.
        largest_gap: Greatest distance of neighbouring slices.
        still: One slice and synthetic motion instead of neighbouring slices.
    """

    name: str
    share: float
    grid: int
    frames: int = 4
    largest_gap: int = 3
    still: bool = False


SMALL_PHASES = (
    Phase("static", 0.1, 112, frames=3, still=True),
    Phase("long", 0.6, 112, frames=4, largest_gap=3),
    Phase("short", 0.3, 160, frames=4, largest_gap=2),
)
"""What works for `small`: docs/training.md."""

SMOKE_PHASES = (
    Phase("static", 0.2, 48, frames=3, still=True),
    Phase("long", 0.6, 48, frames=4),
    Phase("short", 0.2, 64, frames=3, largest_gap=2),
)
"""All that a training does, in a minute."""


class Place(NamedTuple):
    """Where a step is: its phase, and that phase's first step."""

    phase: Phase
    first: int


class Schedule:
    """Phases laid over a number of steps.

    Args:
        phases: In order.
        steps: In all.
        scale: Numbers a step: the schedule is asked by sample instead of by step.
    """

    def __init__(self, phases: Sequence[Phase], steps: int, scale: int = 1) -> None:
        whole = sum(phase.share for phase in phases)
        done, first = 0.0, 0
        self._places: list[Place] = []
        for phase in phases:
            done += phase.share
            after = round(done / whole * steps) * scale
            if after > first:
                self._places.append(Place(phase, first))
            first = max(first, after)

    def at(self, step: int) -> Place:
        """The phase of a step; the last one goes on for ever."""
        return next(place for place in reversed(self._places) if step >= place.first)

    @property
    def starts(self) -> frozenset[int]:
        """First steps of the phases."""
        return frozenset(place.first for place in self._places)


def parse_phases(text: str) -> tuple[Phase, ...]:
    """Phases from a command line: `NAME:SHARE:GRID:FRAMES:GAP,…`; gap 0 means stills.

    Raises:
        UserError: It is not of this form.
    """
    phases = []
    for part in text.split(","):
        try:
            name, share, *sizes = part.split(":")
            grid, frames, gap = (int(size) for size in sizes)
            phase = Phase(name.strip(), float(share), grid, frames, max(1, gap), still=gap == 0)
        except ValueError as error:
            raise UserError(f"'{part}' is no phase. Give NAME:SHARE:GRID:FRAMES:GAP, e.g. long:0.6:112:4:3.") from error
        if not (phase.share > 0 and grid >= 32 and grid % 16 == 0 and frames >= 2 and gap >= 0):
            raise UserError(
                f"phase '{part}': the share must be above 0, the grid a multiple of 16 from 32 on, frames at least 2,"
                " the gap 0 (stills) or more."
            )
        phases.append(phase)
    return tuple(phases)
