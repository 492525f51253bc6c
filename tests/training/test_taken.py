"""How much of a fine-tuning is taken."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

import imos
from imos.network.small import SmallNetwork
from imos.training import taken
from imos.training.passes import mask_of, quality_of, walks
from imos.training.rollouts import Course
from imos.training.taken import choose, farthest, partly, search
from imos.training.volumes import Stack, synthetic_stack


@pytest.fixture(scope="module")
def stack() -> Stack:
    return synthetic_stack(np.random.default_rng(4), size=48, depth=10)


def residual(network: SmallNetwork) -> torch.Tensor:
    torch.manual_seed(0)
    maps = network.normalise(torch.randn(1, 24, 8, 8), torch.randn(1, 40, 4, 4), torch.randn(1, 112, 2, 2))
    with torch.no_grad():
        decoded = network.decode(maps, torch.randn(1, 64, 2, 2), torch.randn(1, 32, 2, 2), torch.randn(1, 7, 32, 32))
    return decoded.residual


def test_no_part_of_the_way_is_the_base_and_all_of_it_is_the_tuned_network() -> None:
    torch.manual_seed(1)
    base, tuned = SmallNetwork().eval(), SmallNetwork(adapters=True).eval()
    for network in (base, tuned):
        torch.nn.init.normal_(network.out.weight, 0, 0.1)
    assert not torch.allclose(residual(base), residual(tuned))
    torch.testing.assert_close(residual(partly(base, tuned, 0)), residual(base))
    torch.testing.assert_close(residual(partly(base, tuned, 1)), residual(tuned))


def test_objects_are_drawn_evenly_and_only_long_ones(stack: Stack) -> None:
    everything = walks([stack], 1000)
    assert all(walk.last - walk.first >= 3 for walk in everything)
    some = walks([stack], 4)
    assert [walk.value for walk in some] == sorted(walk.value for walk in some)
    assert {walk.value for walk in some} <= {walk.value for walk in everything}
    assert len(some) == 4


@pytest.mark.slow
def test_a_spoilt_tuning_is_not_taken(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taken, "MOST_OBJECTS", 5)
    base = imos.load(device="cpu")
    assert base.network is not None
    spoilt = copy.deepcopy(base.network)
    torch.manual_seed(3)
    torch.nn.init.normal_(spoilt.out.weight, 0, 2)
    network = choose(base, spoilt, [Course(stack)]).network
    objects = walks([stack], 5)

    def mean(network: SmallNetwork) -> float:
        acting = base.decoding_with(network)
        return float(np.mean([quality_of(acting, walk) for walk in objects]))

    before = mean(base.network)
    assert mean(spoilt) < before - 0.05
    assert mean(network) >= before


def test_more_volumes_carry_farther() -> None:
    ways = [farthest(count) for count in (1, 2, 5, 20)]
    assert ways == sorted(ways)
    assert ways[0] == 0.5
    assert ways[-1] < 1


@pytest.mark.parametrize(
    ("volumes", "nothing", "half", "all_of_it", "taken_way"),
    [
        (3, 0.70, 0.70, 0.705, 3 / 8),  # in doubt half of what few volumes allow
        (3, 0.70, 0.70, 0.72, 3 / 4),
        (3, 0.72, 0.70, 0.70, 0.0),
        (5, 0.70, 0.70, 0.695, 5 / 6),  # in doubt all of what many allow
        (5, 0.70, 0.72, 0.70, 5 / 12),
        (5, 0.75, 0.70, 0.70, 0.0),
        (5, 0.75, 0.77, 0.70, 5 / 12),
    ],
)
def test_in_doubt_it_depends_on_the_volumes_and_a_clear_gain_decides(
    volumes: int, nothing: float, half: float, all_of_it: float, taken_way: float
) -> None:
    way = farthest(volumes)
    assert search({0.0: nothing, way / 2: half, way: all_of_it}.__getitem__, volumes) == taken_way


def test_two_stacks_of_one_volume_carry_no_farther_than_one(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taken, "MOST_OBJECTS", 0)  # nothing is walked: as far as the volumes allow
    tried: list[float] = []

    def record(base: SmallNetwork, tuned: SmallNetwork, way: float) -> SmallNetwork:
        tried.append(way)
        return partly(base, tuned, way)

    monkeypatch.setattr(taken, "partly", record)
    base = imos.load(device="cpu")
    assert base.network is not None
    for first, second in ((7, 7), (7, 8)):
        stacks = [replace(stack, volume=number) for number in (first, second)]
        choose(base, copy.deepcopy(base.network), [Course(one) for one in stacks])
    assert tried == [1 / 2, 2 / 3]


def test_an_estimate_lies_where_it_says(stack: Stack) -> None:
    from imos.propagation.track import Estimate

    estimate = Estimate(3, 2, 5, np.array([[0.9, 0.2], [0.6, 0.5]], np.float32), 1.0, 1.0)
    mask = mask_of(estimate, (10, 10))
    assert sorted(map(tuple, np.argwhere(mask))) == [(2, 5), (3, 5)]
