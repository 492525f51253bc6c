"""A model, and a volume to train on that needs no file."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import imos
from imos.propagation.model import Model
from imos.training.volumes import Stack


@pytest.fixture(scope="session")
def model() -> Model:
    """The shipped weights."""
    return imos.load(device="cpu")


@pytest.fixture(scope="session")
def ball() -> Callable[..., Stack]:
    """Makes a stack with a bright ball in noise, seen on the slices in the middle."""

    def make(seed: int = 0, depth: int = 15, *, is_video: bool = False) -> Stack:
        random = np.random.default_rng(seed)
        k, i, j = np.mgrid[:depth, :64, :64]
        labels = ((i - 30) ** 2 + (j - 33) ** 2 + (2.5 * (k - depth // 2)) ** 2 < 15**2).astype(np.uint8)
        slices = (80 + 90 * labels + random.normal(0, 12, labels.shape)).clip(0, 255).astype(np.uint8)
        return Stack.of(slices, labels, is_video=is_video)

    return make
