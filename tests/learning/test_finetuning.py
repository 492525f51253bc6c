"""The process that trains: it gives way, it ends with whoever started it, and it goes on where it was cut off."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

import imos
from imos.learning.finetuning import FineTuningError, Recipe, Step, fine_tune, go_on, read_step, stand_still
from imos.learning.stacks import stacks_of
from imos.learning.volumes import LabelledVolume
from imos.network.weights import read_weights
from imos.training.packing import write_pack
from imos.training.progress import FILE

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
    stood: list[tuple[set[str], bool]] = []

    def tell(step: Step) -> None:
        told.append(step)
        if len(told) == 2:
            busy.set()
            threading.Thread(target=watch).start()

    def watch() -> None:
        try:
            deadline = time.monotonic() + 30  # on a machine with other work it is not there at once
            while statuses() != {psutil.STATUS_STOPPED} and time.monotonic() < deadline:
                time.sleep(0.1)
            before = read_step(tmp_path / "run")
            time.sleep(3)
            stood.append((statuses(), read_step(tmp_path / "run") == before))
        finally:
            busy.clear()

    def statuses() -> set[str]:
        found = set()
        for one in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):  # children of other tests, which may be gone by now
                if "finetune" in one.cmdline():
                    found.add(one.status())
        return found

    fine_tune(pack, tmp_path / "a.safetensors", tmp_path / "run", recipe(spoilt, 20), tell, busy.is_set)

    assert stood == [({psutil.STATUS_STOPPED}, True)]
    assert (tmp_path / "a.safetensors").is_file()
    assert told[-1].done > told[1].done


_FORKS = """
import os, time
for _ in range(400):
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    time.sleep(0.001)
time.sleep(60)
"""


def test_who_is_started_meanwhile_stands_still_as_well() -> None:
    with subprocess.Popen([sys.executable, "-c", _FORKS], process_group=0) as process:
        family = psutil.Process(process.pid)
        try:
            while not family.children():
                time.sleep(0.001)
            for _ in range(8):
                stand_still(process.pid)
                before = len(family.children())
                time.sleep(0.05)
                assert len(family.children()) == before
                assert {one.status() for one in (family, *family.children())} == {psutil.STATUS_STOPPED}
                go_on(process.pid)
                time.sleep(0.01)
            assert psutil.STATUS_STOPPED not in {one.status() for one in (family, *family.children())}
        finally:
            os.killpg(process.pid, signal.SIGKILL)


_SUPERVISE = """
import sys
from pathlib import Path
from imos.learning.finetuning import Recipe, fine_tune
weights, pack, folder, busy = map(Path, sys.argv[1:5])
recipe = Recipe(weights, steps=int(sys.argv[5]), batch=2, synthetic=0.0, device="cpu", gpus=int(sys.argv[6]))
fine_tune(pack, folder / "a.safetensors", folder / "run", recipe, is_busy=busy.exists)
"""


def supervised(
    weights: Path, pack: Path, folder: Path, busy: Path, *, steps: int, gpus: int
) -> subprocess.Popen[bytes]:
    """Somebody who fine-tunes in `folder` and stands still while `busy` exists."""
    words = [sys.executable, "-c", _SUPERVISE, *map(str, (weights, pack, folder, busy, steps, gpus))]
    return subprocess.Popen(words, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("stands_still", [False, True])
def test_nothing_of_it_outlives_who_started_it(pack: Path, spoilt: Path, tmp_path: Path, stands_still: bool) -> None:
    busy = tmp_path / "busy"
    deadline = time.monotonic() + 90
    supervisor = supervised(spoilt, pack, tmp_path, busy, steps=30, gpus=1)
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


def test_two_processes_end_with_who_started_them_and_the_next_ones_go_on(
    pack: Path, spoilt: Path, tmp_path: Path
) -> None:
    """On two GPUs each would have its own; on the CPU they share gradients in the same way (gloo)."""
    run, output = tmp_path / "run", tmp_path / "a.safetensors"
    deadline = time.monotonic() + 180
    supervisor = supervised(spoilt, pack, tmp_path, tmp_path / "busy", steps=6, gpus=2)
    while not (run / "checkpoint.pt").is_file():
        assert time.monotonic() < deadline
        assert supervisor.poll() is None
        time.sleep(0.05)
    family = psutil.Process(supervisor.pid).children(recursive=True)
    assert sum("LOCAL_RANK" in one.environ() for one in family) == 2
    os.kill(supervisor.pid, signal.SIGKILL)
    supervisor.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []
    assert not output.is_file()

    (run / FILE).unlink(missing_ok=True)
    told: list[Step] = []
    fine_tune(pack, output, run, replace(recipe(spoilt, 6), synthetic=0.0, gpus=2), told.append)
    assert told[0].done > 2, "the checkpoint was written after two steps of six"
    assert told[-1].done == 6
    assert read_weights(output).info.extra["sequences"] == str(6 * 2 * 2), "steps, slices a step, processes"
    imos.load(spoilt, adapter=output, device="cpu")


def test_failing_is_said(pack: Path, tmp_path: Path) -> None:
    with pytest.raises(FineTuningError, match="ended with code 2"):
        fine_tune(pack, tmp_path / "a.safetensors", tmp_path / "run", Recipe(tmp_path / "no.safetensors"))
