"""What goes wrong first: one made-up sequence for each cause."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from imos.evaluation.causes import Cause, Explained, Told, as_markdown, explain
from imos.evaluation.sequences import Sequence

Labels = NDArray[np.uint8]
COUNT, SIDE = 9, 64
SEQUENCE = Sequence(label=1, first=2, last=6, painted=4)


def square(row: int = 20, column: int = 20, height: int = 20, width: int = 20) -> Labels:
    plane = np.zeros((SIDE, SIDE), np.uint8)
    plane[row : row + height, column : column + width] = 1
    return plane


def truth(**planes: Labels) -> Labels:
    """The square on slices 2 to 6; `on5=…` is another plane there."""
    labels = np.zeros((COUNT, SIDE, SIDE), np.uint8)
    labels[SEQUENCE.first : SEQUENCE.last + 1] = square()
    for name, plane in planes.items():
        labels[int(name[2:])] = plane
    return labels


def bright(labels: Labels) -> Labels:
    noise = np.random.default_rng(0).normal(0, 5, labels.shape)
    return (60 + 100 * labels + noise).clip(0, 255).astype(np.uint8)


def changed(index: int, plane: Labels) -> Callable[[Labels], Labels]:
    def change(labels: Labels) -> Labels:
        found = labels.copy()
        found[index] = plane
        return found

    return change


def beyond(labels: Labels) -> Labels:
    found = labels.copy()
    found[0:2] = found[7:9] = square()
    return found


THIN = square(height=40, width=3)
TWO = np.maximum(square(), square(50, 50, 8, 8))


@pytest.mark.parametrize(
    ("labels", "found", "expected"),
    [
        (truth(), lambda labels: labels, Explained(Cause.NONE)),
        (truth(), beyond, Explained(Cause.PAST_END)),
        (truth(on5=square(40, 40)), changed(5, square()), Explained(Cause.MOVED, 1)),
        (truth(on5=TWO), changed(5, square(0, 0)), Explained(Cause.PARTS, 1)),
        (truth(), changed(6, square(height=0)), Explained(Cause.ENDED, 2)),
        (truth(), changed(2, square(44, 44)), Explained(Cause.ELSEWHERE, 2)),
        (truth(on4=THIN, on5=THIN), changed(5, square(column=21, width=10)), Explained(Cause.THIN, 1)),
        (truth(), changed(5, square(10, 10, 40, 40)), Explained(Cause.GREW, 1)),
        (truth(), changed(5, square(25, 25, 8, 8)), Explained(Cause.SHRANK, 1)),
        (truth(), changed(5, square(28, 28)), Explained(Cause.OUTLINE, 1)),
    ],
)
def test_the_first_bad_slice_says_why(labels: Labels, found: Callable[[Labels], Labels], expected: Explained) -> None:
    assert explain(bright(labels), labels, found(labels), SEQUENCE) == expected


def test_without_a_difference_to_its_surroundings_it_is_contrast() -> None:
    labels = truth()
    slices = np.random.default_rng(0).integers(80, 120, labels.shape).astype(np.uint8)
    found = changed(5, square(28, 28))(labels)
    assert explain(slices, labels, found, SEQUENCE) == Explained(Cause.CONTRAST, 1)
    colour = np.repeat(slices[..., None], 3, axis=3)
    assert explain(colour, labels, found, SEQUENCE) == Explained(Cause.CONTRAST, 1)


def test_the_table_counts_causes_and_names_the_worst() -> None:
    told = [
        Told("set/one 1", "MRI", 0.9, 0.0, Explained(Cause.NONE)),
        Told("set/two 1", "CT", 0.2, 0.5, Explained(Cause.ENDED, 3)),
        Told("set/two 2", "CT", 0.4, 0.1, Explained(Cause.ENDED, 5)),
    ]
    lines = as_markdown(told, worst=2).splitlines()
    assert "| taken for ended | 2 | 0.300 | 0.30 |" in lines
    assert lines.index("| taken for ended | 2 | 0.300 | 0.30 |") < lines.index("| none | 1 | 0.900 | 0.00 |")
    assert "| set/two 1 | CT | 0.200 | 0.50 | taken for ended | 3 |" in lines
    assert not any("set/one" in line for line in lines)
