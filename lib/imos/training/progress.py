"""What a training says while it runs: a line now and then, TensorBoard, the time that is left.

`progress.json` in the run's folder is for programs: `step`, `steps` and `loss`, and what was measured last.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from imos.training.sharing import rank

INTERVAL = 10.0
"""Seconds between two lines."""

FILE = "progress.json"
_FILE_INTERVAL = 1.0
"""Seconds between two looks of a program at it that may differ."""


class Progress:
    """What a run says; only the first of its processes says it.

    Args:
        folder: Of the run; TensorBoard's files lie there.
        step: Step that it begins, or goes on, with.
        steps: In all.
    """

    def __init__(self, folder: Path, step: int, steps: int) -> None:
        self._folder, self._first, self._steps = folder, step, steps
        self._measured: dict[str, float] = {}
        self._noted = -_FILE_INTERVAL
        self._began = time.monotonic()
        self._shown = self._waited = 0.0
        self._writer = SummaryWriter(str(folder)) if rank() == 0 else None
        self._before = 0.0
        self._losses: list[float] = []

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    def waiting(self) -> Progress:
        """A context that counts as waiting for samples."""
        return self

    def __enter__(self) -> None:
        self._before = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._waited += time.monotonic() - self._before

    def show(self, step: int, phase: str, sequences: int, parts: Mapping[str, float]) -> None:
        """After a step.

        Args:
            step: Steps done.
            phase: Name of the phase.
            sequences: A step, over all processes.
            parts: The loss and its parts, by name.
        """
        elapsed = self.elapsed
        self._losses.append(parts["loss"])
        self._note(step, parts["loss"])
        if self._writer is None or (elapsed - self._shown < INTERVAL and step < self._steps):
            return
        self._shown = elapsed
        speed = (step - self._first) / elapsed
        self._say(
            f"step {step}/{self._steps} ({phase})  loss {parts['loss']:.3f}  {speed * sequences:.1f} sequences/s,"
            f" {100 * self._waited / elapsed:.0f} % waiting for samples"
            f"  {(self._steps - step) / speed / 60:.0f} min left"
        )
        for name, value in parts.items():
            self._writer.add_scalar(name, value, step)

    def show_measures(self, step: int, measures: Mapping[str, float]) -> None:
        """At a checkpoint: the mean loss since the last one, and what was measured."""
        if self._writer is None:
            return
        measures = {"mean loss": float(np.mean(self._losses))} | dict(measures)
        self._losses.clear()
        self._measured = measures
        for name, value in measures.items():
            self._writer.add_scalar(name, value, step)
        text = "  ".join(f"{name} {value:.3f}" for name, value in measures.items())
        self._say(f"step {step}: {text}")

    def close(self) -> None:
        """The run ends."""
        if self._writer is not None:
            self._writer.close()

    def _note(self, step: int, loss: float) -> None:
        """For programs. No fsync: it is about now, and nobody needs it after a power cut."""
        if self._writer is None or (self.elapsed - self._noted < _FILE_INTERVAL and step < self._steps):
            return
        self._noted = self.elapsed
        said = {"step": step, "steps": self._steps, "loss": loss, "measured": self._measured}
        beside = self._folder / f".{FILE}"
        beside.write_text(json.dumps(said), "utf-8")
        os.replace(beside, self._folder / FILE)

    @staticmethod
    def _say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def write_figures(folder: Path, step: int, figures: Mapping[str, float]) -> None:
    """Add what was found after a run to its curves.

    Args:
        folder: Where TensorBoard's files lie.
        step: Where on the curves.
        figures: By name.
    """
    with SummaryWriter(str(folder)) as writer:
        for name, value in figures.items():
            writer.add_scalar(name, value, step)
