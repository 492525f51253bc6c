"""Processes: a running one, named so that a later one that got its number is not taken for it.

A number alone does not do: in a container a server that was started again has the number of the one before it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Self

import psutil

_SAME_SECONDS = 2.0
"""When a process began is reckoned from when the machine did, which shifts a little whenever its clock is set."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process.

    Attributes:
        pid: Its number.
        began: When it began, seconds since 1970.
    """

    pid: int
    began: float

    @classmethod
    def this(cls) -> Self:
        """The one that asks."""
        return cls(os.getpid(), psutil.Process().create_time())

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        try:
            found = psutil.Process(self.pid)
            is_same = bool(abs(found.create_time() - self.began) < _SAME_SECONDS)
            return is_same and bool(found.status() != psutil.STATUS_ZOMBIE)  # ended, and nobody asked how yet
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:  # somebody's, and there: as good as it gets
            return True
