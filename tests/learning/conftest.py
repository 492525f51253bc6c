"""Labelled volumes small enough to learn from in a test, and weights that have something to learn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from imos.learning.volumes import LabelledVolume
from imos.network.weights import WeightsInfo, read_weights, save_weights
from imos.propagation.model import BUNDLED


@pytest.fixture(scope="session")
def volume() -> Callable[..., LabelledVolume]:
    """Makes a volume of 16 slices with one body that moves and widens; `is_wrong` labels what is beside it."""

    def make(number: int, *, is_wrong: bool = False) -> LabelledVolume:
        random = np.random.default_rng(number)
        k, j, i = np.mgrid[:16, :64, :64]
        radius = 9 + 4 * random.random()
        x, y = 24 + 8 * random.random(2)
        labels = ((j - y) ** 2 + (i - x - k / 4) ** 2 + ((k - 8) * 1.5) ** 2 < radius**2).astype(np.uint8)
        picture = 80 + 90 * labels + 20 * np.sin(j / 5) + random.normal(0, 10, labels.shape)
        if is_wrong:
            labels = np.roll(labels, 5, axis=1)
            labels[::2] = np.roll(labels[::2], 9, axis=2)
        return LabelledVolume.of_slices(f"body{number}", picture.clip(0, 255).astype(np.uint8), labels)

    return make


@pytest.fixture(scope="session")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped weights with a layer before the last that adds to every mask: anything that is learned is a gain."""
    tensors = dict(read_weights(BUNDLED).tensors)
    adds = tensors["network.out.weight"].float()[:16].sum((0, 2, 3)).sign()
    tensors["network.norm4.bias"] = tensors["network.norm4.bias"] + adds
    path = tmp_path_factory.mktemp("spoilt") / "base.safetensors"
    save_weights(path, tensors, WeightsInfo("small", "0", "none", "none"))
    return path
