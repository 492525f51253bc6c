"""Events of a run: written by the thread that computes, read by any number of clients as server-sent events.

An event has a number and stays until its run is forgotten, so that a client whose connection broke goes on where it
was (`Last-Event-ID`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from types import FrameType
from typing import Any

KEEP_ALIVE_SECONDS = 15.0
"""A comment is sent after so long without an event: proxies close connections that are silent."""

_LOOK_SECONDS = 1.0
_closing = threading.Event()


class EventKind(StrEnum):
    """What an event says; the last three end a run."""

    PROGRESS = "progress"
    SLICE = "slice"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_last(self) -> bool:
        """Whether nothing follows."""
        return self in (EventKind.DONE, EventKind.FAILED, EventKind.CANCELLED)


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        number: From 1, without gaps.
        kind: What it says.
        data: JSON text.
    """

    number: int
    kind: EventKind
    data: str

    def encode(self) -> bytes:
        """As it goes over the wire."""
        return f"id: {self.number}\nevent: {self.kind}\ndata: {self.data}\n\n".encode()


class EventLog:
    """All events of one run, in order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: list[Event] = []
        self._readers: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def add(self, kind: EventKind, data: dict[str, Any]) -> None:
        """Say something; from any thread. Nothing can follow a last event."""
        text = json.dumps(data, separators=(",", ":"))
        with self._lock:
            if self._events and self._events[-1].kind.is_last:
                return
            self._events.append(Event(len(self._events) + 1, kind, text))
            readers = list(self._readers)
        for loop, wake in readers:
            if not loop.is_closed():
                loop.call_soon_threadsafe(wake.set)

    @property
    def is_finished(self) -> bool:
        """Whether the last event was said."""
        with self._lock:
            return bool(self._events) and self._events[-1].kind.is_last

    def after(self, number: int) -> list[Event]:
        """The events behind a number."""
        with self._lock:
            return self._events[max(0, number) :]

    async def stream(self, number: int = 0) -> AsyncIterator[bytes]:
        """What goes to one client.

        Args:
            number: The last event that it has; 0 for none.
        """
        wake = asyncio.Event()
        reader = (asyncio.get_running_loop(), wake)
        with self._lock:
            self._readers.add(reader)
        try:
            while True:
                wake.clear()
                for event in self.after(number):
                    number = event.number
                    yield event.encode()
                    if event.kind.is_last:
                        return
                silent = 0.0
                while not wake.is_set() and not self.is_finished:
                    if _closing.is_set():
                        return
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(wake.wait(), _LOOK_SECONDS)
                    silent += _LOOK_SECONDS
                    if silent >= KEEP_ALIVE_SECONDS:
                        silent = 0.0
                        yield b": still here\n\n"
                if self.is_finished and not self.after(number):
                    return
        finally:
            with self._lock:
                self._readers.discard(reader)


def end_streams_with_the_server() -> None:
    """End all streams when the server is told to stop: it would wait for them, and they for runs.

    To be called in the main thread while the server starts.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        before = signal.getsignal(number)

        def stop(received: int, frame: FrameType | None, before: Any = before) -> None:
            _closing.set()
            if callable(before):
                before(received, frame)

        if callable(before):
            signal.signal(number, stop)
