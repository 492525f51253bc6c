"""Small volumes with known objects, and a tracker simple enough to know what it must find."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import imos
from imos.imaging import Image, ImageKind

SHAPE = (40, 48, 24)


@pytest.fixture(scope="session")
def truth() -> NDArray[np.uint8]:
    """Two tilted ellipsoids far apart: 1 on slices 3 to 20, 2 on slices 5 to 18; (40, 48, 24)."""
    i, j, k = np.meshgrid(*(np.arange(size, dtype=float) for size in SHAPE), indexing="ij")
    tilt = 0.4 * (k - 11.5)
    labels = np.zeros(SHAPE, np.uint8)
    labels[((i - 12 - tilt) / 6) ** 2 + ((j - 13) / 7) ** 2 + ((k - 11.5) / 9) ** 2 <= 1] = 1
    labels[((i - 28) / 6) ** 2 + ((j - 35 + tilt) / 6) ** 2 + ((k - 11.5) / 7) ** 2 <= 1] = 2
    return labels


@pytest.fixture(scope="session")
def image(truth: NDArray[np.uint8]) -> Image:
    """The ellipsoids, bright on dark, with noise; axial slices along the last axis."""
    noise = np.random.default_rng(0).normal(0, 8, SHAPE)
    gray = np.where(truth > 0, 180, 60) + noise
    return Image(gray.clip(0, 255).astype(np.uint8), np.diag([1.0, 1.0, 2.5, 1.0]), ImageKind.VOLUME, "two ellipsoids")


class Follower:
    """A tracker that takes what is bright beside the object on the slice before.

    It treats all directions in the slice alike, so flipped and turned volumes must give flipped and turned results.

    Attributes:
        calls: (start, stop) of the passes that were asked for.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def __call__(self, model, slices, mask, start, stop) -> Iterator[object]:
        from imos.propagation.track import Estimate

        self.calls.append((start, stop))
        step = 1 if stop > start else -1
        for count, index in enumerate(range(start + step, stop + step, step), 1):
            near = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
            mask = near & (slices[index] > 120)
            if mask.sum() < 3:
                return
            confidence = max(0.0, 0.95 - 0.02 * count)
            yield Estimate(index, 0, 0, np.where(mask, np.float32(0.9), np.float32(0.1)), 1.0, confidence)


@pytest.fixture(scope="session")
def new_follower() -> type[Follower]:
    """Makes trackers, where one test needs several."""
    return Follower


@pytest.fixture
def follower() -> Follower:
    """A fresh tracker."""
    return Follower()


@pytest.fixture
def session(image: Image, follower: Follower) -> imos.Session:
    """A session on the two ellipsoids with the simple tracker."""
    return imos.Session(None, image, tracker=follower)
