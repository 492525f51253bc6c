"""Slices come out one by one, whatever the volume's memory order, and never at the cost of the whole volume."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from imos.imaging import Image, ImageKind, Window
from imos.propagation.slices import VolumeSlices


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_slice_is_what_lies_at_its_index(axis: int, order: str) -> None:
    voxels = np.asarray(np.random.default_rng(0).integers(0, 256, (5, 6, 7), np.uint8), order=order)
    slices = VolumeSlices(Image(voxels, np.eye(4), ImageKind.VOLUME, "noise"), axis, Window(0, 255))
    assert slices.count == voxels.shape[axis]
    assert slices.shape == tuple(size for number, size in enumerate(voxels.shape) if number != axis)
    for index in range(slices.count):
        assert np.array_equal(slices[index], np.take(voxels, index, axis))
        assert slices[index].flags.c_contiguous


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_slice_costs_a_slice_of_memory(axis: int, order: str) -> None:
    voxels = np.zeros((128, 128, 128), np.int16, order=order)
    slices = VolumeSlices(Image(voxels, np.eye(4), ImageKind.VOLUME, "zeros"), axis, Window(0, 1))
    tracemalloc.start()
    try:
        _ = slices[64]
        assert tracemalloc.get_traced_memory()[1] < voxels.nbytes / 4
    finally:
        tracemalloc.stop()
