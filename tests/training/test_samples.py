from __future__ import annotations

import numpy as np
import pytest

from imos.training.samples import end_at_once


@pytest.mark.parametrize("seed", range(12))
def test_an_early_end_takes_the_object_out_of_masks_and_pictures(seed: int) -> None:
    rows, columns = np.ogrid[:64, :64]
    disc = (rows - 32) ** 2 + (columns - 30) ** 2 < 14**2
    noise = np.random.default_rng(seed).normal(0, 4, (5, 64, 64))
    pictures = (np.where(disc, 200, 60)[None] + noise).clip(0, 255).astype(np.uint8)
    masks = np.repeat(disc[None].astype(np.uint8), 5, 0)
    kept = pictures.copy(), masks.copy()

    first = 1 + seed % 4
    ended, empty = end_at_once(pictures, masks, first, np.random.default_rng(seed))

    assert empty.any((1, 2)).tolist() == [True] * first + [False] * (5 - first)
    assert np.array_equal(ended[:first], kept[0][:first])
    assert (ended[first:, disc].mean(1) < 100).all()  # 200 inside before, 60 around
    assert np.array_equal(pictures, kept[0])
    assert np.array_equal(masks, kept[1])
