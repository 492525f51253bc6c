"""Fine-tuning in a process of its own, which gives way to people.

It runs as `python -m imos finetune`, so that it is the same on a CPU, on one GPU and, through torchrun, on several; so
that its memory goes back when it ends; and so that it can be stopped for as long as somebody waits for a propagation.
It ends with the process that started it, however that ends, and leaves a checkpoint from which the next one goes on.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from imos.propagation.cores import cores
from imos.training.lifeline import end_with_parent
from imos.training.progress import FILE

logger = logging.getLogger(__name__)

LOOK_EVERY = 0.2
"""Seconds: how long a propagation shares the cores before training stands still."""

_NICE = 10


@dataclass(frozen=True, slots=True)
class Recipe:
    """How adapters are trained; None leaves the choice to `finetune`.

    Attributes:
        weights: The base.
        adapter: Adapters to start from, or None.
        steps: Optimiser steps.
        batch: Slices a step.
        rate: Highest learning rate.
        tune: What is trained beside the adapters.
        synthetic: Share of passes through synthetic volumes. None are needed against forgetting: a version is used
            only for what looks like what it learned from.
        device: `auto`, `cpu` or `cuda`.
        gpus: Processes, one a GPU.
    """

    weights: Path
    adapter: Path | None = None
    steps: int | None = None
    batch: int | None = None
    rate: float | None = None
    tune: str | None = None
    synthetic: float = 0.0
    device: str = "auto"
    gpus: int = 1

    def words(self, pack: Path, output: Path, folder: Path) -> list[str]:
        """The command line, without the interpreter."""
        words = ["finetune", str(pack), "-o", str(output), "--folder", str(folder), "--weights", str(self.weights)]
        chosen = {
            "adapter": self.adapter,
            "steps": self.steps,
            "batch": self.batch,
            "rate": self.rate,
            "tune": self.tune,
            "synthetic": self.synthetic,
            "device": self.device,
        }
        for name, value in chosen.items():
            if value is not None:
                words += [f"--{name}", str(value)]
        return words


@dataclass(frozen=True, slots=True)
class Step:
    """How far a fine-tuning is.

    Attributes:
        done: Optimiser steps.
        total: In all.
        loss: Of the latest step.
    """

    done: int
    total: int
    loss: float


class FineTuningError(RuntimeError):
    """The process ended without a result; its own message is in the log."""


def fine_tune(
    pack: Path,
    output: Path,
    folder: Path,
    recipe: Recipe,
    tell: Callable[[Step], None] = lambda _: None,
    is_busy: Callable[[], bool] = lambda: False,
) -> None:
    """Train adapters.

    Args:
        pack: What to learn from.
        output: Adapter file to write.
        folder: Of the run; an unfinished run there is taken up.
        recipe: How.
        tell: Called when it has come further.
        is_busy: Whether somebody waits for a propagation on this machine; training stands still as long.

    Raises:
        FineTuningError: It failed.
    """
    with _started([*_python(recipe), *recipe.words(pack, output, folder)], _threads()) as process:
        told: Step | None = None
        stands = False
        while process.poll() is None:
            if is_busy() != stands:
                stands = not stands
                (stand_still if stands else go_on)(process.pid)
            step = read_step(folder)
            if step is not None and step != told:
                tell(step)
                told = step
            time.sleep(LOOK_EVERY)
    if process.returncode != 0 or not output.is_file():
        raise FineTuningError(f"The fine-tuning ended with code {process.returncode}; its own message is above.")


def read_step(folder: Path) -> Step | None:
    """How far the run in a folder is; None before its first step."""
    try:
        said = json.loads((folder / FILE).read_text("utf-8"))
        return Step(int(said["step"]), int(said["steps"]), float(said["loss"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _python(recipe: Recipe) -> list[str]:
    if recipe.gpus <= 1:
        return [sys.executable, "-m", "imos"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*torchrun, "--nproc-per-node", str(recipe.gpus), "-m", "imos"]


def _threads() -> int:
    """Threads of an operation: one core is left to others.

    More wait for each other in busy loops: with two on two cores that did other things as well, training was ten times
    slower than with one.
    """
    return max(1, cores() - 1)


@contextmanager
def _started(command: list[str], threads: int) -> Iterator[subprocess.Popen[bytes]]:
    """The process, which never outlives the block."""
    # A group of its own: Ctrl-C in a terminal is for the one who started it, and that one ends it.
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(command, env=environment, process_group=0, preexec_fn=_give_way)
    try:
        yield process
    finally:
        if process.poll() is None:
            for one in _family(process.pid):
                with contextlib.suppress(psutil.Error):
                    one.kill()
            process.wait()


def _give_way() -> None:
    """In the new process, before it becomes another program. What torchrun starts does the like in `finetune`."""
    psutil.Process().nice(_NICE)
    end_with_parent()


def stand_still(pid: int) -> None:
    """Stop a process and all that it started, also what it starts meanwhile."""
    stopped: set[psutil.Process] = set()
    while more := set(_family(pid)) - stopped:
        for one in more:
            with contextlib.suppress(psutil.Error):
                one.suspend()
        stopped |= more


def go_on(pid: int) -> None:
    """Let a process that stands still go on, with all that it started."""
    for one in _family(pid):
        with contextlib.suppress(psutil.Error):
            one.resume()


def _family(pid: int) -> list[psutil.Process]:
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.Error:
        return []
