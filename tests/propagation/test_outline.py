"""Local models: each side of an object knows its own neighbours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from imos.propagation.target import STRIDE, PixelFeatures, TargetModel

SIDE = 160
RANDOM = np.random.default_rng(8)


def features_of(picture: NDArray[np.float64]) -> PixelFeatures:
    """A picture, its square and noise, at the stride of features."""
    small = picture[::STRIDE, ::STRIDE].reshape(-1)
    noise = RANDOM.normal(0, 0.02, small.shape)
    fine = torch.from_numpy(np.stack([small + noise, small**2, RANDOM.normal(size=small.shape)])).float()
    return PixelFeatures(fine, ())


def box(top: int, left: int, height: int = 60, width: int = 60) -> NDArray[np.bool_]:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[top : top + height, left : left + width] = True
    return mask


def halves(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Left the object is dark on bright ground, right bright on dark: each grey value is object on one side only."""
    middle = int(np.flatnonzero(mask.any(0)).mean())
    left = np.arange(SIDE)[None] <= middle
    return np.where(mask == left, 0.3, 0.7)


def accuracy(score: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    return float(((score > 0) == mask[::STRIDE, ::STRIDE]).mean())


def test_sides_that_contradict_each_other_are_told_apart() -> None:
    mask = box(50, 50)
    target = TargetModel(features_of(halves(mask)).joined(), mask.astype(np.float32), has_sides=True)
    features = features_of(halves(mask))

    near = np.zeros((SIDE, SIDE), bool)
    near[40:120, 40:120] = True  # far outside the model for all of it has the say
    near = near[::STRIDE, ::STRIDE]
    right = (target.score(features, mask) > 0) == mask[::STRIDE, ::STRIDE]
    alone = (target.score(features, np.zeros_like(mask)) > 0) == mask[::STRIDE, ::STRIDE]
    assert right[near].mean() > 0.9
    assert alone[near].mean() < 0.7


@pytest.mark.parametrize(("top", "left", "height", "width"), [(20, 80, 60, 60), (30, 30, 90, 90), (60, 60, 30, 30)])
def test_sides_go_along_when_the_object_moves_grows_or_shrinks(top: int, left: int, height: int, width: int) -> None:
    painted, later = box(50, 50), box(top, left, height, width)
    target = TargetModel(features_of(halves(painted)).joined(), painted.astype(np.float32), has_sides=True)
    features = features_of(halves(later))

    inside = later[::STRIDE, ::STRIDE]
    assert (target.score(features, later)[inside] > 0).mean() > 0.9
    assert (target.score(features, later)[inside] > 0).mean() > (target.score(features, painted)[inside] > 0).mean()


def test_an_object_that_looks_the_same_everywhere_is_found_as_by_one_model() -> None:
    mask = box(40, 60)
    picture = np.where(mask, 0.7, 0.3)
    target = TargetModel(features_of(picture).joined(), mask.astype(np.float32), has_sides=True)
    features = features_of(picture)

    assert accuracy(target.score(features, mask), mask) > 0.99
    assert accuracy(target.score(features, np.zeros_like(mask)), mask) > 0.99


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, SIDE - 1),
    st.integers(0, SIDE - 1),
    st.integers(1, SIDE),
    st.integers(1, SIDE),
    st.integers(0, SIDE - 1),
)
def test_any_object_gets_a_score(top: int, left: int, height: int, width: int, elsewhere: int) -> None:
    """As small as a pixel, as large as the window, cut off by it, and found where nobody painted."""
    mask = box(top, left, height, width)
    target = TargetModel(features_of(np.where(mask, 0.6, 0.4)).joined(), mask.astype(np.float32), has_sides=True)
    for where in (mask, box(elsewhere, elsewhere, 1, 1), np.zeros_like(mask)):
        score = target.score(features_of(np.where(mask, 0.6, 0.4)), where)
        assert score.shape == (SIDE // STRIDE, SIDE // STRIDE)
        assert np.isfinite(score).all()


def test_nothing_painted_leaves_one_model() -> None:
    mask = np.zeros((SIDE, SIDE), bool)
    target = TargetModel(features_of(np.full((SIDE, SIDE), 0.5)).joined(), mask.astype(np.float32), has_sides=True)
    assert np.isfinite(target.score(features_of(np.full((SIDE, SIDE), 0.5)), box(1, 1))).all()
