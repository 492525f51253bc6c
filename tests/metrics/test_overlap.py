"""J and Dice, on masks whose values can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from imos.metrics import dice, jaccard

SIZES = st.tuples(st.integers(1, 12), st.integers(1, 12))


@st.composite
def two_masks(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(SIZES)
    return draw(arrays(bool, shape)), draw(arrays(bool, shape))


def mask(*rows: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in row] for row in rows])


def test_counts_by_hand() -> None:
    predicted, true = mask("##.", "##.", "..."), mask(".##", ".##", "...")
    assert jaccard(predicted, true) == pytest.approx(2 / 6)
    assert dice(predicted, true) == pytest.approx(4 / 8)


def test_two_empty_masks_agree() -> None:
    empty = np.zeros((4, 5), bool)
    assert jaccard(empty, empty) == dice(empty, empty) == 1


def test_one_empty_mask_is_wrong() -> None:
    empty, full = np.zeros((4, 5), bool), np.ones((4, 5), bool)
    assert jaccard(empty, full) == jaccard(full, empty) == dice(empty, full) == dice(full, empty) == 0


def test_volumes_as_well_as_slices() -> None:
    predicted = np.zeros((2, 2, 2), bool)
    predicted[0] = True
    assert jaccard(predicted, np.ones((2, 2, 2), bool)) == pytest.approx(0.5)


@given(two_masks())
def test_order_does_not_matter(masks: tuple[np.ndarray, np.ndarray]) -> None:
    one, other = masks
    assert jaccard(one, other) == jaccard(other, one)
    assert dice(one, other) == dice(other, one)


@given(two_masks())
def test_dice_follows_from_j(masks: tuple[np.ndarray, np.ndarray]) -> None:
    j = jaccard(*masks)
    assert 0 <= j <= 1
    assert dice(*masks) == pytest.approx(2 * j / (1 + j))


@given(two_masks())
def test_a_mask_agrees_with_itself(masks: tuple[np.ndarray, np.ndarray]) -> None:
    assert jaccard(masks[0], masks[0]) == dice(masks[0], masks[0]) == 1
