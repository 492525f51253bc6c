"""What painting means on the image, whatever way the client's axes go."""

from __future__ import annotations

import numpy as np
import pytest

import imos
from imos.errors import UserError
from imos.propagation.composition import SessionState
from imos.propagation.plan import Direction
from imos.propagation.prompts import Prompt
from imos.server.grids import Grid, View
from imos.server.painting import _direction


@pytest.fixture
def image(scan):
    return imos.read(scan.image)


@pytest.fixture
def state(scan):
    """Object 1 is painted on an axial slice (the last axis), object 2 on a sagittal one (the first axis)."""
    painted = [Prompt.of_mask(1, 2, 8, scan.labels[:, :, 8] == 1), Prompt.of_mask(2, 0, 36, scan.labels[36] == 2)]
    return SessionState({prompt.place: prompt for prompt in painted})


def seen(image, *flipped: int) -> View:
    """The image as a client sees it that turns some of its axes round."""
    turn = np.eye(4)
    for axis in flipped:
        turn[axis, axis], turn[axis, 3] = -1, image.shape[axis] - 1
    return View(Grid(image.shape, image.affine @ turn), image)


@pytest.mark.parametrize(
    ("flipped", "values", "expected"),
    [
        ((), [1, 2], Direction.FORWARD),
        ((2,), [1], Direction.BACKWARD),
        ((2,), [2], Direction.FORWARD),
        ((0,), [1], Direction.FORWARD),
        ((0,), [2], Direction.BACKWARD),
        ((0, 2), [1, 2], Direction.BACKWARD),
        ((1,), [2, 1], Direction.FORWARD),
    ],
)
def test_forward_is_towards_higher_slices_as_the_client_counts_them(image, state, flipped, values, expected):
    view = seen(image, *flipped)
    found = _direction(str, state, values, Direction.FORWARD, view)
    back = _direction(str, state, values, Direction.BACKWARD, view)

    assert found is expected
    assert {found, back} == {Direction.FORWARD, Direction.BACKWARD}


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("values", [[1, 2], [2, 1]])
def test_one_way_for_objects_whose_ways_differ_is_refused(image, state, axis, values):
    view = seen(image, axis)
    with pytest.raises(UserError, match="different planes"):
        _direction(str, state, values, Direction.FORWARD, view)
    assert _direction(str, state, values, Direction.BOTH, view) is Direction.BOTH
