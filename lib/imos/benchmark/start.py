"""How long a process takes beside the propagation itself: interpreter, imports, weights, reading and writing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np

from imos.benchmark.cases import make_case

SIDE, SLICES = 256, 25


def process_start(times: int) -> list[float]:
    """Seconds of whole `propagate` processes on a small volume, less the propagation; one warm-up before.

    Raises:
        RuntimeError: It failed.
    """
    from imos.imaging import write_label_map

    case = make_case(SIDE, SLICES, 1)
    prompt = np.zeros_like(case.labels)
    prompt[SLICES // 2] = case.labels[SLICES // 2]
    with TemporaryDirectory() as name:
        folder = Path(name)
        for file, array in (("image", case.voxels), ("prompt", prompt)):
            write_label_map(folder / f"{file}.nii.gz", np.moveaxis(array, 0, 2), case.image)
        words = ["image.nii.gz", "prompt.nii.gz", "-o", "out.nii.gz", "--report", "report.json", "--device", "cpu"]
        found = []
        for _ in range(times + 1):
            started = perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "imos", "propagate", *words], cwd=folder, capture_output=True, check=False
            )
            whole = perf_counter() - started
            if done.returncode != 0:
                raise RuntimeError(done.stderr.decode(errors="replace"))
            found.append(whole - float(json.loads((folder / "report.json").read_text("utf-8"))["seconds"]))
    return found[1:]
