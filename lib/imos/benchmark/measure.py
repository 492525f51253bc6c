"""One measurement, in a process of its own so that memory and warm-up are its own: `python -m imos.benchmark.measure`.

Reads a `Task` as JSON from its argument, prints a `Measured` as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imos.benchmark.cases import Case, make_case
from imos.metrics import dice
from imos.propagation.report import peak_memory

if TYPE_CHECKING:
    from imos.propagation.model import Model
    from imos.propagation.result import Progress
    from imos.propagation.session import Session

CORRECTIONS = (-30, -10, 10, 30)
"""Where a slice is corrected, counted from the middle one; prompts lie ten slices to both sides of it."""


@dataclass(frozen=True, slots=True)
class Task:
    """What to measure.

    Attributes:
        side: Pixels of a slice's sides.
        slices: Slices.
        objects: Objects, all painted on the middle slice.
        device: `cpu` or `cuda`.
        corrects: Whether corrections between prompts are timed as well; needs 90 slices.
    """

    side: int
    slices: int
    objects: int
    device: str = "cpu"
    corrects: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found. Times in seconds.

    Attributes:
        task: What was measured.
        load: Weights, and whatever is prepared once.
        first: From the call to the first slice that the caller hears of.
        all: From the call to the result.
        reached: Slices with an object in the result.
        dice: Mean over the objects: whether what is timed works.
        corrections: Each from the call to the result, after one more slice was painted between two prompts.
        volume_mb: The volume.
        peak_mb: Most that the process held.
        gpu_mb: Most that it held on the GPU.
    """

    task: Task
    load: float
    first: float
    all: float
    reached: int
    dice: float
    corrections: list[float]
    volume_mb: float
    peak_mb: float
    gpu_mb: float

    @property
    def per_slice(self) -> float:
        """Seconds for one object on one slice."""
        return self.all / ((self.task.slices - 1) * self.task.objects)


def measure_apart(task: Task) -> Measured:
    """`measure` in a process of its own.

    Raises:
        RuntimeError: It failed.
    """
    command = [sys.executable, "-m", "imos.benchmark.measure", json.dumps(asdict(task))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        msg = f"the measurement of {task} ended with code {done.returncode}"
        raise RuntimeError(msg)
    said = json.loads(done.stdout.splitlines()[-1])
    return Measured(**said | {"task": Task(**said["task"])})


def measure(task: Task) -> Measured:
    """Time propagation from the middle slice, and corrections if wanted."""
    import imos

    case = make_case(task.side, task.slices, task.objects)
    started = perf_counter()
    model = imos.load(device=task.device)
    model.prepare()
    load = perf_counter() - started
    session = imos.Session(model, case.image)
    middle = task.slices // 2
    session.paint(plane="axial", index=middle, labels=case.labels[middle])
    first: list[float] = []

    def hear(_: Progress) -> None:
        if not first:
            first.append(perf_counter() - started)

    started = perf_counter()
    result = session.propagate(on_progress=hear)
    seconds = perf_counter() - started
    reached = int((result.labels > 0).any(axis=(0, 1)).sum())
    agreement = _dice(case, result.labels)
    corrections = _corrections(session, case, middle) if task.corrects else []
    return Measured(
        task,
        load,
        first[0],
        seconds,
        reached,
        agreement,
        corrections,
        case.voxels.nbytes / 1e6,
        peak_memory() / 1e6,
        _gpu_megabytes(model),
    )


def _corrections(session: Session, case: Case, middle: int) -> list[float]:
    for index in sorted({middle + place + side for place in CORRECTIONS for side in (-10, 10)} - {middle}):
        session.paint(plane="axial", index=index, labels=case.labels[index])
    session.propagate()
    times = []
    for place in CORRECTIONS:
        session.paint(plane="axial", index=middle + place, labels=case.labels[middle + place])
        started = perf_counter()
        session.propagate()
        times.append(perf_counter() - started)
    return times


def _dice(case: Case, found: NDArray[Any]) -> float:
    labels = np.moveaxis(found, 2, 0)
    values = range(1, int(case.labels.max()) + 1)
    return float(np.mean([dice(labels == value, case.labels == value) for value in values]))


def _gpu_megabytes(model: Model) -> float:
    if model.device.type != "cuda":
        return 0.0
    import torch

    return float(torch.cuda.max_memory_allocated()) / 1e6


if __name__ == "__main__":
    print(json.dumps(asdict(measure(Task(**json.loads(sys.argv[1]))))))
