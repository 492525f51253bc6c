"""ITK's contour interpolation, on shapes whose slices in between are known."""

from __future__ import annotations

import builtins
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from imos.errors import UserError
from imos.evaluation import interpolation
from imos.metrics import dice


@pytest.fixture(scope="module")
def installed() -> None:
    try:
        interpolation.check_installed()
    except UserError as error:
        pytest.skip(str(error))


def disk(radius: float, centre: float = 32) -> np.ndarray:
    y, x = np.mgrid[:64, :64]
    return (y - 32) ** 2 + (x - centre) ** 2 < radius**2


@pytest.mark.usefixtures("installed")
def test_between_two_disks_lie_disks() -> None:
    made = interpolation.between(disk(14, 26), disk(20, 38), 5)
    truth = np.stack([disk(14 + number, 26 + 2 * number) for number in range(1, 6)])
    assert made.shape == truth.shape
    assert dice(made, truth) > 0.95
    assert dice(made[2], truth[2]) > dice(disk(14, 26), truth[2]) + 0.1


@pytest.mark.usefixtures("installed")
def test_slices_stand_in_order() -> None:
    areas = interpolation.between(disk(8), disk(20), 5).sum((1, 2))
    assert (np.diff(areas) > 0).all()
    assert (np.diff(interpolation.between(disk(20), disk(8), 5).sum((1, 2))) < 0).all()


@pytest.mark.usefixtures("installed")
def test_shape_at_the_image_s_border() -> None:
    low = np.zeros((64, 64), bool)
    low[:20, :20] = True
    assert dice(interpolation.between(low, low, 3), np.stack([low] * 3)) == 1


def test_nothing_is_extrapolated() -> None:
    assert not interpolation.between(disk(8), None, 5).any()
    assert not interpolation.between(None, disk(8), 5).any()
    assert interpolation.between(None, disk(8), 5).shape == (5, 64, 64)


def test_nothing_lies_between_an_object_and_a_slice_painted_empty() -> None:
    assert not interpolation.between(disk(8), np.zeros((64, 64), bool), 5).any()


@pytest.mark.parametrize("part", ["nothing", "core only"])
def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    real = builtins.__import__

    def without_itk(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "itk":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    if part == "nothing":
        monkeypatch.setattr(builtins, "__import__", without_itk)
    else:
        monkeypatch.setitem(sys.modules, "itk", ModuleType("itk"))
    with pytest.raises(UserError, match="pip install itk-morphologicalcontourinterpolation"):
        interpolation.check_installed()
