"""Known objects pull the target model towards themselves, where the painted one looks like them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from imos.errors import UserError
from imos.propagation.kinds import LIKE_ENOUGH, MOST_LIKE, PREFIX, STRENGTH, Kind, from_tensors, pull_of, to_tensors
from imos.propagation.likeness import MAPS, Looks
from imos.propagation.logistic import RIDGE, PixelSamples, curvature, fit_logistic, mean_loss

FEATURES = 6
LOOK = Looks(torch.zeros(1, MAPS), torch.ones(1, MAPS))


def samples(direction: Tensor, seed: int, count: int = 600) -> PixelSamples:
    """Pixels that lie along a direction if they are the object's, and against it if not."""
    generator = torch.Generator().manual_seed(seed)
    y = (torch.arange(count) % 2).float()
    x = torch.randn(count, FEATURES, generator=generator) + (2 * y - 1)[:, None] * direction
    x[:, -1] = 1
    return PixelSamples(x, y, torch.full((count,), 400.0 / count))


BRIGHT = torch.tensor([1.5, 0, 0, 0, 0, 0])
ROUGH = torch.tensor([0, 1.5, 0, 0, 0, 0])


def test_the_fit_is_where_the_loss_is_least() -> None:
    given = samples(BRIGHT, 0)
    weights = fit_logistic(given)

    def loss(at: Tensor) -> float:
        return float(mean_loss(given, at[None])[0] * given.weight.sum() + RIDGE / 2 * at.square().sum())

    for other in torch.eye(FEATURES):
        assert min(loss(weights + 0.2 * other), loss(weights - 0.2 * other)) > loss(weights)
    assert weights.abs().argmax() == 0


def test_curvature_is_the_second_derivative() -> None:
    given = samples(BRIGHT, 1)
    weights = fit_logistic(given)

    def loss(at: Tensor) -> Tensor:
        return mean_loss(given, at[None])[0] * given.weight.sum()

    found = torch.autograd.functional.hessian(loss, weights)
    torch.testing.assert_close(curvature(given, weights), found, rtol=0.02, atol=0.2)


def test_one_that_looks_the_same_pulls_and_another_does_not() -> None:
    bright, rough = Kind.of(samples(BRIGHT, 2), LOOK), Kind.of(samples(ROUGH, 3), LOOK)
    painted = samples(BRIGHT, 4, count=40)
    both, alone = pull_of(painted, [bright, rough], LOOK), pull_of(painted, [bright], LOOK)
    assert both is not None
    assert alone is not None
    torch.testing.assert_close(both.precision, alone.precision)
    torch.testing.assert_close(both.precision, STRENGTH * bright.precision)
    assert pull_of(painted, [rough], LOOK) is None
    assert pull_of(painted, [], LOOK) is None


def test_kinds_from_images_of_another_look_have_no_say() -> None:
    painted, elsewhere = samples(BRIGHT, 4), Looks(LOOK.means + 1, LOOK.variances)
    kind = Kind.of(samples(BRIGHT, 2), LOOK)
    assert pull_of(painted, [kind], LOOK) is not None
    assert pull_of(painted, [kind], elsewhere) is None


def test_a_known_object_makes_up_for_few_pixels() -> None:
    painted, others = samples(BRIGHT, 5, count=16), samples(BRIGHT, 6, count=4000)
    pull = pull_of(painted, [Kind.of(samples(BRIGHT, number), LOOK) for number in range(7, 10)], LOOK)
    assert pull is not None
    assert mean_loss(others, fit_logistic(painted, pull)[None]) < mean_loss(others, fit_logistic(painted)[None])


def test_a_kind_counts_like_the_pixels_that_it_was_made_of() -> None:
    given = samples(BRIGHT, 11)
    pull = pull_of(given, [Kind.of(given, LOOK)], LOOK)
    assert pull is not None
    repeated = fit_logistic(given._replace(weight=given.weight * (1 + STRENGTH)))
    pulled, alone = fit_logistic(given, pull), fit_logistic(given)
    assert (pulled - repeated).norm() < 0.6 * (alone - repeated).norm()


def test_not_more_than_a_few_pull() -> None:
    kinds = [Kind.of(samples(BRIGHT, number), LOOK) for number in range(20, 20 + 2 * MOST_LIKE)]
    painted = samples(BRIGHT, 50)
    losses = mean_loss(painted, torch.stack([kind.weights for kind in kinds]))
    best = losses.argsort()[:MOST_LIKE]
    assert losses.max() < LIKE_ENOUGH
    pull = pull_of(painted, kinds, LOOK)
    assert pull is not None
    expected = torch.stack([kinds[int(place)].precision for place in best]).mean(0) * STRENGTH
    torch.testing.assert_close(pull.precision, expected)


def test_colour_and_gray_lie_side_by_side_in_a_file() -> None:
    gray = [Kind.of(samples(BRIGHT, number), LOOK) for number in range(2)]
    colour = [Kind(torch.randn(9), torch.eye(9), torch.cat([LOOK.means, LOOK.variances]))]
    tensors = to_tensors([*gray, *colour])
    back = from_tensors(tensors | {"network.out.bias": torch.zeros(3)})
    assert len(back) == 3
    for kind in [*gray, *colour]:
        assert any(
            other.weights.shape == kind.weights.shape
            and torch.equal(other.weights, kind.weights)
            and torch.allclose(other.precision, kind.precision)
            and torch.equal(other.look, kind.look)
            for other in back
        )
    assert pull_of(samples(BRIGHT, 3), colour, LOOK) is None
    assert from_tensors({}) == ()


def test_kinds_of_an_older_version_are_told() -> None:
    tensors = to_tensors([Kind.of(samples(BRIGHT, 2), LOOK)])
    del tensors[f"{PREFIX}{FEATURES}.looks"]
    with pytest.raises(UserError, match="older version"):
        from_tensors(tensors)
