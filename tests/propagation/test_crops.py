import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from imos.propagation.crops import FOREGROUND, Crop


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_a_mask_comes_back_exactly(mask):
    crop = Crop.of_mask(mask)
    assert np.array_equal(crop.foreground(mask.shape), mask)
    assert crop.area == mask.sum()
    assert crop.is_empty == (not mask.any())


@given(st.floats(0, 1, width=32))
def test_a_probability_is_foreground_exactly_when_it_exceeds_one_half(probability):
    crop = Crop.of_probability(np.full((1, 1), probability, np.float32), 0, 0)
    assert crop.area == (probability > 0.5)


def test_a_probability_is_kept_to_a_256th():
    probability = np.linspace(0, 1, 500, dtype=np.float32)[None]
    crop = Crop.of_probability(probability, 0, 0)
    kept = np.zeros((1, 500))
    kept[crop.window] = (crop.levels() + 0.5) / 256
    assert np.abs(kept - probability)[probability > 0.02].max() <= 0.5 / 256 + 1e-6


def test_not_a_number_is_background():
    assert Crop.of_probability(np.full((3, 3), np.nan, np.float32), 0, 0).is_empty


@pytest.mark.parametrize(("top", "left"), [(-2, -1), (8, 9), (-2, 9), (3, 4)])
def test_what_hangs_over_the_slice_is_cut_off(top, left):
    crop = Crop.of_probability(np.ones((4, 4), np.float32), top, left, (10, 11))
    expected = np.zeros((10, 11), bool)
    expected[max(0, top) : top + 4, max(0, left) : left + 4] = True
    assert np.array_equal(crop.foreground((10, 11)), expected)


def test_only_the_rectangle_that_holds_something_is_kept():
    levels = np.zeros((512, 512), np.uint8)
    levels[100:110, 200:230] = FOREGROUND
    crop = Crop.of_levels(levels, 1000, 2000)
    assert (crop.top, crop.left, crop.height, crop.width) == (1100, 2200, 10, 30)
    assert crop.nbytes < 200
