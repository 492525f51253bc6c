"""The loaded models: who asked keeps what he got, who asks later gets what is in use then."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from imos.network.small import SmallNetwork
from imos.network.weights import WeightsInfo, read_weights, save_weights, sha256
from imos.propagation.model import BUNDLED, NETWORK_PREFIX
from imos.registry.records import BASE, Draft
from imos.registry.store import Registry
from imos.server.activity import is_busy
from imos.server.conf import AppConf
from imos.server.models import ModelCache


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


def test_version_for_other_weights_is_given_up(registry: Registry, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    content = read_weights(BUNDLED)
    save_weights(other, content.tensors, WeightsInfo("small", "other"))
    registry.activate("v0001", "")
    cache = ModelCache(AppConf(weights=str(other), device="cpu"), registry)
    assert cache.current().version == BASE
    assert registry.champion == BASE
    assert "was made for other weights" in registry.moves[-1].reason


def test_training_hears_of_work_as_long_as_it_goes_on(registry: Registry) -> None:
    cache = ModelCache(AppConf(), registry)
    assert not is_busy(registry.folder)
    with cache.working():
        with cache.working():
            assert is_busy(registry.folder)
        assert is_busy(registry.folder)
    assert not is_busy(registry.folder)


def test_server_that_was_killed_at_work_does_not_stop_training_for_ever(registry: Registry) -> None:
    (registry.folder / "busy").write_text(str(2**22 + 7))  # no such process: beyond the largest id
    assert not is_busy(registry.folder)
