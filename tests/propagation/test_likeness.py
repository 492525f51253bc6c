"""What an adapter is used for, and what not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import imos
from imos.propagation.likeness import FARTHEST, MAPS, NEAREST, REACH_OF_ONE, Looks, Seen, Volume, reach_of


def features(seed: int, level: float = 0.0) -> torch.Tensor:
    """`(F, P)` of a region; regions of one level look alike."""
    generator = torch.Generator().manual_seed(seed)
    hand = torch.rand(10, 400, generator=generator)
    return torch.cat([hand, level + torch.rand(MAPS, 400, generator=generator)])


def test_alike_is_near_and_other_is_far() -> None:
    looks = Looks.together([Looks.of(features(seed)) for seed in range(3)])
    same, other = looks.distances(Looks.together([Looks.of(features(9)), Looks.of(features(9, 1.0))]))

    assert 0 <= same < 0.01
    assert other > 0.5
    assert float(looks.distances(Looks.of(features(1)))[0]) == pytest.approx(0, abs=1e-6)


@given(st.floats(0.1, 10), st.floats(-5, 5))
def test_distance_has_no_unit_and_no_zero(scale: float, shift: float) -> None:
    one, two = features(1, 2.0), features(2, 2.5)
    plain = Looks.of(one).distances(Looks.of(two))
    scaled = Looks.of(scale * one + shift).distances(Looks.of(scale * two + shift))

    assert float(scaled[0]) == pytest.approx(float(plain[0]), rel=0.1)
    assert torch.allclose(Looks.of(two).distances(Looks.of(one)), plain)


def test_reach_follows_from_how_far_the_volumes_lie_apart() -> None:
    near = [volume(features(seed)) for seed in range(4)]
    apart = [volume(features(seed, 0.3 * seed)) for seed in range(4)]

    assert reach_of(near[:1]) == reach_of([]) == REACH_OF_ONE
    assert reach_of(near) == NEAREST
    assert reach_of(apart) == FARTHEST
    assert reach_of([near[0], Volume(Looks.together([]), Looks.together([]))]) == REACH_OF_ONE


def volume(region: torch.Tensor) -> Volume:
    looks = Looks.of(region)
    return Volume(looks, looks)


def test_written_and_read_again() -> None:
    seen = Seen(Looks.together([Looks.of(features(seed)) for seed in range(3)]), 0.01)
    again = Seen.from_tensors(seen.to_tensors())

    assert again is not None
    assert again.includes(features(1))
    assert not again.includes(features(1, 1.0))
    assert again.reach == pytest.approx(0.01)
    assert Seen.from_tensors({"network.x": torch.zeros(1)}) is None


def test_thinned_keeps_the_ends_and_nothing_includes_nothing() -> None:
    looks = Looks.together([Looks.of(features(seed)) for seed in range(9)])
    assert torch.equal(looks.thinned(3).means, looks.means[[0, 4, 8]])
    assert looks.thinned(0).means.shape == (0, MAPS)
    assert not Seen(looks.thinned(0), 1.0).includes(features(1))


def test_what_looks_otherwise_is_carried_without_the_adapter() -> None:
    floor = imos.load(device="cpu")
    seen = Seen(Looks.of(features(1)), 0.01)
    adapted = replace(floor, seen=seen, plain=floor)

    assert adapted.suited_to(features(2)) is adapted
    assert adapted.suited_to(features(2, 1.0)) is floor
    assert adapted.for_everything().suited_to(features(2, 1.0)).seen is None
    changed = adapted.but(judge=None, share=floor.share._replace(volume=0.5))
    assert changed.suited_to(features(2, 1.0)).share.volume == 0.5, "what holds for one holds for the other"
    assert floor.suited_to(features(2)) is floor
