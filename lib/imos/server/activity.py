"""Activity: lets training know that somebody waits for a propagation, so that it stands still as long.

Training is another process; what it looks at is a small file that is there while at least one propagation runs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imos.server.processes import Process

_FILE = "busy"


class Activity:
    """What this process does now.

    Args:
        folder: Of the registry.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / _FILE
        self._lock = threading.Lock()
        self._running = 0

    @contextmanager
    def working(self) -> Iterator[None]:
        """Somebody waits for what the block does."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, more: int) -> None:
        with self._lock:
            before, self._running = self._running, self._running + more
            if before == 0:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                this = Process.this()
                self._file.write_text(f"{this.pid} {this.began}", "ascii")
            elif self._running == 0:
                self._file.unlink(missing_ok=True)


def is_busy(folder: Path) -> bool:
    """Whether a server that still runs works for somebody now.

    Args:
        folder: Of the registry.
    """
    try:
        pid, began = (folder / _FILE).read_text("ascii").split()
        return Process(int(pid), float(began)).is_running
    except (OSError, ValueError):  # none, or one that is being written this very moment
        return False
