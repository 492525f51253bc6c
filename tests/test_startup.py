"""`--help` and `import imos` must not wait for torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from time import perf_counter

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "numpy", "nibabel", "cv2", "SimpleITK", "pydicom", "monai", "scipy", "PIL")


def imported_by(*words: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize(
    "words",
    [
        ("main.py", "--help"),
        ("main.py", "propagate", "--help"),
        ("main.py", "serve", "--help"),
        ("-c", "import imos, imos.cli, imos.imaging"),
    ],
    ids=" ".join,
)
def test_no_heavy_import(words: tuple[str, ...]) -> None:
    assert not imported_by(*words) & set(HEAVY)


def test_help_answers_within_half_a_second() -> None:
    seconds = []
    for _ in range(3):
        started = perf_counter()
        subprocess.run([sys.executable, "main.py", "--help"], cwd=ROOT, capture_output=True, check=True)
        seconds.append(perf_counter() - started)
    assert min(seconds) < 0.5
