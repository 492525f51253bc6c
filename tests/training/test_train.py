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
from torch import distributed, multiprocessing

import imos
from imos import cli
from imos.network.small import SmallNetwork
from imos.network.weights import read_weights
from imos.propagation.model import BUNDLED, ENCODER_PREFIX, NETWORK_PREFIX
from imos.training.run import Run, Start, TrainSettings, rate_at
from imos.training.train import SMOKE

STEPS, SAVE_EVERY = 8, 2


def command(collection: Path, run: Path) -> list[str]:
    phases = "static:0.25:48:3:0,long:0.5:48:4:3,short:0.25:64:3:2"
    sizes = ["--batch", "3", "--phases", phases, "--held-out", "4", "--workers", "1", "--device", "cpu"]
    often = ["--steps", str(STEPS), "--save-every", str(SAVE_EVERY)]
    return [sys.executable, "main.py", "train", str(collection), "--folder", str(run), *sizes, *often]


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
        assert len(values) == 8  # mean loss; J after one and two slices and size, of network and floor; existence
        assert all(0 <= value <= 2 for value in values)

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


@pytest.mark.slow
def test_smoke_goes_through_all_phases_and_the_loss_falls(collection: Path, root: Path, tmp_path: Path) -> None:
    words = [sys.executable, "main.py", "train", str(collection), "--folder", str(tmp_path)]
    began = monotonic()
    done = subprocess.run([*words, "--smoke", "--device", "cpu"], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert monotonic() - began < 180
    losses = [float(value) for value in re.findall(r"mean loss ([\d.]+)", done.stderr)]
    assert len(losses) == SMOKE.steps // SMOKE.save_every
    long = losses[2:8]  # checkpoints of one phase: other phases have losses of their own
    assert sum(long[-2:]) < 0.95 * sum(long[:2])


@pytest.mark.slow
def test_two_processes_learn_the_same_weights_from_samples_of_their_own(
    collection: Path, root: Path, tmp_path: Path
) -> None:
    words = command(collection, tmp_path / "run")[1:]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*torchrun, *words], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert state(tmp_path / "run")["step"] == STEPS
    assert len(list((tmp_path / "run").glob("events.out.tfevents.*"))) == 1  # one process speaks for both
    info = read_weights(tmp_path / "run/small.safetensors").info
    assert info.extra["sequences"] == str(2 * 3 * STEPS)


def _average_gradients(place: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=place, world_size=2)
    torch.manual_seed(0)
    current = Run(Path(folder) / str(place), Start({}, SmallNetwork()), TrainSettings(), torch.device("cpu"))
    for parameter in current.network.parameters():
        parameter.grad = torch.full_like(parameter, float(1 + 2 * place))
    if place:
        current.network.key.weight.grad = None  # not used in this process's batch
    current.share_gradients()
    torch.save([parameter.grad for parameter in current.network.parameters()], Path(folder) / f"{place}.pt")
    torch.save(current.network.key.weight.grad, Path(folder) / f"key{place}.pt")
    distributed.destroy_process_group()


def test_gradients_are_averaged_over_processes(tmp_path: Path) -> None:
    multiprocessing.spawn(_average_gradients, (str(tmp_path),), nprocs=2)
    for place in range(2):
        key = torch.load(tmp_path / f"key{place}.pt", weights_only=True)
        assert (key == 0.5).all()
        gradients = torch.load(tmp_path / f"{place}.pt", weights_only=True)
        assert sum(bool((gradient == 2).all()) for gradient in gradients) == len(gradients) - 1


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
        (("--phases", "long:1:100:4:3"), "the grid a multiple of 16"),
        (("--phases", "long"), "'long' is no phase"),
        (("--stpes", "9"), "there is no option --stpes: did you mean --steps?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_refused_in_one_line(
    collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], expected: str
) -> None:
    assert cli.main(["train", str(collection), "--folder", str(tmp_path / "run"), *words]) == 2
    said = capsys.readouterr()
    assert expected in said.err
    assert said.err.count("\n") == 1


def test_folder_without_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", str(tmp_path), "--folder", str(tmp_path / "run"), "--device", "cpu"]) == 2
    assert "neither volumes.tsv nor frames.tsv" in capsys.readouterr().err
