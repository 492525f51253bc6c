"""The window of an object: what of it lies inside the slice, and how values go on outside."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from imos.propagation.region import Region, region_around

regions = st.builds(Region, st.floats(-30, 30), st.floats(-30, 30), st.floats(8, 90), st.sampled_from([16, 32, 48]))
shapes = st.tuples(st.integers(1, 60), st.integers(1, 60))


@given(regions, shapes)
def test_inside_are_the_grid_pixels_with_centres_in_the_slice(region: Region, shape: tuple[int, int]) -> None:
    for place, start, length in zip(region.inside(shape), (region.row, region.column), shape, strict=True):
        centres = start + (np.arange(region.grid) + 0.5) * region.scale
        expected = np.flatnonzero((centres > 1e-6) & (centres < length - 1e-6))
        found = np.arange(region.grid)[place]
        assert set(expected) <= set(found)
        assert all(-1e-6 <= centres[number] <= length + 1e-6 for number in found)


@given(regions, shapes)
def test_beyond_keeps_the_inside_and_repeats_its_edge(region: Region, shape: tuple[int, int]) -> None:
    values = np.random.default_rng(0).random((region.grid, region.grid)).astype(np.float32)
    rows, columns = region.inside(shape)
    extended = region.beyond(values, shape)
    assert extended.shape == values.shape
    if values[rows, columns].size:
        np.testing.assert_array_equal(extended[rows, columns], values[rows, columns])
        nearest_rows = np.arange(region.grid).clip(rows.start, rows.stop - 1)
        nearest_columns = np.arange(region.grid).clip(columns.start, columns.stop - 1)
        np.testing.assert_array_equal(extended, values[np.ix_(nearest_rows, nearest_columns)])
    else:
        assert not extended.any()


def test_an_object_at_the_edge_is_followed_by_what_is_inside() -> None:
    mask = np.zeros((60, 60), bool)
    mask[:10, 20:30] = True
    region = region_around(mask)
    outside_too = region.beyond(region.crop(mask.astype(np.float32)), mask.shape) > 0.5
    assert outside_too[0].any()
    followed = region.follow(outside_too, mask.shape)
    assert abs(followed.row - region.row) <= region.scale
    assert followed.side == region.side
