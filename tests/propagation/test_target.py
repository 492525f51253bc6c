"""Target model: what it sees of a picture, and that it scores coarse maps where they are."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from imos.network.efficientnet import CHANNELS, Finer
from imos.propagation.target import STRIDE, PixelFeatures, TargetModel, pixel_features

SIDE = 160
HAND = 10
"""Features of a channel that are made by hand."""


def finer(seed: int, batch: int = 1) -> Finer:
    generator = torch.Generator().manual_seed(seed)
    return Finer(
        *(
            torch.rand(batch, channels, SIDE // stride, SIDE // stride, generator=generator)
            for channels, stride in zip(CHANNELS[:3], (2, 4, 8), strict=True)
        )
    )


def smooth(*shape: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(3).normal(0, 900, shape).astype(np.float32)
    return (128 + cv2.GaussianBlur(noise, (0, 0), 5)).clip(0, 255).astype(np.uint8)


def disc() -> NDArray[np.float32]:
    y, x = np.mgrid[:SIDE, :SIDE]
    return ((y - 70) ** 2 + (x - 90) ** 2 < 35**2).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 3])
def test_features_are_the_picture_its_blurs_and_deviations_then_the_encoders_maps(channels: int) -> None:
    picture = smooth(SIDE, SIDE) if channels == 1 else smooth(SIDE, SIDE, 3)
    maps = finer(0, batch=2)

    seen = pixel_features(picture, maps, 1)

    joined = seen.joined()
    assert seen.size == SIDE // STRIDE
    assert joined.shape == (HAND * channels + sum(CHANNELS[:3]), seen.size**2)
    assert torch.equal(joined[-sum(CHANNELS[:3]) :], maps.pixels()[1].flatten(1))
    values = picture.reshape(SIDE, SIDE, channels).astype(np.float32) / 255
    for sigma, first in ((1.0, 1), (2.0, 2), (4.0, 4)):
        blurred = cv2.GaussianBlur(values, (0, 0), sigma).reshape(values.shape)
        wanted = cv2.resize(blurred, (seen.size, seen.size), interpolation=cv2.INTER_AREA)
        found = joined[first * channels : (first + 1) * channels].reshape(channels, seen.size, seen.size)
        off = np.abs(found.permute(1, 2, 0).numpy() - wanted.reshape(seen.size, seen.size, channels))
        assert off.max() < 0.03, f"blur of {sigma} grid pixels, at the border, where the picture is mirrored"
        assert off[6:-6, 6:-6].max() < 0.003, f"blur of {sigma} grid pixels"


def test_scoring_coarse_maps_where_they_are_is_scoring_them_on_every_pixel() -> None:
    painted, later = (pixel_features(smooth(SIDE, SIDE), finer(seed)) for seed in (1, 2))
    target = TargetModel(painted.joined(), disc())

    found = target.score(later)

    wanted = target.score(PixelFeatures(later.joined(), ()))
    assert found.shape == (SIDE // STRIDE, SIDE // STRIDE)
    assert found.dtype == np.float32
    assert np.abs(wanted).max() > 1
    assert np.abs(found - wanted).max() < 0.01


def test_scores_are_limited() -> None:
    picture = (255 * disc()).astype(np.uint8)
    seen = pixel_features(picture, Finer(*(0 * level for level in finer(0))))
    target = TargetModel(seen.joined(), disc())
    assert np.abs(target.score(PixelFeatures(100 * seen.fine, seen.coarser))).max() <= 8
