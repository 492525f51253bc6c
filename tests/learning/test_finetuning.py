"""The process that trains: it gives way, it ends with whoever started it, and it goes on where it was cut off."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from imos.learning.finetuning import FineTuningError, Recipe, Step, fine_tune, read_step
from imos.learning.stacks import stacks_of
from imos.learning.volumes import LabelledVolume
from imos.training.packing import write_pack

pytestmark = pytest.mark.slow


@pytest.fixture
def pack(volume: Callable[..., LabelledVolume], tmp_path: Path) -> Path:
    path = tmp_path / "pack.npz"
    write_pack([stack for number in range(2) for stack in stacks_of(volume(number))], path, quickly=True)
    return path


def recipe(weights: Path, steps: int) -> Recipe:
    return Recipe(weights, steps=steps, batch=2, device="cpu")


def test_it_stands_still_while_somebody_waits(pack: Path, spoilt: Path, tmp_path: Path) -> None:
    busy = threading.Event()
    told: list[Step] = []
    stood: list[int] = []

    def tell(step: Step) -> None:
        told.append(step)
        if len(told) == 2:
            busy.set()
            threading.Thread(target=watch).start()

    def watch() -> None:
        time.sleep(1.5)
        before = read_step(tmp_path / "run")
        statuses = {one.status() for one in psutil.Process().children(recursive=True) if "finetune" in one.cmdline()}
        time.sleep(3)
        after = read_step(tmp_path / "run")
        stood.append(before == after and statuses == {psutil.STATUS_STOPPED})
        busy.clear()

    fine_tune(pack, tmp_path / "a.safetensors", tmp_path / "run", recipe(spoilt, 12), tell, busy.is_set)

    assert stood == [True]
    assert (tmp_path / "a.safetensors").is_file()
    assert told[-1].done > told[1].done


_SUPERVISE = """
import sys
from pathlib import Path
from imos.learning.finetuning import Recipe, fine_tune
weights, pack, folder, busy = map(Path, sys.argv[1:])
recipe = Recipe(weights, steps=30, batch=2, device="cpu")
fine_tune(pack, folder / "a.safetensors", folder / "run", recipe, is_busy=busy.exists)
"""


@pytest.mark.parametrize("stands_still", [False, True])
def test_nothing_of_it_outlives_who_started_it(pack: Path, spoilt: Path, tmp_path: Path, stands_still: bool) -> None:
    busy = tmp_path / "busy"
    words = [sys.executable, "-c", _SUPERVISE, str(spoilt), str(pack), str(tmp_path), str(busy)]
    supervisor = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while read_step(tmp_path / "run") is None:
        assert time.monotonic() < deadline
        assert supervisor.poll() is None
        time.sleep(0.2)
    family = psutil.Process(supervisor.pid).children(recursive=True)
    assert len(family) == 1, "it walks in threads, so there is this one process"
    if stands_still:
        busy.touch()
        while any(one.status() != psutil.STATUS_STOPPED for one in family):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    os.kill(supervisor.pid, signal.SIGKILL)
    supervisor.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []


def test_failing_is_said(pack: Path, tmp_path: Path) -> None:
    with pytest.raises(FineTuningError, match="ended with code 2"):
        fine_tune(pack, tmp_path / "a.safetensors", tmp_path / "run", Recipe(tmp_path / "no.safetensors"))
