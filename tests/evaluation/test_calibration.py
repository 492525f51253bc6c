"""Calibration: figures of sets whose answer is known."""

from __future__ import annotations

from math import isnan, nan

import numpy as np
import pytest

from imos.evaluation.calibration import BINS, calibrate, calibration_of
from imos.evaluation.judging import judge
from imos.evaluation.sequences import Sequence


def test_confidence_that_is_right_on_average_is_calibrated() -> None:
    random = np.random.default_rng(0)
    confidence = random.uniform(0, 1, 50_000)
    j = (random.uniform(0, 1, confidence.size) < confidence).astype(float)
    result = calibrate(confidence, j)
    assert result.error < 0.01
    assert result.pearson == pytest.approx(np.sqrt(1 / 3), abs=0.02)  # of a uniform chance and its coin


def test_confidence_that_is_always_too_high_by_a_fifth() -> None:
    j = np.linspace(0, 0.8, 1000)
    result = calibrate(j + 0.2, j)
    assert result.error == pytest.approx(0.2)
    assert result.pearson == pytest.approx(1)


def test_error_by_hand() -> None:
    # bin .1-.2: one slice off by .4; bin .9-1: .95 said on average, .5 true
    result = calibrate([0.1, 0.9, 1.0], [0.5, 1.0, 0.0])
    assert result.error == pytest.approx((0.4 + 2 * 0.45) / 3)
    assert [part.count for part in result.bins] == [0, 1, *[0] * 7, 2]
    assert len(result.bins) == BINS


def test_errors_in_both_directions_do_not_cancel_between_bins() -> None:
    assert calibrate([0.25, 0.75], [0.75, 0.25]).error == pytest.approx(0.5)


def test_constant_confidence_has_no_correlation() -> None:
    assert isnan(calibrate([0.5, 0.5], [0.1, 0.9]).pearson)


def test_slices_without_confidence_are_counted_apart() -> None:
    result = calibrate([nan, 0.5, 0.7], [0.0, 0.5, 0.7])
    assert (result.count, result.silent) == (2, 1)
    assert result.error == pytest.approx(0)


def test_nothing_said_at_all() -> None:
    result = calibrate([nan], [1.0])
    assert (result.count, result.silent) == (0, 1)
    assert isnan(result.error)


def test_confidence_meets_the_j_of_its_own_slice_and_the_painted_one_is_left_out() -> None:
    truth = np.zeros((5, 20, 20), np.uint8)
    truth[:, 4:14, 4:14] = 1
    made = truth.copy()
    made[3, 4:9] = 0  # J = .5
    score = judge(made, truth, Sequence(1, 0, 4, painted=1), {0: 1.0, 1: 0.0, 2: 1.0, 3: 0.5, 4: 1.0})
    result = calibration_of([score])
    assert (result.count, result.silent) == (4, 0)
    assert result.error == pytest.approx(0)
    assert result.pearson == pytest.approx(1)
