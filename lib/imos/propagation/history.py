"""History: named steps that can be undone and done again.

States are immutable, so that a step back is exact and instant. The number of steps is bounded.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

State = TypeVar("State")

LEVELS = 50
"""Steps that can be undone."""


class History(Generic[State]):
    """The present state, what led to it and what was undone.

    Args:
        present: The first state.
        levels: Steps to remember; the oldest are forgotten.
    """

    def __init__(self, present: State, levels: int = LEVELS) -> None:
        self.present = present
        self._past: deque[tuple[str, State]] = deque(maxlen=levels)
        self._future: list[tuple[str, State]] = []

    def do(self, name: str, state: State) -> None:
        """Go on to a new state; what was undone before is gone."""
        self._past.append((name, self.present))
        self._future.clear()
        self.present = state

    def undo(self) -> str | None:
        """Go back one step; its name, or None when there is none."""
        if not self._past:
            return None
        name, state = self._past.pop()
        self._future.append((name, self.present))
        self.present = state
        return name

    def redo(self) -> str | None:
        """Do again the step undone last; its name, or None when there is none."""
        if not self._future:
            return None
        name, state = self._future.pop()
        self._past.append((name, self.present))
        self.present = state
        return name

    @property
    def undoable(self) -> tuple[str, ...]:
        """Names of the steps that can be undone, the next one first."""
        return tuple(name for name, _ in reversed(self._past))

    @property
    def redoable(self) -> tuple[str, ...]:
        """Names of the steps that can be done again, the next one first."""
        return tuple(name for name, _ in reversed(self._future))
