"""Runs: propagations that wait, go on or have ended, each with its events.

Runs are carried out by threads of their own, a few at a time and in the order in which they came. A run that has ended
is remembered for a while, so that a client whose connection broke learns how it ended.
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from imos.errors import UserError
from imos.server.events import EventKind, EventLog

logger = logging.getLogger(__name__)

AT_ONCE = 2
"""Runs at a time: a second user sees first slices at once, and no run gets less than half of the machine."""

REMEMBERED = 64
"""Runs that have ended and can still be asked for."""


@dataclass(frozen=True, eq=False)
class Run:
    """One propagation.

    Attributes:
        owner: Who may follow and cancel it; "" for everyone when nobody has to log in.
        key: Names the run; cannot be guessed.
        log: What it says.
        cancelled: Set to stop it after the present slice.
    """

    owner: str
    key: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    log: EventLog = field(default_factory=EventLog)
    cancelled: threading.Event = field(default_factory=threading.Event)


class RunQueue:
    """Carries out runs.

    Args:
        at_once: Runs at a time.
    """

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._lock = threading.Lock()
        self._runs: dict[str, Run] = {}
        self._waiting: queue.SimpleQueue[tuple[Run, Callable[[Run], None]]] = queue.SimpleQueue()
        for number in range(at_once):
            # Daemons: a server that is stopped does not wait for a run. What was painted is on disk by then.
            threading.Thread(target=self._work, name=f"run-{number}", daemon=True).start()

    def start(self, run: Run, work: Callable[[Run], None]) -> None:
        """Carry out a run as soon as it is its turn.

        Args:
            run: Where the work says how it goes on.
            work: Does it all and says the last event; what it raises becomes the event `failed`.
        """
        with self._lock:
            self._runs[run.key] = run
            ended = [key for key, other in self._runs.items() if other.log.is_finished]
            for key in ended[: max(0, len(ended) - REMEMBERED)]:
                del self._runs[key]
        self._waiting.put((run, work))

    def get(self, key: str) -> Run | None:
        """A run, if it is known."""
        with self._lock:
            return self._runs.get(key)

    def _work(self) -> None:
        while True:
            run, work = self._waiting.get()
            try:
                work(run)
            except UserError as error:
                run.log.add(EventKind.FAILED, {"detail": str(error)})
            except Exception:
                logger.exception("A run failed")
                detail = "The run failed for a reason of the server's own. What was painted is kept; see its log."
                run.log.add(EventKind.FAILED, {"detail": detail})
            finally:
                # Whatever happened, nobody waits for ever.
                run.log.add(EventKind.FAILED, {"detail": "The run ended without an answer. What was painted is kept."})
