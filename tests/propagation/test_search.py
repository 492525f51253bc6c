"""Objects that jump from one frame to the next."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import imos
from imos.metrics import jaccard
from imos.propagation.model import Model
from imos.propagation.region import region_around
from imos.propagation.search import arrive
from imos.propagation.track import track
from imos.training.passes import StackSlices, mask_of
from imos.training.volumes import Stack

SIDE = 240


def frame(row: int, column: int, gray: bool = False) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A striped disc of its own colour on a blotchy ground, and its mask."""
    random = np.random.default_rng(0)
    ground = cv2.GaussianBlur(random.normal(0, 1, (SIDE, SIDE, 3)), (0, 0), 6)
    picture = 120 + 300 * ground * [0.6, 1.0, 0.8]
    y, x = np.mgrid[:SIDE, :SIDE]
    mask = (y - row) ** 2 + (x - column) ** 2 < 18**2
    picture[mask] = [200, 90, 60]
    picture[mask & ((x - column + y - row) % 10 < 4)] = [120, 30, 30]
    noisy = (picture + random.normal(0, 4, picture.shape)).clip(0, 255).astype(np.uint8)
    return (cv2.cvtColor(noisy, cv2.COLOR_RGB2GRAY) if gray else noisy), mask


@pytest.fixture(scope="module")
def model() -> Model:
    return imos.load(device="cpu")


def moved(model: Model, down: int, right: int) -> tuple[float, float]:
    """By how many slice pixels the window went when the object did."""
    (before, mask), (after, _) = frame(110, 120), frame(110 + down, 120 + right)
    region = region_around(mask)
    arrival = arrive(model.steps, before, after, region, region.crop(mask.astype(np.float32)) > 0.5)
    assert arrival.picture.shape == (region.grid, region.grid, 3)
    assert arrival.flow.shape == (region.grid, region.grid, 2)
    assert arrival.region.side == region.side
    return arrival.region.row - region.row, arrival.region.column - region.column


@pytest.mark.parametrize(("down", "right"), [(45, 0), (0, -50), (-35, 40)])
def test_the_window_goes_where_the_object_jumped(model: Model, down: int, right: int) -> None:
    assert moved(model, down, right) == pytest.approx((down, right), abs=8)


def test_what_flow_follows_is_not_searched_for(model: Model) -> None:
    assert moved(model, 0, 0) == (0, 0)
    assert moved(model, 2, -3) == (0, 0)


def test_without_a_mask_nothing_is_searched_for(model: Model) -> None:
    (before, mask), (after, _) = frame(110, 120), frame(150, 120)
    region = region_around(mask)
    assert arrive(model.steps, before, after, region, np.zeros((region.grid, region.grid), bool)).region == region


def test_a_pass_follows_jumps_in_colour_videos_and_not_in_gray_ones(model: Model) -> None:
    places = [(110, 120), (150, 80), (100, 140), (140, 160)]

    def found(*, gray: bool) -> float:
        frames, masks = zip(*(frame(*place, gray=gray) for place in places), strict=True)
        labels = np.stack(masks).astype(np.uint8)
        slices = StackSlices(Stack.of(np.stack(frames), labels, is_video=True))
        estimates = track(model, slices, masks[0], 0, len(places) - 1, patience=None)
        quality = {one.index: jaccard(mask_of(one, slices.shape), masks[one.index]) for one in estimates}
        return sum(quality.values()) / (len(places) - 1)

    assert found(gray=False) > 0.7
    assert found(gray=True) < 0.3
