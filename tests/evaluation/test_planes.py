"""The other two planes: the same volume turned, so that axes are not taken for one another."""

from __future__ import annotations

import numpy as np

from imos.evaluation.planes import View, other_planes
from imos.evaluation.sequences import Protocol


def volume() -> np.ndarray:
    """A box of 6 x 8 x 12 in an array of three sizes that differ."""
    labels = np.zeros((10, 20, 30), np.uint8)
    labels[2:8, 4:12, 10:22] = 1
    return labels


def test_every_axis_is_walked_once_with_its_own_extent() -> None:
    labels = volume()
    seen: list[tuple[int, ...]] = []

    def perfect(slices: np.ndarray, painted: np.ndarray) -> np.ndarray:
        seen.append(slices.shape)
        assert np.count_nonzero(painted.any((1, 2))) == 1
        return np.moveaxis(labels, len(seen), 0)

    found = list(other_planes(labels * 50, labels, labels, Protocol.LARGEST, perfect))
    assert seen == [(20, 10, 30), (30, 10, 20)]
    assert [view for view, _, _ in found] == [
        View.WALKED_SECOND,
        View.SEEN_SECOND,
        View.WALKED_THIRD,
        View.SEEN_THIRD,
    ]
    assert [(of.first, of.last) for _, of, _ in found] == [(4, 11), (4, 11), (10, 21), (10, 21)]
    assert all(score.j_and_f == 1 for _, _, score in found)


def test_slip_of_one_slice_shows_in_the_other_planes() -> None:
    labels = volume()
    slipped = labels.copy()
    slipped[5] = 0  # of six slices

    def nothing(slices: np.ndarray, painted: np.ndarray) -> np.ndarray:
        return painted

    found = {view: score for view, _, score in other_planes(labels, labels, slipped, Protocol.LARGEST, nothing)}
    for view in (View.SEEN_SECOND, View.SEEN_THIRD):
        assert abs(found[view].j - 5 / 6) < 1e-9
    assert found[View.WALKED_SECOND].j == 0
