"""The report of a propagation: what it took and how sure it is, as JSON for other programs (design, section 4)."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imos.imaging.writing import replacing
from imos.propagation.states import SliceState

if TYPE_CHECKING:
    from imos.propagation.model import Model
    from imos.propagation.result import Result


@dataclass(frozen=True, slots=True)
class Weights:
    """Which weights were used.

    Attributes:
        name: Name of their file.
        sha256: Checksum of their file, hexadecimal.
    """

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class ObjectReport:
    """What is known about one object.

    Attributes:
        label: The user's label value.
        axis: Array axis of the image along which its slices are numbered, from 0.
        prompts: Painted slices, ascending.
        confidence: Slice → predicted J in [0, 1], for every slice on which the object was sought.
        suggested: The slice whose painting is expected to gain most; None when nothing is left to gain.
    """

    label: int
    axis: int
    prompts: list[int]
    confidence: dict[int, float]
    suggested: int | None


@dataclass(frozen=True, slots=True)
class Report:
    """One propagation.

    Attributes:
        seconds: The propagation alone.
        load_seconds: Before it: reading image, prompts and weights.
        peak_memory_mb: Largest resident memory of the process, in 10⁶ bytes.
        device: Where it ran.
        weights: Which weights were used.
        objects: One entry an object, by label.
    """

    seconds: float
    load_seconds: float
    peak_memory_mb: float
    device: str
    weights: Weights
    objects: list[ObjectReport]


def make_report(result: Result, model: Model, *, load_seconds: float) -> Report:
    """Gather what a propagation did.

    Args:
        result: What it returned.
        model: What it ran on.
        load_seconds: What came before it: reading image, prompts and weights.
    """
    objects = [
        ObjectReport(
            label=int(label),
            axis=result.axes[label],
            prompts=[int(index) for index in sorted(states) if states[index] is SliceState.PROMPTED],
            confidence={int(i): round(float(value), 4) for i, value in sorted(result.confidence[label].items())},
            suggested=None if (index := result.suggested.get(label)) is None else int(index),
        )
        for label, states in sorted(result.states.items())
    ]
    return Report(
        seconds=round(result.seconds, 3),
        load_seconds=round(load_seconds, 3),
        peak_memory_mb=round(peak_memory() / 1e6, 1),
        device=str(model.device),
        weights=Weights(model.name, model.sha256),
        objects=objects,
    )


def write_report(path: str | os.PathLike[str], report: Report) -> None:
    """Write a report as JSON; complete or not at all."""
    with replacing(Path(path)) as beside:
        beside.write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    try:
        # Not ru_maxrss: that survives exec, so a child of a big process would report its parent's memory.
        with open("/proc/self/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024
