"""For which objects an adapter's decoder is used."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import imos
from imos.propagation.kinds import Kind
from imos.propagation.logistic import PixelSamples, fit_logistic
from imos.propagation.taught import LEAST, LIMIT_OF_ONE, MOST, Taught, limit_of, misfit

FEATURES = 6


def painted(seed: int, direction: int, features: int = FEATURES) -> PixelSamples:
    """Pixels of an object that one feature tells from its surroundings, and no other."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(800, features, generator=generator)
    x[:, -1] = 1
    y = (x[:, direction] + 0.3 * torch.randn(800, generator=generator) > 0).float()
    return PixelSamples(x, y, torch.full((800,), 0.5))


def kind(samples: PixelSamples) -> Kind:
    size = samples.x.shape[1]
    return Kind(fit_logistic(samples), torch.eye(size), torch.ones(2, 80))


def test_of_the_sort_and_not() -> None:
    taught = Taught.by([kind(painted(seed, 0)) for seed in range(3)], 0.1)
    assert taught.includes(painted(9, 0))
    assert not taught.includes(painted(9, 1))
    assert misfit(painted(9, 0), taught.weights) < 0.05 < 0.3 < misfit(painted(9, 1), taught.weights)


def test_other_features_are_another_sort() -> None:
    """Colour has more features than gray."""
    taught = Taught.by([kind(painted(1, 0))], MOST)
    assert not taught.includes(painted(1, 0, FEATURES + 2))
    assert not Taught.by([], MOST).includes(painted(1, 0))


def test_the_limit_is_what_volumes_keep_of_each_other() -> None:
    same = [([kind(painted(seed, 0))], [painted(seed, 0)]) for seed in range(4)]
    mixed = [([kind(painted(seed, seed))], [painted(seed, seed)]) for seed in range(4)]
    assert limit_of(same[:1]) == LIMIT_OF_ONE
    assert limit_of([]) == LIMIT_OF_ONE
    assert limit_of(same) == LEAST
    assert limit_of(mixed) == MOST
    assert limit_of(mixed[:3]) == LIMIT_OF_ONE, "three cannot show how far objects of a sort differ"


def test_a_limit_between_lets_the_volumes_own_objects_in() -> None:
    volumes = []
    for seed in range(6):  # not quite of one sort: each is told from its surroundings in another direction
        one = painted(seed, 0)
        angle = torch.tensor(0.8 * seed)
        along = angle.cos() * one.x[:, 0] + angle.sin() * one.x[:, 1]
        one = one._replace(y=(along > 0).float())
        volumes.append(([kind(one)], [one]))
    limit = limit_of(volumes)
    assert LEAST < limit < MOST
    for number, (_, objects) in enumerate(volumes):
        others = [known for place, (kinds, _) in enumerate(volumes) if place != number for known in kinds]
        assert Taught.by(others, limit).includes(objects[0])


def test_written_and_read_again() -> None:
    taught = Taught.by([kind(painted(0, 0)), kind(painted(1, 0)), kind(painted(2, 0, 9))], 0.15)
    again = Taught.from_tensors(taught.to_tensors() | {"network.x": torch.zeros(1)})
    assert again is not None
    assert again.limit == pytest.approx(0.15)
    assert {size: tuple(weights.shape) for size, weights in again.weights.items()} == {6: (2, 6), 9: (1, 9)}
    assert torch.equal(again.weights[6], taught.weights[6])
    assert Taught.from_tensors({"network.x": torch.zeros(1)}) is None


def test_what_taught_earlier_is_kept_while_there_is_room() -> None:
    before = Taught.by([kind(painted(seed, 1)) for seed in range(5)], 0.3)
    new = Taught.by([kind(painted(seed, 0)) for seed in range(2)], 0.1)
    both = new.and_earlier(before, 4)
    assert both.limit == 0.3
    assert torch.equal(both.weights[FEATURES], torch.cat([new.weights[FEATURES], before.weights[FEATURES][[0, 4]]]))
    assert len(new.and_earlier(before, 1).weights[FEATURES]) == 2, "new ones are never left out"
    assert both.includes(painted(9, 0))
    assert both.includes(painted(9, 1))


def test_another_object_of_the_same_image_is_decoded_by_the_base() -> None:
    plain = imos.load(device="cpu")
    adapted = replace(plain, taught=Taught.by([kind(painted(0, 0))], 0.1), plain=plain)
    assert adapted.decoding_for(painted(9, 0)) is adapted
    assert adapted.decoding_for(painted(9, 1)) is plain
    assert adapted.for_everything().decoding_for(painted(9, 1)).taught is None
    assert plain.decoding_for(painted(9, 1)) is plain
