"""`python main.py train --configuration xmem`: the paper's network in miniature runs, killed and shared."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor

import imos
from imos import cli
from imos.errors import UserError
from imos.network.config import NetworkConfig
from imos.network.weights import MASK_ENTRY, WeightsInfo, read_weights, save_weights
from imos.network.xmem import XMem
from imos.training.clips import Clip
from imos.training.curriculum import ClipPhase, Curriculum
from imos.training.train_xmem import (
    SMOKE_STEPS,
    ClipRun,
    ClipSettings,
    ClipStart,
    deep_updates,
    judge_clips,
    settle_norms,
    starting_network,
)
from imos.training.unroll_xmem import ClipBatch, clip_loss, draw_references, unroll_clips

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    """A checkpoint takes hundreds of megabytes."""
    yield
    shutil.rmtree(tmp_path)


TINY = NetworkConfig(key_dim=8, value_dim=16, hidden_dim=4)
PHASES = (
    ClipPhase("static", 1, batch=2, size=64, frames=3, references=2, objects=1, still=True, drop=None),
    ClipPhase("long", 1, batch=2, size=64, frames=3),
)
STEPS, SAVE_EVERY = 4, 1


def clip(number: int) -> Clip:
    """Two bright squares on noise that move."""
    random = np.random.default_rng(number)
    labels = np.zeros((3, 64, 64), np.uint8)
    for t in range(3):
        labels[t, 8 + 4 * t : 32 + 4 * t, 4:28] = 1
        labels[t, 20:44, 34 - 4 * t : 60 - 4 * t] = 2
    pictures = (70 * labels[..., None] + random.integers(0, 60, (3, 64, 64, 3))).astype(np.uint8)
    return Clip(number, pictures, labels, 2)


@pytest.fixture(scope="module")
def batch() -> ClipBatch:
    return ClipBatch.of([clip(0), clip(1)], CPU)


def tiny(*, adapters: bool = False, seed: int = 0) -> XMem:
    torch.manual_seed(seed)
    return XMem(replace(TINY, adapters=adapters))


def run_of(folder: Path, start: ClipStart, rate: float = 1e-5, at_once: int | None = None) -> ClipRun:
    curriculum = Curriculum(PHASES[1:], 20)
    return ClipRun(folder, start, ClipSettings(curriculum, rate, at_once=at_once), CPU)


def copied(network: XMem) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def loss_of(network: XMem, batch: ClipBatch) -> float:
    """Of the first step of `run_of`."""
    settings = ClipSettings(Curriculum(PHASES[1:], 20))
    references = draw_references(batch.numbers, batch.frames, 3, settings.seed)
    with torch.no_grad():
        steps = unroll_clips(network, batch, references, deep_updates(settings, 0, batch.frames))
        return float(clip_loss(steps, batch, PHASES[1].objects, 0, settings.curriculum.warm_up)[0])


class TestStep:
    def test_lowers_the_loss_on_its_batch(self, tmp_path: Path, batch: ClipBatch) -> None:
        network = tiny()
        settle_norms(network, batch)
        run = run_of(tmp_path, ClipStart(network), rate=2e-7)
        before = loss_of(network, batch)
        assert run.learn(batch)["loss"] == pytest.approx(before, abs=1e-3)
        assert loss_of(network, batch) < before - 0.01

    def test_batch_norms_keep_their_statistics(self, tmp_path: Path, batch: ClipBatch) -> None:
        run = run_of(tmp_path, ClipStart(tiny()))
        before = copied(run.network)
        run.learn(batch)
        for name, tensor in run.network.state_dict().items():
            keeps = "running_" in name or name.endswith("num_batches_tracked")
            assert torch.equal(tensor, before[name]) == keeps, name

    def test_frozen_encoders_stay_bit_for_bit_and_the_rest_learns(self, tmp_path: Path, batch: ClipBatch) -> None:
        run = run_of(tmp_path, ClipStart(tiny(adapters=True), freezes_encoders=True))
        before = copied(run.network)
        run.learn(batch)
        trained = {name for name, parameter in run.network.named_parameters() if parameter.requires_grad}
        for name, tensor in run.network.state_dict().items():
            is_frozen = name.startswith(("key_encoder.", "value_encoder.")) and ".adapter." not in name
            assert is_frozen == (name not in trained) or "running_" in name or "num_batches" in name, name
            assert torch.equal(tensor, before[name]) == (name not in trained), name

    def test_in_pieces_gives_the_same_gradients(self, tmp_path: Path, batch: ClipBatch) -> None:
        gradients = []
        for at_once in (None, 1):
            run = run_of(tmp_path / str(at_once), ClipStart(tiny()), at_once=at_once)
            run.learn(batch)
            gradients.append([parameter.grad for parameter in run.network.parameters()])
        for whole, pieces in zip(*gradients, strict=True):
            assert whole is not None
            torch.testing.assert_close(whole, pieces, atol=1e-3 * float(whole.abs().max()) + 1e-6, rtol=0)

    def test_rate_drops_and_a_phase_begins_with_a_fresh_optimiser(self, tmp_path: Path, batch: ClipBatch) -> None:
        phases = (PHASES[1], replace(PHASES[1], name="short"))
        run = ClipRun(tmp_path, ClipStart(tiny()), ClipSettings(Curriculum(phases, 4), 1e-4), CPU)
        rates, optimizers = [], []
        for _ in range(4):
            run.learn(batch)
            rates.append(run.optimizer.param_groups[0]["lr"])
            optimizers.append(run.optimizer)
        assert rates == pytest.approx([1e-4, 1e-4, 1e-4, 1e-4])  # 80 % of two steps are two
        assert optimizers[0] is optimizers[1]
        assert optimizers[1] is not optimizers[2]
        long = ClipSettings(Curriculum(PHASES[1:], 10), 1e-4)
        factors = [long.curriculum.at(step).rate_factor for step in range(10)]
        assert factors == [1] * 8 + [0.1] * 2


def test_a_fifth_of_the_slices_are_deep_updates() -> None:
    settings = ClipSettings(Curriculum(PHASES, 4))
    drawn = [value for step in range(400) for value in deep_updates(settings, step, 8)]
    assert np.mean(drawn) == pytest.approx(0.2, abs=0.03)
    assert deep_updates(settings, 3, 8) == deep_updates(settings, 3, 8)


def test_held_out_clips_are_judged(batch: ClipBatch) -> None:
    measures = judge_clips(tiny(), [batch], references=3)
    assert list(measures) == ["J1", "J2"]
    assert all(0 <= value <= 1 for value in measures.values())


class TestStart:
    def test_a_single_object_network_gets_an_orthogonal_channel(self, tmp_path: Path) -> None:
        tensors = copied(tiny())
        tensors[MASK_ENTRY] = tensors[MASK_ENTRY][:, :4].contiguous()
        path = tmp_path / "single.safetensors"
        save_weights(path, tensors, WeightsInfo("xmem"))
        network = starting_network(read_weights(path), adapters=True)
        assert network.config.adapters
        first = network.value_encoder.conv1.weight.detach()
        assert torch.equal(first[:, :4], tensors[MASK_ENTRY])
        columns = first[:, 4].flatten(1)
        torch.testing.assert_close(columns.T @ columns, torch.eye(49), atol=1e-5, rtol=0)

    def test_a_new_networks_features_keep_their_size_from_block_to_block(self, batch: ClipBatch) -> None:
        network = tiny(adapters=True)
        before = copied(network)
        settle_norms(network, batch)
        with torch.no_grad():
            features = network.encode_key(batch.pictures[:, 0]).features
        assert all(0.5 < float(level.std()) < 3 for level in features)
        for name, tensor in network.state_dict().items():
            is_statistic = "running_" in name or name.endswith("num_batches_tracked")
            assert torch.equal(tensor, before[name]) == (not is_statistic or ".adapter." in name), name
        assert not any(module.training for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d))

    def test_a_folder_with_another_run_is_refused(self, tmp_path: Path) -> None:
        run_of(tmp_path, ClipStart(tiny())).save()
        with pytest.raises(UserError, match="holds a run of another network or of another number of steps"):
            run_of(tmp_path, ClipStart(tiny(adapters=True)))
        with pytest.raises(UserError, match="another number of steps"):
            ClipRun(tmp_path, ClipStart(tiny()), ClipSettings(Curriculum(PHASES, 5)), CPU)


@pytest.fixture(scope="module")
def init(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network as small as it can be, to begin with."""
    path = tmp_path_factory.mktemp("init") / "tiny.safetensors"
    save_weights(path, tiny(seed=3).state_dict(), WeightsInfo("xmem"))
    return path


def command(collection: Path, run: Path, init: Path, *more: str) -> list[str]:
    return [
        *("train", str(collection), "--folder", str(run), "--configuration", "xmem", "--init", str(init)),
        *("--phases", "static:1:64:3:0,long:1:64:3:2", "--batch", "2", "--steps", str(STEPS), "--held-out", "1"),
        *("--save-every", str(SAVE_EVERY), "--workers", "1", "--device", "cpu", *more),
    ]


def state(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoint.pt", weights_only=True)


def started(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=root, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def unbroken(collection: Path, root: Path, init: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run's folder."""
    run = tmp_path_factory.mktemp("unbroken")
    done = started(root, "main.py", *command(collection, run, init))
    assert done.returncode == 0, done.stderr
    yield run
    shutil.rmtree(run)


@pytest.mark.slow
class TestRun:
    def test_leaves_weights_that_propagate_and_tensorboard(self, unbroken: Path, init: Path) -> None:
        assert state(unbroken)["step"] == STEPS
        model = imos.load(unbroken / "xmem.safetensors", device="cpu")
        assert model.info.extra["clips"] == str(2 * STEPS)
        assert model.xmem is not None
        before, last = read_weights(init).tensors, state(unbroken)["network"]
        for name, tensor in model.xmem.state_dict().items():
            assert torch.equal(tensor, last[name]), name
        assert not torch.equal(model.xmem.decoder.pred.weight, before["decoder.pred.weight"])
        assert list(unbroken.glob("events.out.tfevents.*"))
        assert not list(unbroken.glob("*.part"))

    def test_killed_it_goes_on_and_ends_with_the_same_weights(
        self, unbroken: Path, collection: Path, root: Path, init: Path, tmp_path: Path
    ) -> None:
        words = [sys.executable, "main.py", *command(collection, tmp_path, init)]
        with (tmp_path / "said").open("w") as said:
            killed = subprocess.Popen(words, cwd=root, stdout=said, stderr=said)
        while not (tmp_path / "checkpoint.pt").is_file() and killed.poll() is None:
            sleep(0.02)
        children = psutil.Process(killed.pid).children(recursive=True)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert SAVE_EVERY <= state(tmp_path)["step"] < STEPS, (tmp_path / "said").read_text()
        _, alive = psutil.wait_procs(children, timeout=5)
        assert not alive
        done = started(root, *words[1:])
        assert done.returncode == 0, done.stderr
        expected, found = state(unbroken), state(tmp_path)
        assert found["step"] == STEPS
        for name, tensor in expected["network"].items():
            assert torch.equal(found["network"][name], tensor), name

    def test_two_processes_learn_what_one_learns(
        self, unbroken: Path, collection: Path, root: Path, init: Path, tmp_path: Path
    ) -> None:
        torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
        done = started(root, *torchrun, "main.py", *command(collection, tmp_path, init))
        assert done.returncode == 0, done.stderr
        alone, together = state(unbroken)["network"], state(tmp_path)["network"]
        assert state(tmp_path)["step"] == STEPS
        begun = read_weights(init).tensors
        moved = far = 0.0
        for name, tensor in alone.items():
            if tensor.is_floating_point():
                moved += float((tensor - begun[name]).abs().sum())
                far += float((together[name] - tensor).abs().sum())
        # Adam's first steps are as long for a gradient of rounding errors as for any other
        assert far < 0.1 * moved
        assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1  # one process speaks for both

    def test_a_batch_that_processes_cannot_share(
        self, collection: Path, root: Path, init: Path, tmp_path: Path
    ) -> None:
        torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
        done = started(root, *torchrun, "main.py", *command(collection, tmp_path, init, "--batch", "3"))
        assert done.returncode != 0
        assert "a batch of 3 clips cannot be shared by 2 processes" in done.stderr

    def test_smoke_goes_through_all_phases_with_the_whole_network(
        self, collection: Path, root: Path, tmp_path: Path
    ) -> None:
        words = ("main.py", "train", str(collection), "--folder", str(tmp_path), "--configuration", "xmem")
        done = started(root, *words, "--smoke", "--adapters", "--device", "cpu")
        assert done.returncode == 0, done.stderr
        assert f"step {SMOKE_STEPS}: mean loss" in done.stderr
        network = imos.load(tmp_path / "xmem.safetensors", device="cpu").xmem
        assert network is not None
        assert sum(parameter.numel() for parameter in network.parameters()) == 65_090_827
        assert os.path.getsize(tmp_path / "xmem.safetensors") > 4 * 65_090_827


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--size", "100"), "--size 100: it must be a multiple of 16"),
        (("--frames", "1"), "--frames 1: a clip needs at least 2 slices"),
        (("--steps", "1"), "1 steps are too few"),
        (("--configuration", "small", "--adapters"), "--adapters is for the configuration 'xmem'"),
        (("--init", "missing.pth"), "There is no weights file missing.pth"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_refused_in_one_line(
    collection: Path,
    tmp_path: Path,
    init: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    expected: str,
) -> None:
    assert cli.main([*command(collection, tmp_path, init), *words]) == 2
    said = capsys.readouterr()
    assert expected in said.err
    assert said.err.count("\n") == 1
