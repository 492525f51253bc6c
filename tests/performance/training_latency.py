"""How long a propagation takes on its own, beside a training that does not give way, and beside one that does.

.venv/bin/python tests/performance/training_latency.py [times]
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

import imos
from imos.imaging import read_label_map
from imos.learning.finetuning import FineTuningError, Recipe, fine_tune
from imos.learning.stacks import stacks_of
from imos.learning.volumes import LabelledVolume
from imos.propagation.model import BUNDLED
from imos.server.activity import Activity, is_busy
from imos.training.packing import write_pack

CT = Path(__file__).parents[2] / "samples" / "ct"


def main() -> None:
    """Print the medians and their ratios."""
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    folder = Path(tempfile.mkdtemp())
    model, image = imos.load(), imos.read(CT / "image.nii.gz")
    painted, label = (read_label_map(CT / f"{name}.nii.gz", image) for name in ("painted", "label"))
    write_pack(stacks_of(LabelledVolume("ct", image, label)), folder / "pack.npz", quickly=True)
    activity = Activity(folder)

    def seconds() -> float:
        taken = []
        for _ in range(times):
            session = imos.Session(model, image)
            session.paint_volume(np.where(painted == 4, 4, 0), plane="axial")
            started = time.perf_counter()
            with activity.working():
                session.propagate()
            taken.append(time.perf_counter() - started)
            time.sleep(1.5)
        return statistics.median(taken)

    def beside(name: str, gives_way: bool) -> float:
        run = folder / name
        busy = (lambda: is_busy(folder)) if gives_way else (lambda: False)
        training = threading.Thread(target=_train, args=(folder / "pack.npz", run, busy), daemon=True)
        training.start()
        while not (run / "run" / "progress.json").exists():
            if not training.is_alive():
                sys.exit("The training ended; its message is above.")
            time.sleep(0.2)
        found = seconds()
        memory = _memory()
        print(f"{name}: {found:.2f} s; training takes {memory:.0f} MB")
        for child in psutil.Process().children(recursive=True):
            child.kill()
        return found

    seconds()
    alone = seconds()
    print(f"alone: {alone:.2f} s")
    for name, gives_way in (("beside", False), ("gives way", True)):
        print(f"  {beside(name, gives_way) / alone:.2f} times as long")


def _train(pack: Path, folder: Path, busy: Callable[[], bool]) -> None:
    folder.mkdir()
    recipe = Recipe(BUNDLED, steps=10_000, batch=8)
    with contextlib.suppress(FineTuningError):  # it is killed when enough was measured
        fine_tune(pack, folder / "a.safetensors", folder / "run", recipe, is_busy=busy)


def _memory() -> float:
    """MB of the training's processes; what they share is counted once."""
    return sum(child.memory_full_info().pss for child in psutil.Process().children(recursive=True)) / 2**20


if __name__ == "__main__":
    main()
