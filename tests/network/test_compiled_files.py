"""Compiled networks on disk: a start is quicker with them, and never goes wrong because of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import imos
from imos.network import compiled, compiled_files
from imos.network.compiled import CompiledSteps
from imos.network.steps import TorchSteps


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IMOS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def steps() -> TorchSteps:
    model = imos.load(device="cpu")
    assert model.encoder is not None
    return TorchSteps(model.encoder, None)


IMAGE = torch.linspace(0, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)


def test_what_was_kept_is_not_compiled_again_and_says_the_same(
    folder: Path, steps: TorchSteps, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = CompiledSteps(steps, 32, at_once=1).finer(IMAGE).f2
    (blob,) = folder.iterdir()
    assert blob.suffix == ".blob"

    def fail(*_: object) -> None:
        pytest.fail("compiled again")

    monkeypatch.setattr(compiled, "_converted", fail)
    assert torch.equal(CompiledSteps(steps, 32, at_once=1).finer(IMAGE).f2, first)


def cut(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


def one_bit_flipped(whole: bytes) -> bytes:
    return whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]


@pytest.mark.parametrize("damaged", [cut, one_bit_flipped, lambda _: b"", lambda _: b"no network"])
def test_a_damaged_file_is_made_again(folder: Path, steps: TorchSteps, damaged: Callable[[bytes], bytes]) -> None:
    first = CompiledSteps(steps, 32, at_once=1).finer(IMAGE).f2
    (blob,) = folder.iterdir()
    blob.write_bytes(damaged(blob.read_bytes()))
    assert compiled_files.read(blob.stem) is None
    assert torch.equal(CompiledSteps(steps, 32, at_once=1).finer(IMAGE).f2, first)
    assert compiled_files.read(blob.stem) is not None


def test_other_weights_and_sizes_have_other_names(folder: Path, steps: TorchSteps) -> None:
    weights = steps.state_dict()
    first = next(iter(weights))
    changed = weights | {first: weights[first] + 1e-3}
    names = {
        compiled_files.name_of(parts, some)
        for parts in (["finer", "32"], ["finer", "64"], ["encoder", "32"])
        for some in (weights, changed)
    }
    assert len(names) == 6


def test_other_code_has_another_name(steps: TorchSteps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = compiled_files.name_of(["finer"], steps.state_dict())
    for file in Path(compiled_files.__file__).parent.glob("*.py"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(compiled_files, "__file__", str(tmp_path / "compiled_files.py"))
    assert compiled_files.name_of(["finer"], steps.state_dict()) == before
    with (tmp_path / "small.py").open("a") as file:
        file.write("\n")
    assert compiled_files.name_of(["finer"], steps.state_dict()) != before


def test_a_second_thread_gets_a_network_of_its_own_that_says_the_same(folder: Path, steps: TorchSteps) -> None:
    for _ in range(2):  # compiled, then read from the folder
        compiled = CompiledSteps(steps, 32, at_once=2)
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(compiled.finer, [IMAGE] * 8))
        assert all(torch.equal(one.f2, found[0].f2) for one in found)


def test_the_oldest_go(folder: Path) -> None:
    for number in range(compiled_files.MOST_FILES + 3):
        compiled_files.write(f"{number:03}", b"x")
        os.utime(folder / f"{number:03}.blob", (number, number))
    kept = sorted(path.stem for path in folder.iterdir())
    assert kept == [f"{number:03}" for number in range(3, compiled_files.MOST_FILES + 3)]


def test_without_a_place_nothing_is_kept(tmp_path: Path, steps: TorchSteps, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for place in ("", str(tmp_path / "file" / "below")):
        monkeypatch.setenv("IMOS_CACHE", place)
        assert CompiledSteps(steps, 32, at_once=1).finer(IMAGE).f2.shape == (1, 16, 16, 16)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
