"""What the judge is shown of an object's size."""

from __future__ import annotations

import numpy as np
import pytest

from imos.propagation.existence import FEATURES, Areas, Evidence, Judge, features, gather


def walked(*areas: float) -> list[Areas]:
    """Areas after each slice."""
    found = [Areas.painted(areas[0])]
    for area in areas[1:]:
        found.append(found[-1].then(area))
    return found


def test_an_object_that_grows_is_as_large_as_it_ever_was() -> None:
    assert [areas.size for areas in walked(20, 40, 400, 4000)] == [0, 0, 0, 0]
    assert walked(20, 4000, 400)[-1].size == pytest.approx(np.log(0.1))


def test_what_has_shrunk_to_a_scrap_and_grows_again_is_known_by_it() -> None:
    scrap, regrown = walked(1000, 10, 900)[1:]
    assert scrap.least == scrap.size == pytest.approx(np.log(0.01))
    assert regrown.size == pytest.approx(np.log(0.9))
    assert regrown.least == scrap.least


def test_growth_does_not_make_a_small_beginning_a_scrap() -> None:
    assert walked(20, 4000, 3900)[-1].least == pytest.approx(np.log(3900 / 4000))


def test_evidence_of_an_empty_slice_and_of_a_whole_one() -> None:
    plane, nothing = np.zeros((16, 16), np.float32), np.zeros((16, 16), np.float32)
    square = nothing.copy()
    square[4:12, 4:12] = 1
    gray = np.zeros((16, 16), np.uint8)
    empty = gather(nothing, square, plane, gray, plane, Areas.painted(64).then(0), 1)
    whole = gather(square, square, plane, gray, plane, Areas.painted(64).then(64), 1)
    assert (empty.size, empty.change) == (-6, -3)
    assert (whole.size, whole.least, whole.change, whole.agreement, whole.margin) == (0, 0, 0, 1, 1)


def test_a_judge_weighs_the_evidence_its_squares_and_one() -> None:
    evidence = Evidence(-2, -3, *[0.0] * 9)
    assert features(evidence).shape == (FEATURES,)
    existence, quality = np.zeros(FEATURES), np.zeros(FEATURES)
    existence[1], existence[FEATURES // 2 + 1] = 1, 1  # least and its square
    found = Judge(existence, quality).of(evidence)
    assert found == (pytest.approx(1 / (1 + np.exp(-6))), pytest.approx(0.5 / (1 + np.exp(-6))))
