"""Judging: J, F and leak of a label map, counted by hand."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest

from imos.evaluation.judging import judge
from imos.evaluation.sequences import Sequence


@pytest.fixture
def truth() -> np.ndarray:
    """Label 1 on slices 1 to 4 of 6, 10 x 10 pixels."""
    labels = np.zeros((6, 40, 40), np.uint8)
    labels[1:5, 10:20, 10:20] = 1
    return labels


SEQUENCE = Sequence(1, first=1, last=4, painted=2)


def test_perfect(truth: np.ndarray) -> None:
    score = judge(truth, truth, SEQUENCE)
    assert (score.j, score.f, score.leak) == (1, 1, 0)
    assert score.j_and_f == score.forward == score.backward == 1


def test_mean_over_slices(truth: np.ndarray) -> None:
    predicted = truth.copy()
    predicted[1] = 0  # lost: J = F = 0
    predicted[3, 10:15] = 0  # half of it: J = .5
    score = judge(predicted, truth, SEQUENCE)
    assert score.j == pytest.approx((0 + 0.5 + 1) / 3)
    assert score.backward == 0
    assert score.forward > 0.5


def test_painted_slice_does_not_count(truth: np.ndarray) -> None:
    predicted = truth.copy()
    predicted[2] = 0
    assert judge(predicted, truth, SEQUENCE).j == 1


def test_leak_is_what_lies_outside_the_object_s_slices(truth: np.ndarray) -> None:
    predicted = truth.copy()
    predicted[0, :10, :10] = 1
    predicted[5, :10, :20] = 1
    score = judge(predicted, truth, SEQUENCE)
    assert score.leak == pytest.approx(300 / 400)
    assert score.j == 1


def test_other_labels_do_not_count(truth: np.ndarray) -> None:
    predicted = truth.copy()
    predicted[:, 30:] = 2
    assert judge(predicted, truth, SEQUENCE).j_and_f == 1


def test_a_direction_without_slices_has_no_value(truth: np.ndarray) -> None:
    score = judge(truth, truth, Sequence(1, first=1, last=4, painted=1))
    assert isnan(score.backward)
    assert score.forward == 1
