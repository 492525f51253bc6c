"""`python main.py train`: a real miniature run, killed and taken up again."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psutil
import pytest
import torch

import imos
from imos import cli
from imos.network.weights import read_weights
from imos.propagation.model import BUNDLED, ENCODER_PREFIX, NETWORK_PREFIX
from imos.training.train import TrainSettings, rate_at

STEPS, SAVE_EVERY = 8, 2


def command(collection: Path, run: Path) -> list[str]:
    sizes = ["--batch", "3", "--frames", "3", "--grid", "64", "--held-out", "4", "--workers", "1", "--device", "cpu"]
    often = ["--steps", str(STEPS), "--save-every", str(SAVE_EVERY)]
    return [sys.executable, "main.py", "train", str(collection), "--run", str(run), *sizes, *often]


def state(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoint.pt", weights_only=True)


@pytest.fixture(scope="module")
def unbroken(collection: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished run's folder, and what it said."""
    run = tmp_path_factory.mktemp("unbroken")
    done = subprocess.run(command(collection, run), cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return run, done.stderr


class TestRun:
    def test_reaches_its_last_step(self, unbroken: tuple[Path, str]) -> None:
        assert state(unbroken[0])["step"] == STEPS

    def test_measures_are_finite(self, unbroken: tuple[Path, str]) -> None:
        line = next(line for line in unbroken[1].splitlines() if line.startswith(f"step {STEPS}:"))
        values = [float(value) for value in re.findall(r"(?<= )-?[\d.]+(?=  |$)", line)]
        assert len(values) == 5  # J after one and two slices, of network and floor; existence
        assert all(0 <= value <= 1 for value in values)

    def test_weights_are_finite_and_learned(self, unbroken: tuple[Path, str]) -> None:
        network = state(unbroken[0])["network"]
        assert all(torch.isfinite(tensor).all() for tensor in network.values())
        assert network["out.weight"].any()  # zero in the beginning: the floor

    def test_writes_weights_with_the_encoder_untouched(self, unbroken: tuple[Path, str]) -> None:
        written, shipped = read_weights(unbroken[0] / "small.safetensors"), read_weights(BUNDLED)
        assert written.info.configuration == "small"
        assert any(name.startswith(NETWORK_PREFIX) for name in written.tensors)
        for name, tensor in shipped.tensors.items():
            if name.startswith(ENCODER_PREFIX):
                torch.testing.assert_close(written.tensors[name], tensor.half().float(), rtol=0, atol=0)

    def test_written_weights_propagate(self, unbroken: tuple[Path, str]) -> None:
        model = imos.load(unbroken[0] / "small.safetensors", device="cpu")
        assert model.network is not None
        averaged = state(unbroken[0])["averaged"]
        for name, tensor in model.network.state_dict().items():
            torch.testing.assert_close(tensor, averaged[name].half().float(), rtol=0, atol=0)

    def test_writes_tensorboard_files(self, unbroken: tuple[Path, str]) -> None:
        assert list(unbroken[0].glob("events.out.tfevents.*"))

    def test_leaves_no_part_behind(self, unbroken: tuple[Path, str]) -> None:
        assert not list(unbroken[0].glob("*.part"))


@pytest.mark.slow
def test_killed_run_goes_on_and_ends_with_the_same_weights(
    unbroken: tuple[Path, str], collection: Path, root: Path, tmp_path: Path
) -> None:
    words = command(collection, tmp_path)
    with (tmp_path / "said").open("w") as said:
        killed = subprocess.Popen(words, cwd=root, stdout=said, stderr=said)
    while not (tmp_path / "checkpoint.pt").is_file() and killed.poll() is None:
        sleep(0.02)
    children = psutil.Process(killed.pid).children(recursive=True)
    killed.send_signal(signal.SIGKILL)
    began = monotonic()
    killed.wait()
    step = state(tmp_path)["step"]
    assert SAVE_EVERY <= step < STEPS, (tmp_path / "said").read_text()

    assert children
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive, f"workers live {monotonic() - began:.0f} s after their training was killed"

    subprocess.run(words, cwd=root, capture_output=True, check=True)
    expected, found = state(unbroken[0]), state(tmp_path)
    assert found["step"] == STEPS
    for part in ("network", "averaged"):
        for name, tensor in expected[part].items():
            assert torch.equal(found[part][name], tensor), f"{part} {name}"


def test_rate_warms_up_and_falls_to_zero() -> None:
    settings = TrainSettings(steps=100, warm_up=10, rate=1.0)
    rates = [rate_at(step, settings) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(rates[10]) == pytest.approx(1)
    assert rates[100] == pytest.approx(0)
    assert sorted(rates[10:], reverse=True) == rates[10:]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--steps", "0"), "0 is less than 1"),
        (("--grid", "100"), "100 is no multiple of 16"),
        (("--stpes", "9"), "there is no option --stpes: did you mean --steps?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_refused_in_one_line(
    collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], expected: str
) -> None:
    assert cli.main(["train", str(collection), "--run", str(tmp_path / "run"), *words]) == 2
    said = capsys.readouterr()
    assert expected in said.err
    assert said.err.count("\n") == 1


def test_folder_without_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", str(tmp_path), "--run", str(tmp_path / "run"), "--device", "cpu"]) == 2
    assert "neither volumes.tsv nor frames.tsv" in capsys.readouterr().err
