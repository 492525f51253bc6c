"""Plan: which passes an object needs, from the slices painted of it.

Its prompts cut the slices into segments. Two passes see a segment between two prompts, one pass a segment beside an
outermost prompt or beside an absence; none sees the slices between two absences.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from imos.propagation.passes import PassKey
from imos.propagation.prompts import Prompt


class Direction(StrEnum):
    """Where passes walk from their painted slices: towards higher indices, lower ones, or both."""

    BOTH = "both"
    FORWARD = "forward"
    BACKWARD = "backward"

    @property
    def steps(self) -> tuple[int, ...]:
        """Signs of the steps."""
        return {Direction.BOTH: (1, -1), Direction.FORWARD: (1,), Direction.BACKWARD: (-1,)}[self]


@dataclass(frozen=True, slots=True)
class Leg:
    """One pass as far as a segment needs it.

    Attributes:
        prompt: The painted slice it starts from.
        step: +1 or -1.
        stop: Last slice, inclusive.
    """

    prompt: Prompt
    step: int
    stop: int

    @property
    def key(self) -> PassKey:
        """Name of the pass."""
        return PassKey.of(self.prompt, self.step)

    @property
    def length(self) -> int:
        """Number of slices."""
        return abs(self.stop - self.prompt.index)


@dataclass(frozen=True, slots=True)
class Segment:
    """Slices without a prompt between two neighbouring prompts, or between one and the limits.

    Attributes:
        first: First slice.
        last: Last slice.
        lower: The prompt just below, if any.
        upper: The prompt just above, if any.
    """

    first: int
    last: int
    lower: Prompt | None
    upper: Prompt | None

    @property
    def indices(self) -> range:
        """Its slices."""
        return range(self.first, self.last + 1)

    def legs(self, steps: Iterable[int] = (1, -1)) -> list[Leg]:
        """The passes that see it."""
        legs = []
        if self.lower is not None and self.lower.starts_passes and 1 in steps:
            legs.append(Leg(self.lower, 1, self.last))
        if self.upper is not None and self.upper.starts_passes and -1 in steps:
            legs.append(Leg(self.upper, -1, self.first))
        return legs

    @property
    def is_said_absent(self) -> bool:
        """Whether the prompts say that the object is nowhere in it."""
        beside = [prompt for prompt in (self.lower, self.upper) if prompt is not None]
        return bool(beside) and all(prompt.is_empty for prompt in beside)


def segments_of(prompts: Sequence[Prompt], first: int, last: int) -> list[Segment]:
    """The segments of one object, in order.

    Args:
        prompts: Of one object along one axis, sorted by index, within the limits.
        first: First slice that may show the object.
        last: Last slice that may.
    """
    bounds = [None, *prompts, None]
    segments = []
    for lower, upper in pairwise(bounds):
        start = first if lower is None else lower.index + 1
        end = last if upper is None else upper.index - 1
        if start <= end:
            segments.append(Segment(start, end, lower, upper))
    return segments
