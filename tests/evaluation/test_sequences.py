"""Sequences: what is painted, what is judged, what is left out."""

from __future__ import annotations

import numpy as np
import pytest

from imos.evaluation.sequences import Protocol, Sequence, paint, sequences_of


def stack(*areas: int, label: int = 1) -> np.ndarray:
    """Slices of 8 x 8 with so many pixels of the label."""
    made = np.zeros((len(areas), 64), np.uint8)
    for plane, area in zip(made, areas, strict=True):
        plane[:area] = label
    return made.reshape(-1, 8, 8)


def found(labels: np.ndarray, protocol: Protocol = Protocol.LARGEST, *, is_video: bool = False) -> list[Sequence]:
    return sequences_of(labels, protocol, is_video=is_video)


def test_largest_paints_the_largest_slice() -> None:
    assert found(stack(0, 5, 20, 30, 13, 0)) == [Sequence(1, first=1, last=4, painted=3)]


def test_the_first_of_equally_large_slices_is_painted() -> None:
    assert found(stack(5, 30, 30, 5))[0].painted == 1


def test_first_paints_the_first_slice_of_at_least_twelve_pixels() -> None:
    assert found(stack(0, 11, 12, 30, 30), Protocol.FIRST) == [Sequence(1, first=1, last=4, painted=2)]


def test_painted_slice_is_not_judged_and_gaps_are() -> None:
    assert found(stack(0, 9, 20, 0, 13, 9, 0))[0].judged == [1, 3, 4, 5]


@pytest.mark.parametrize("areas", [(20, 20, 20, 0), (12, 12, 12, 12), (0, 0, 0, 0), (20, 0, 20, 20, 0)])
def test_short_and_tiny_objects_are_left_out(areas: tuple[int, ...]) -> None:
    assert found(stack(*areas)) == []


def test_thirteen_pixels_on_four_slices_are_enough() -> None:
    assert len(found(stack(13, 1, 1, 1))) == 1


def test_labels_that_frame_zero_does_not_show_are_unfair_for_protocol_first() -> None:
    labels = stack(0, 20, 20, 20, 20)
    assert found(labels, Protocol.FIRST, is_video=True) == []
    assert found(labels, Protocol.FIRST, is_video=False)
    assert found(labels, Protocol.LARGEST, is_video=True)


def test_every_label_is_painted_on_its_own_slice_only() -> None:
    labels = np.concatenate([stack(20, 30, 20, 20), stack(20, 20, 20, 40, label=7)], axis=1)
    painted = paint(labels, found(labels))
    expected = np.zeros_like(labels)
    expected[1] = np.where(labels[1] == 1, 1, 0)
    expected[3] = np.where(labels[3] == 7, 7, 0)
    np.testing.assert_array_equal(painted, expected)
