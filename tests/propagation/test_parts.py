"""Parts of an object are carried apart, those that nearly touch together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import imos
from imos.propagation.model import Model
from imos.propagation.parts import GAP, GAP_OF_VIDEOS, LEAST_SHARE, MOST_PARTS, split
from imos.propagation.track import Estimate, track


def disc(row: int, column: int, radius: int, shape: tuple[int, int] = (96, 128)) -> np.ndarray:
    y, x = np.ogrid[: shape[0], : shape[1]]
    return (y - row) ** 2 + (x - column) ** 2 <= radius**2


@given(arrays(bool, (12, 16)))
def test_parts_are_disjoint_and_make_up_the_object(mask: np.ndarray) -> None:
    mask[5, 5] = True
    parts = split(mask)
    assert 1 <= len(parts) <= MOST_PARTS
    np.testing.assert_array_equal(np.sum(parts, axis=0), mask)


@given(st.integers(18, 90), st.sampled_from([GAP, GAP_OF_VIDEOS]))
def test_far_discs_come_apart_and_near_ones_do_not(distance: int, least: float) -> None:
    one, other = disc(40, 20, 8), disc(40, 20 + distance, 8)
    gap, diameter = distance - 16, 16
    if abs(gap - least * diameter) > 1:
        assert len(split(one | other, least)) == (2 if gap > least * diameter else 1)


def test_a_speck_goes_with_the_nearest_part() -> None:
    one, other, speck = disc(40, 20, 10), disc(40, 100, 10), disc(60, 100, 1)
    assert speck.sum() < LEAST_SHARE * (one | other | speck).sum()
    first, second = split(one | other | speck)
    np.testing.assert_array_equal(first, one)
    np.testing.assert_array_equal(second, other | speck)


def test_a_chain_of_near_parts_is_one() -> None:
    chain = np.any([disc(40, 15 + 22 * number, 8) for number in range(5)], axis=0)
    assert len(split(chain, GAP_OF_VIDEOS)) == 1
    assert len(split(chain)) == 5


class Twins:
    """Two bright balls in noise that drift apart; the left one ends on slice 9, the right one on slice 19.

    Args:
        right: Column of the right one; the left one's is 25, their radius 11.
    """

    shape = (96, 128)
    count = 30

    def __init__(self, right: int = 100) -> None:
        random = np.random.default_rng(3)
        z, y, x = np.ogrid[: self.count, : self.shape[0], : self.shape[1]]
        self.left = ((y - 48 + z) ** 2 + (x - 25) ** 2 <= 11**2) & (z < 10)
        self.right = ((y - 48 - z) ** 2 + (x - right) ** 2 <= 11**2) & (z < 20)
        self.mask = self.left | self.right
        self._slices = (80 + 100 * self.mask + random.normal(0, 6, self.mask.shape)).clip(0, 255).astype(np.uint8)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._slices[index]


@pytest.fixture(scope="module")
def model() -> Model:
    return imos.load(device="cpu")


def found_on(twins: Twins, estimate: Estimate) -> np.ndarray:
    found = np.zeros(twins.shape, bool)
    rows, columns = estimate.probability.shape
    found[estimate.top : estimate.top + rows, estimate.left : estimate.left + columns] = estimate.probability > 0.5
    return found


@pytest.mark.parametrize("with_network", [False, True])
@pytest.mark.parametrize("right", [58, 100])
def test_each_part_is_followed_to_its_own_end(model: Model, right: int, *, with_network: bool) -> None:
    twins = Twins(right)
    model = model if with_network else replace(model, network=None)
    estimates = list(track(model, twins, twins.mask[2], 2, 29))
    assert [estimate.index for estimate in estimates][: 20 - 3] == list(range(3, 20))
    for estimate in estimates:
        found, true = found_on(twins, estimate), twins.mask[estimate.index]
        if 13 < estimate.index < 20:  # the left one is gone for good
            assert not found[:, : (25 + right) // 2].any()
        if estimate.index < 20 and estimate.index not in {10, 11, 12, 13}:
            assert (found & true).sum() / (found | true).sum() > 0.8, estimate.index
        assert 0 <= estimate.confidence <= 1


def test_the_floor_ends_soon_after_the_last_part(model: Model) -> None:
    twins = Twins()
    estimates = list(track(replace(model, network=None), twins, twins.mask[2], 2, 29))
    assert len(estimates) <= 20 - 3 + 3


def test_the_network_says_that_it_is_unsure_where_it_runs_on(model: Model) -> None:
    twins = Twins()
    estimates = list(track(model, twins, twins.mask[2], 2, 29))
    assert all(estimate.confidence < 0.4 for estimate in estimates if estimate.index >= 20)
