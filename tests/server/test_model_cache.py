"""The loaded models: who asked keeps what he got, who asks later gets what is in use then."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from imos.errors import UserError
from imos.imaging import Plane
from imos.learning.rounds import Stage, Standing
from imos.network.small import SmallNetwork
from imos.network.weights import WeightsInfo, read_weights, save_weights, sha256
from imos.propagation.model import BUNDLED, NETWORK_PREFIX
from imos.propagation.session import Progress
from imos.registry.records import BASE, Draft
from imos.registry.store import Registry
from imos.server.activity import is_busy
from imos.server.conf import AppConf
from imos.server.images import ImageCache
from imos.server.models import ModelCache
from imos.server.processes import Process
from imos.server.train_progress import ProgressFile, Teller
from imos.server.workspaces import WorkspaceStore


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Two versions, none in use."""
    shipped = read_weights(BUNDLED).tensors
    network = SmallNetwork(adapters=True).state_dict()
    tensors = {NETWORK_PREFIX + name: shipped.get(NETWORK_PREFIX + name, one) for name, one in network.items()}
    registry = Registry(tmp_path / "models")
    for number in (1, 2):
        tensors["network.out.bias"] = shipped["network.out.bias"] + number
        path = tmp_path / f"adapter{number}.safetensors"
        save_weights(path, tensors, WeightsInfo("small", extra={"kind": "adapter", "base_sha256": sha256(BUNDLED)}))
        registry.publish(path, Draft(BASE))
    return registry


def bias(model: object) -> torch.Tensor:
    return model.network.out.bias


def test_a_move_counts_for_those_who_ask_afterwards(registry: Registry) -> None:
    cache = ModelCache(AppConf(device="cpu"), registry)
    before = cache.current()
    registry.activate("v0001", "better")
    after = cache.current()

    assert (before.version, after.version) == (BASE, "v0001")
    assert torch.equal(bias(after.model), bias(before.model) + 1)  # and `before` is as it was
    assert cache.get() is after.model


def test_going_back_gives_the_very_same_model_at_once(registry: Registry) -> None:
    cache = ModelCache(AppConf(device="cpu"), registry)
    base = cache.get()
    registry.activate("v0001", "")
    cache.get()
    began = time.monotonic()
    registry.rollback("")
    assert cache.get() is base
    assert time.monotonic() - began < 2


def test_going_back_takes_no_two_seconds_where_nothing_is_in_memory(registry: Registry) -> None:
    ModelCache(AppConf(device="cpu"), registry).get()
    for version in ("v0001", "v0002", "v0001", "v0002"):
        registry.activate(version, "better")
        ModelCache(AppConf(device="cpu"), registry).get()  # it was in use: what was compiled for it is on disk
    fresh = Registry(registry.folder)
    for wanted in ("v0001", "v0002", "v0001", BASE):
        cache = ModelCache(AppConf(device="cpu"), fresh)
        began = time.process_time()  # what others do on this machine meanwhile does not count
        fresh.rollback("")
        assert cache.current().version == wanted
        assert time.process_time() - began < 2


def test_a_run_that_has_begun_ends_on_its_version(registry: Registry, scan: Any, tmp_path: Path) -> None:
    cache = ModelCache(AppConf(device="cpu"), registry)
    workspaces = WorkspaceStore(tmp_path / "workspaces", ImageCache(), cache)

    def run(client: str, on_progress: Callable[[Progress], object] | None = None) -> np.ndarray:
        with workspaces.use("scan", client, scan.image) as workspace:
            session = workspace.session()
            session.paint_volume(scan.painted(8), plane=Plane.AXIAL)
            return session.propagate(on_progress=on_progress).labels

    def activate(progress: Progress) -> None:
        if progress.done == 1:
            registry.activate("v0002", "in the middle of a run")
            switched.append(cache.current().version)  # loaded, and used by those who ask now

    before = run("ann")
    switched: list[str] = []
    during = run("ben", activate)
    after = run("cid")
    assert switched == ["v0002"]
    np.testing.assert_array_equal(during, before)
    assert (after != before).any()


def test_version_for_other_weights_is_given_up(registry: Registry, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    content = read_weights(BUNDLED)
    save_weights(other, content.tensors, WeightsInfo("small", "other"))
    registry.activate("v0001", "")
    cache = ModelCache(AppConf(weights=str(other), device="cpu"), registry)
    assert cache.current().version == BASE
    assert registry.champion == BASE
    assert "was made for other weights" in registry.moves[-1].reason


@pytest.mark.parametrize(
    ("conf", "sentence"),
    [
        (AppConf(weights="mistyped.safetensors", device="cpu"), "There is no weights file mistyped.safetensors"),
        (AppConf(device="abacus"), "There is no device 'abacus'"),
        (AppConf(adapter="mistyped.safetensors", device="cpu"), "There is no weights file mistyped.safetensors"),
    ],
)
def test_server_that_was_started_wrongly_moves_nothing(registry: Registry, conf: AppConf, sentence: str) -> None:
    for version in ("v0001", "v0002"):
        registry.activate(version, "better")
    moves = registry.moves
    cache = ModelCache(conf, registry)
    (registry.folder / "versions" / "v0002" / "adapter.safetensors").write_bytes(b"damaged, too")
    for _ in range(2):
        with pytest.raises(UserError, match=re.escape(sentence)):
            cache.current()
    assert registry.champion == "v0002"
    assert registry.moves == moves


def test_version_that_the_disk_does_not_give_is_left_for_the_one_before(registry: Registry) -> None:
    for version in ("v0001", "v0002"):
        registry.activate(version, "better")
    file = registry.folder / "versions" / "v0002" / "adapter.safetensors"
    file.unlink()
    file.symlink_to("/proc/self/mem")  # reading it is an error of input and output, as on a broken disk
    assert file.is_file()
    with pytest.raises(OSError, match="error"):
        file.read_bytes()
    cache = ModelCache(AppConf(device="cpu"), registry)
    assert cache.current().version == "v0001"
    assert registry.moves[-1].reason.startswith("v0002 cannot be used: The adapter file of v0002 is damaged")


def test_training_hears_of_work_as_long_as_it_goes_on(registry: Registry) -> None:
    cache = ModelCache(AppConf(), registry)
    assert not is_busy(registry.folder)
    with cache.working():
        with cache.working():
            assert is_busy(registry.folder)
        assert is_busy(registry.folder)
    assert not is_busy(registry.folder)


def test_server_that_was_killed_at_work_does_not_stop_training_for_ever(registry: Registry) -> None:
    (registry.folder / "busy").write_text(f"{2**22 + 7} 1.7e9")  # no such process: beyond the largest id
    assert not is_busy(registry.folder)


def test_server_that_got_the_number_of_a_killed_one_is_not_taken_for_it(registry: Registry) -> None:
    # As in a container: the same number, begun later.
    with ModelCache(AppConf(), registry).working():
        assert is_busy(registry.folder)
        content = (registry.folder / "busy").read_text()
    before = Process(os.getpid(), Process.this().began - 60)
    (registry.folder / "busy").write_text(content.replace(str(Process.this().began), str(before.began)))
    assert not is_busy(registry.folder)
    (registry.folder / "busy").write_text(content)
    assert is_busy(registry.folder)


def test_round_of_a_process_whose_number_another_one_got_has_ended(registry: Registry) -> None:
    file = ProgressFile(registry.folder)
    Teller(file, None)(Standing(Stage.TRAINING, 3, 9, 0.5))
    assert file.stats()["stage"] == "training"
    assert "total_time" not in file.stats()
    said = file.read()
    assert said is not None
    file.write(replace(said, began=said.began - 60))
    assert file.stats()["stage"] == "stopped"
    assert file.stats()["total_time"]
    assert not {"pid", "began"} & file.stats().keys()  # nobody's business
