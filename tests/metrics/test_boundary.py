"""F: the boundary measure of DAVIS, its edge cases and what must hold for any two masks."""

from __future__ import annotations

from math import ceil, hypot

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from imos.metrics import boundary_f
from imos.metrics.boundary import boundary_map

SIZES = st.tuples(st.integers(2, 14), st.integers(2, 14))


@st.composite
def two_masks(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(SIZES)
    return draw(arrays(bool, shape)), draw(arrays(bool, shape))


def square(size: int, top: int, left: int, side: int) -> np.ndarray:
    made = np.zeros((size, size), bool)
    made[top : top + side, left : left + side] = True
    return made


def davis_f(predicted: np.ndarray, true: np.ndarray, tolerance: float = 0.008) -> float:
    """The definition, slowly: a boundary pixel is right when one of the other outline is within the radius."""

    def edge(mask: np.ndarray) -> np.ndarray:
        padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
        found = (mask != padded[:-1, 1:]) | (mask != padded[1:, :-1]) | (mask != padded[1:, 1:])
        found[-1, -1] = False
        return np.argwhere(found)

    radius = tolerance if tolerance >= 1 else ceil(tolerance * hypot(*true.shape))
    one, other = edge(predicted), edge(true)
    if not len(one) or not len(other):
        return float(len(one) == len(other))
    near = ((one[:, None] - other[None]) ** 2).sum(-1) <= radius**2
    precision, recall = near.any(1).mean(), near.any(0).mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


class TestOutline:
    def test_lies_half_a_pixel_to_the_origin(self) -> None:
        # One pixel differs from its own three neighbours, and is the right, lower and lower-right one of three others.
        expected = np.zeros((5, 5), bool)
        expected[1:3, 1:3] = True
        np.testing.assert_array_equal(boundary_map(square(5, 2, 2, 1)), expected)

    @pytest.mark.parametrize("fill", [False, True])
    def test_uniform_masks_have_none(self, fill: bool) -> None:
        assert not boundary_map(np.full((6, 7), fill)).any()

    def test_the_image_edge_is_no_outline(self) -> None:
        half = np.zeros((4, 6), bool)
        half[:, 3:] = True
        expected = np.zeros((4, 6), bool)
        expected[:, 2] = True
        np.testing.assert_array_equal(boundary_map(half), expected)

    def test_last_corner_has_no_neighbour_to_differ_from(self) -> None:
        corner = np.zeros((3, 3), bool)
        corner[2, 2] = True
        np.testing.assert_array_equal(boundary_map(corner), np.array([[0, 0, 0], [0, 1, 1], [0, 1, 0]], bool))


class TestF:
    def test_same_masks(self) -> None:
        assert boundary_f(square(50, 10, 10, 20), square(50, 10, 10, 20)) == 1

    def test_two_masks_without_outline_agree(self) -> None:
        assert boundary_f(np.zeros((9, 9), bool), np.zeros((9, 9), bool)) == 1
        assert boundary_f(np.ones((9, 9), bool), np.zeros((9, 9), bool)) == 1  # as DAVIS has it: neither has an outline

    def test_only_one_has_an_outline(self) -> None:
        empty = np.zeros((50, 50), bool)
        assert boundary_f(square(50, 10, 10, 20), empty) == boundary_f(empty, square(50, 10, 10, 20)) == 0

    def test_a_shift_within_the_tolerance_costs_nothing(self) -> None:
        # 200 x 200: ceil(.008 * 282.8) = 3 pixels
        true = square(200, 50, 50, 60)
        assert boundary_f(square(200, 53, 50, 60), true) == 1
        assert boundary_f(square(200, 54, 50, 60), true) < 1

    def test_tolerance_in_pixels(self) -> None:
        true = square(60, 20, 20, 20)
        assert boundary_f(square(60, 24, 20, 20), true, tolerance=4) == 1
        assert boundary_f(square(60, 24, 20, 20), true, tolerance=1) < 1

    def test_no_near_pixel_at_all(self) -> None:
        assert boundary_f(square(100, 5, 5, 10), square(100, 80, 80, 10)) == 0

    def test_tolerance_beyond_the_image_edge_is_harmless(self) -> None:
        assert boundary_f(square(60, 0, 0, 10), square(60, 0, 0, 10), tolerance=30) == 1

    @given(two_masks(), st.sampled_from([0.008, 0.1, 1, 2]))
    def test_equals_the_definition(self, masks: tuple[np.ndarray, np.ndarray], tolerance: float) -> None:
        assert boundary_f(*masks, tolerance) == pytest.approx(davis_f(*masks, tolerance))

    @given(two_masks())
    def test_order_does_not_matter(self, masks: tuple[np.ndarray, np.ndarray]) -> None:
        one, other = masks
        f = boundary_f(one, other)
        assert 0 <= f <= 1
        assert f == pytest.approx(boundary_f(other, one))

    @given(two_masks())
    def test_inverting_both_changes_nothing(self, masks: tuple[np.ndarray, np.ndarray]) -> None:
        one, other = masks
        assert boundary_f(~one, ~other) == boundary_f(one, other)
