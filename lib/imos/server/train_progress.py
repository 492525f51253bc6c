"""Progress of training as MONAI Label's clients show it: written by the process that trains, read by the server.

OHIF and 3D Slicer draw a bar from `epoch` and `total_epochs`, show `best_metric` (0…1), and take the round as ended
when there is a `total_time`. An epoch is one optimiser step here.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from imos.imaging.writing import replacing
from imos.learning.rounds import Stage, Standing
from imos.server.processes import Process

_FILE = "progress.json"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a round is.

    Attributes:
        start_ts: When it began, seconds since 1970.
        pid: Of the process that trains.
        began: When that process began, seconds since 1970; the same number is given again.
        stage: What it does; `failed` where it ended without a version.
        epoch: Optimiser steps done.
        total_epochs: In all.
        best_metric: J&F of the version in use on the held-out volumes; in the end the candidate's. 0 where nothing was
            judged.
        loss: Of the latest step.
        version: What came of it.
        reason: Why the version is used or not, or why the round failed.
        total_time: How long it took, once it has ended.
    """

    start_ts: int
    pid: int
    began: float
    stage: str
    epoch: int = 0
    total_epochs: int = 0
    best_metric: float = 0.0
    loss: float | None = None
    version: str = ""
    reason: str = ""
    total_time: str = ""

    @classmethod
    def from_json(cls, said: Any) -> Progress:
        """From what was written.

        Raises:
            TypeError, ValueError, OverflowError: It is something else.
        """
        read = cls(**said)
        return cls(
            start_ts=int(read.start_ts),
            pid=int(read.pid),
            began=float(read.began),
            stage=str(read.stage),
            epoch=int(read.epoch),
            total_epochs=int(read.total_epochs),
            best_metric=float(read.best_metric),
            loss=None if read.loss is None else float(read.loss),
            version=str(read.version),
            reason=str(read.reason),
            total_time=str(read.total_time),
        )


class ProgressFile:
    """The file between the two processes.

    Args:
        folder: Of the registry.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE

    def write(self, progress: Progress) -> None:
        """Replace what it says."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self._path) as beside:
            beside.write_text(json.dumps(asdict(progress)), "utf-8")

    def read(self) -> Progress | None:
        """What it says; None where no round ever began."""
        try:
            return Progress.from_json(json.loads(self._path.read_text("utf-8")))
        except (OSError, ValueError, TypeError, OverflowError):  # none, or damaged
            return None

    def stats(self) -> dict[str, Any]:
        """What the clients read; empty where no round ever began. A round whose process is gone has ended."""
        progress = self.read()
        if progress is None:
            return {}
        if not progress.total_time and not Process(progress.pid, progress.began).is_running:
            progress = replace(progress, stage="stopped", total_time=_duration(progress.start_ts))
        said = asdict(progress)
        del said["pid"], said["began"]
        if not progress.total_time:
            del said["total_time"]
            said["current_time"] = _duration(progress.start_ts)
        return said


class Teller:
    """Writes the progress of this process's round.

    Args:
        file: Where to.
        best: J&F of the version in use, as far as it is known.
    """

    def __init__(self, file: ProgressFile, best: float | None) -> None:
        self._file = file
        this = Process.this()
        self._progress = Progress(int(time.time()), this.pid, this.began, Stage.PREPARING, best_metric=best or 0.0)

    def __call__(self, standing: Standing) -> None:
        """Take note of how far it is."""
        self._progress = replace(self._progress, stage=str(standing.stage))
        if standing.stage is Stage.TRAINING:
            self._progress = replace(
                self._progress, epoch=standing.step, total_epochs=standing.steps, loss=standing.loss
            )
        record = standing.record
        if record is not None:
            best = record.figures.candidate
            self._progress = replace(
                self._progress,
                best_metric=self._progress.best_metric if best is None else best,
                version=record.name,
                reason=record.reason,
                total_time=_duration(self._progress.start_ts),
            )
        self._file.write(self._progress)

    def fail(self, reason: str) -> None:
        """The round ended without a version."""
        took = _duration(self._progress.start_ts)
        self._progress = replace(self._progress, stage="failed", reason=reason, total_time=took)
        self._file.write(self._progress)


def _duration(start: int) -> str:
    return str(timedelta(seconds=max(1, int(time.time() - start))))
