"""Baselines: what copy and optical flow make of a painted slice."""

from __future__ import annotations

import numpy as np

from imos.evaluation.baselines import COPY, FLOW, carry_all
from imos.evaluation.sequences import Sequence


def scene(moved: int) -> tuple[np.ndarray, np.ndarray]:
    """A textured square that moves so many pixels a slice to the right: slices and labels."""
    random = np.random.default_rng(0)
    slices = np.full((7, 64, 64), 60, np.uint8)
    labels = np.zeros_like(slices)
    texture = random.integers(100, 250, (20, 20), dtype=np.uint8)
    for index in range(7):
        left = 10 + moved * index
        slices[index, 22:42, left : left + 20] = texture
        labels[index, 22:42, left : left + 20] = 1
    return slices, labels


WHOLE = [Sequence(1, first=0, last=6, painted=3)]


def test_copy_repeats_the_painted_mask_to_both_ends() -> None:
    slices, labels = scene(3)
    made = carry_all(COPY, slices, labels, WHOLE)
    assert (made == labels[3]).all()


def test_flow_follows_in_both_directions() -> None:
    slices, labels = scene(3)
    made = carry_all(FLOW, slices, labels, WHOLE)
    for index in (0, 6):
        assert np.count_nonzero(made[index] & labels[index]) > 0.8 * 400


def test_flow_sees_colours_as_gray() -> None:
    slices, labels = scene(2)
    coloured = np.repeat(slices[..., None], 3, axis=3)
    np.testing.assert_array_equal(carry_all(FLOW, coloured, labels, WHOLE), carry_all(FLOW, slices, labels, WHOLE))


def test_painted_slice_stays_as_painted_where_another_object_comes_by() -> None:
    labels = np.zeros((5, 16, 16), np.uint8)
    labels[1, 4:10, 4:10] = 2
    labels[3, 6:12, 6:12] = 1
    sequences = [Sequence(2, 0, 4, painted=1), Sequence(1, 0, 4, painted=3)]
    made = carry_all(COPY, np.zeros_like(labels), labels, sequences)
    np.testing.assert_array_equal(made[1] == 2, labels[1] == 2)
    np.testing.assert_array_equal(made[3] == 1, labels[3] == 1)


def test_where_copies_overlap_the_higher_label_wins() -> None:
    labels = np.zeros((5, 16, 16), np.uint8)
    labels[1, 4:10, 4:10] = 2
    labels[3, 6:12, 6:12] = 1
    sequences = [Sequence(2, 0, 4, painted=1), Sequence(1, 0, 4, painted=3)]
    made = carry_all(COPY, np.zeros_like(labels), labels, sequences)
    assert np.count_nonzero(made[0] == 2) == 36
    assert np.count_nonzero(made[0] == 1) == 36 - 16
