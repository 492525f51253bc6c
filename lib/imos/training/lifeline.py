"""Lifeline: a process that shall not outlive the one that started it.

`kill -9` leaves nobody time to clean up, so the system has to do it. Each process of a chain asks for itself:
torchrun's processes are in sessions of their own, and no signal to the first one reaches them.
"""

from __future__ import annotations

import ctypes
import signal
import sys

_SIGNAL_WHEN_PARENT_ENDS = 1  # PR_SET_PDEATHSIG of Linux


def end_with_parent() -> None:
    """Have this process killed as soon as its parent has ended, however it ends; nothing happens but on Linux.

    For the system a parent is the thread that started the process: that one must wait for it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SIGNAL_WHEN_PARENT_ENDS, signal.SIGKILL)
