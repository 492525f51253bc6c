"""How long the main job takes and what it holds in memory, through the command line.

    .venv/bin/python tests/performance/propagation_speed.py [SLICES …] [--threads N]

One object runs through all slices of a synthetic volume of 256×256 pixels; its middle slice is painted. The product
promises, on two quiet cores: 100 slices in 6 s after loading, at most 1.5 GB, time linear in the number of slices, and
memory that grows by the input and bounded caches only. `seconds` is the propagation alone, `s/100` what 100 slices take
at this rate, `whole` the whole command, `cpu` its processor time (all cores; hardly changes on a busy machine), `input`
the volume as it is held. Not collected by pytest: figures need a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import nibabel
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SIDE = 256
COUNTS = (25, 50, 100, 200, 1000)


def make_case(folder: Path, count: int) -> None:
    """Write `image.nii`, `painted.nii` and `truth.nii`: a bright body that wanders and breathes, in noise and haze."""
    noise = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    voxels = np.empty((SIDE, SIDE, count), np.int16)
    truth = np.zeros((SIDE, SIDE, count), np.uint8)
    for index in range(count):
        turn = index / 20
        row, column = 128 + 40 * np.sin(turn), 128 + 40 * np.cos(0.7 * turn)
        height, width = 30 + 8 * np.sin(1.3 * turn), 36 + 8 * np.cos(turn)
        inside = ((y - row) / height) ** 2 + ((x - column) / width) ** 2 < 1
        haze = 80 * np.sin(x / 23 + turn / 3) * np.cos(y / 31)
        voxels[:, :, index] = 300 + 250 * inside + haze + noise.normal(0, 60, inside.shape)
        truth[:, :, index] = inside
    painted = np.zeros_like(truth)
    painted[:, :, count // 2] = truth[:, :, count // 2]
    for name, array in (("image", voxels), ("painted", painted), ("truth", truth)):
        nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0])), folder / f"{name}.nii")


def cpu_seconds() -> float:
    """Processor time of the commands that were run so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(count: int, threads: int | None) -> str:
    """One row of the table."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        make_case(folder, count)
        environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
        if threads is not None:
            environment["OMP_NUM_THREADS"] = str(threads)
        started, used = perf_counter(), cpu_seconds()
        words = ["propagate", "image.nii", "painted.nii", "-o", "out.nii", "--report", "report.json"]
        subprocess.run(
            [sys.executable, str(ROOT / "main.py"), *words],
            cwd=folder,
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        whole, used = perf_counter() - started, cpu_seconds() - used
        report = json.loads((folder / "report.json").read_text())
        found = np.asarray(nibabel.load(folder / "out.nii").dataobj) > 0
        truth = np.asarray(nibabel.load(folder / "truth.nii").dataobj) > 0
    dice = 2 * (found & truth).sum() / (found.sum() + truth.sum())
    seconds, slices = report["seconds"], int(found.any(axis=(0, 1)).sum())
    return (
        f"{count:6} {slices:7} {seconds:8.2f} {100 * seconds / max(slices - 1, 1):6.2f} {report['load_seconds']:6.2f}"
        f" {whole:6.2f} {used:6.2f} {report['peak_memory_mb']:8.0f} {2 * truth.size / 1e6:9.0f} {dice:6.3f}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slices", nargs="*", type=int, default=COUNTS)
    parser.add_argument("--threads", type=int, help="OMP_NUM_THREADS; by default unset")
    args = parser.parse_args()
    print("slices reached  seconds  s/100   load  whole    cpu  peak MB  input MB   Dice")
    for count in args.slices:
        print(measure(count, args.threads), flush=True)


if __name__ == "__main__":
    main()
