"""The phases of a training of `xmem`: stills, long sequences, short sequences, each with an optimiser of its own.

Long and short say how long a phase takes, not its clips: both train on clips of eight slices (XMem's second and third
main stage). Within a phase the slices of a clip lie further and further apart, and nearer again in the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from imos.errors import UserError
from imos.training.phases import Phase

GAP_CHANGES = (0.1, 0.3, 0.9)
"""Shares of a phase's main part after which the largest gap changes."""
RATE_FACTOR = 0.1
"""What the learning rate is multiplied by after a phase's drop."""
PAPER_STEPS = 420_000
"""Of the paper's three phases together, their tails included."""
PAPER_WARM_UP = (20_000, 70_000)
"""Steps of a phase between which the bootstrapped loss gets harder."""


@dataclass(frozen=True, slots=True)
class ClipPhase:
    """One phase.

    Attributes:
        name: For people.
        share: Of the run's steps, in any unit; the paper's are in thousands of steps.
        batch: Clips a step, over all processes.
        size: Pixels a side.
        frames: Slices a clip.
        references: Memorised slices that one slice reads.
        objects: At most, in a clip.
        gaps: Largest gap of two slices: at first, and after each of `GAP_CHANGES`.
        still: One slice and synthetic motion instead of neighbouring slices.
        drop: Share of the main part after which the learning rate drops; None for never.
        tail: Share of the steps that come after the main part, without affine augmentation.
    """

    name: str
    share: float
    batch: int = 8
    size: int = 384
    frames: int = 8
    references: int = 3
    objects: int = 3
    gaps: tuple[int, int, int, int] = (1, 2, 3, 1)
    still: bool = False
    drop: float | None = 0.8
    tail: float = 0.0


PAPER_PHASES = (
    ClipPhase("static", 150, batch=16, frames=3, references=2, objects=1, still=True, drop=None),
    ClipPhase("long", 160, tail=1 / 16),
    ClipPhase("short", 110, tail=1 / 11),
)
"""XMem's phases with the gaps of iMOS: neighbouring slices of a volume differ more than frames of a video."""


class Position(NamedTuple):
    """Where a step or a clip is.

    Attributes:
        phase: The phase.
        iteration: Steps of this phase that are done.
        main: Steps of this phase before its tail.
    """

    phase: ClipPhase
    iteration: int
    main: int

    @property
    def gap(self) -> int:
        """Largest distance of neighbouring slices."""
        return self.phase.gaps[sum(self.iteration >= round(share * self.main) for share in GAP_CHANGES)]

    @property
    def is_tail(self) -> bool:
        """Whether slices are no longer turned and sheared one by one."""
        return self.iteration >= self.main

    @property
    def rate_factor(self) -> float:
        """What the learning rate is multiplied by."""
        dropped = self.phase.drop is not None and self.iteration >= round(self.phase.drop * self.main)
        return RATE_FACTOR if dropped else 1.0


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A phase laid over steps and clips: its first ones, and how many steps."""

    phase: ClipPhase
    first_step: int
    first_clip: int
    steps: int

    def at(self, iteration: int) -> Position:
        return Position(self.phase, iteration, max(1, self.steps - round(self.phase.tail * self.steps)))


class Curriculum:
    """Phases laid over the steps of a run.

    Args:
        phases: In order; each gets at least one step.
        steps: In all.
        paper_steps: What the paper takes for these phases; a shorter run hardens its loss sooner in proportion.

    Raises:
        UserError: Fewer steps than phases.
    """

    def __init__(self, phases: Sequence[ClipPhase], steps: int, paper_steps: int = PAPER_STEPS) -> None:
        if steps < len(phases):
            raise UserError(f"{steps} steps are too few for {len(phases)} phases. Give at least one a phase.")
        self.phases, self.steps = tuple(phases), steps
        whole = sum(phase.share for phase in phases)
        done, step, clip = 0.0, 0, 0
        self._stretches: list[_Stretch] = []
        for number, phase in enumerate(phases):
            done += phase.share
            left = len(phases) - number - 1
            after = min(max(round(done / whole * steps), step + 1), steps - left)
            self._stretches.append(_Stretch(phase, step, clip, after - step))
            clip += (after - step) * phase.batch
            step = after
        shortened = min(1.0, steps / paper_steps)
        start, end = (round(shortened * number) for number in PAPER_WARM_UP)
        self.warm_up = start, max(end, start + 1)

    def at(self, step: int) -> Position:
        """Where a step is; the last phase goes on for ever."""
        stretch = next(stretch for stretch in reversed(self._stretches) if step >= stretch.first_step)
        return stretch.at(step - stretch.first_step)

    def at_clip(self, number: int) -> Position:
        """Where a clip is."""
        stretch = next(stretch for stretch in reversed(self._stretches) if number >= stretch.first_clip)
        return stretch.at((number - stretch.first_clip) // stretch.phase.batch)

    def clips_before(self, step: int) -> int:
        """Clips that are used before a step: the number of its first one."""
        stretch = next(stretch for stretch in reversed(self._stretches) if step >= stretch.first_step)
        return stretch.first_clip + (step - stretch.first_step) * stretch.phase.batch


def resized(phases: Sequence[ClipPhase], size: int | None, frames: int | None, batch: int | None) -> list[ClipPhase]:
    """Phases with other sizes.

    Args:
        phases: In order.
        size: Pixels a side; None as they are.
        frames: Slices a clip, at least 2; stills keep theirs where they have fewer. None as they are.
        batch: Clips a step; None as they are.

    Raises:
        UserError: A clip has fewer than 2 slices, or its size is no multiple of 16 from 32 on.
    """
    if frames is not None and frames < 2:
        raise UserError(f"--frames {frames}: a clip needs at least 2 slices, the painted one and one to segment.")
    if size is not None and (size < 32 or size % 16):
        raise UserError(f"--size {size}: it must be a multiple of 16 from 32 on.")
    return [
        replace(
            phase,
            size=size or phase.size,
            frames=phase.frames if frames is None else min(frames, phase.frames) if phase.still else frames,
            batch=batch or phase.batch,
        )
        for phase in phases
    ]


def of_phases(phases: Sequence[Phase]) -> list[ClipPhase]:
    """Phases as `--phases` gives them, with what the paper does for stills and for sequences."""
    stills, sequences, _ = PAPER_PHASES
    made = []
    for phase in phases:
        near, middle = -(-phase.largest_gap // 3), -(-2 * phase.largest_gap // 3)
        like = stills if phase.still else sequences
        gaps = (near, middle, phase.largest_gap, near)
        made.append(replace(like, name=phase.name, share=phase.share, size=phase.grid, frames=phase.frames, gaps=gaps))
    return made
