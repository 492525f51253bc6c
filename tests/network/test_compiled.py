"""The compiled networks say what PyTorch's say."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

import imos
from imos.network.compiled import CompiledSteps
from imos.network.small import CUES, HIDDEN, VALUE
from imos.network.steps import TorchSteps
from imos.propagation.model import Model

GRID = 160


@pytest.fixture(scope="module")
def model() -> Model:
    return imos.load(device="cpu")


@pytest.fixture(scope="module")
def plain(model: Model) -> TorchSteps:
    assert model.encoder is not None
    return TorchSteps(model.encoder, model.network)


@pytest.fixture(scope="module")
def compiled(plain: TorchSteps) -> CompiledSteps:
    return CompiledSteps(plain, GRID, at_once=2)


def drawn(seed: int, channels: int, side: int) -> Tensor:
    return torch.rand(1, channels, side, side, generator=torch.Generator().manual_seed(seed))


def picture(seed: int) -> Tensor:
    """Something with structures: noise, smoothed."""
    return torch.nn.functional.avg_pool2d(drawn(seed, 3, GRID), 9, 1, 4)


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    largest = float(expected.abs().max())
    assert float((found - expected).abs().max()) <= 1e-4 * max(largest, 1.0)


def test_encoding_is_that_of_pytorch(plain: TorchSteps, compiled: CompiledSteps) -> None:
    found, expected = compiled.encode(picture(1)), plain.encode(picture(1))
    everything = zip(
        (*found.finer, *found.maps, *found.key), (*expected.finer, *expected.maps, *expected.key), strict=True
    )
    for level, expected_level in everything:
        assert_close(level, expected_level)
    for level, expected_level in zip(compiled.finer(picture(1)), expected.finer, strict=True):
        assert_close(level, expected_level)


def test_decoding_and_values_are_those_of_pytorch(plain: TorchSteps, compiled: CompiledSteps) -> None:
    maps = plain.encode(picture(2)).maps
    side = GRID // 16
    readout, hidden, cues = drawn(3, VALUE, side), drawn(4, HIDDEN, side), 2 * drawn(5, CUES, GRID) - 1
    for found, expected in zip(
        compiled.decode(maps, readout, hidden, cues), plain.decode(maps, readout, hidden, cues), strict=True
    ):
        assert_close(found, expected)
    for found, expected in zip(
        compiled.value(cues[:, :1], drawn(6, 1, GRID), maps.f16, hidden),
        plain.value(cues[:, :1], drawn(6, 1, GRID), maps.f16, hidden),
        strict=True,
    ):
        assert_close(found, expected)


def test_results_of_one_call_are_not_overwritten_by_the_next(compiled: CompiledSteps) -> None:
    first = compiled.finer(picture(7)).f2
    before = first.clone()
    compiled.finer(picture(8))
    assert torch.equal(first, before)


def test_threads_do_not_disturb_each_other(compiled: CompiledSteps) -> None:
    pictures = [picture(seed) for seed in range(12)]
    one_by_one = [compiled.encode(image).maps.f16 for image in pictures]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda image: compiled.encode(image).maps.f16, pictures))
    assert all(torch.equal(one, other) for one, other in zip(one_by_one, together, strict=True))


def test_adapters_are_compiled_too(model: Model) -> None:
    from imos.network.small import SmallNetwork

    assert model.encoder is not None
    torch.manual_seed(3)
    steps = TorchSteps(model.encoder, SmallNetwork(adapters=True).eval())
    compiled = CompiledSteps(steps, GRID, at_once=1)
    assert_close(compiled.encode(picture(9)).maps.f16, steps.encode(picture(9)).maps.f16)


def test_another_decoder_for_a_while(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What training tries is not kept on disk: it would drive out what people use."""
    from imos.network.small import SmallNetwork

    monkeypatch.setenv("IMOS_CACHE", str(tmp_path))
    assert model.encoder is not None
    torch.manual_seed(4)
    one, other = SmallNetwork().eval(), SmallNetwork().eval()
    other.load_state_dict(one.state_dict())
    torch.nn.init.normal_(other.out.weight, 0, 0.1)
    first = CompiledSteps(TorchSteps(model.encoder, one), GRID, at_once=1)
    first.prepare(corrects=True)
    kept = sorted(tmp_path.rglob("*"))
    second = first.decoding_with(other)
    encoded = second.encode(picture(11))
    asked = encoded.maps, torch.randn(1, 64, 10, 10), torch.zeros(1, 32, 10, 10), torch.randn(1, 7, GRID, GRID)
    assert_close(second.decode(*asked).residual, TorchSteps(model.encoder, other).decode(*asked).residual)
    assert first.decode(*asked).residual.abs().max() < second.decode(*asked).residual.abs().max()
    assert sorted(tmp_path.rglob("*")) == kept


def test_without_a_memory_network_the_finer_maps_are_all_there_is(model: Model) -> None:
    assert model.encoder is not None
    steps = TorchSteps(model.encoder, None)
    assert_close(CompiledSteps(steps, GRID, at_once=1).finer(picture(10)).f2, steps.finer(picture(10)).f2)
    with pytest.raises(ValueError, match="no memory network"):
        steps.encode(picture(10))


def test_a_model_on_the_cpu_is_compiled_and_says_what_pytorch_says(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from imos.propagation import model as module

    assert isinstance(model.steps, CompiledSteps)
    monkeypatch.setattr(module, "can_compile", lambda: False)
    assert isinstance(replace(model).steps, TorchSteps)


def test_nothing_is_reported_over_the_network(tmp_path: Path) -> None:
    """OpenVINO imports its telemetry package, where it is installed, and tells the web of it."""
    package = tmp_path / "openvino_telemetry"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('telemetry was imported')")
    program = "import imos; model = imos.load(device='cpu'); model.prepare()"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
