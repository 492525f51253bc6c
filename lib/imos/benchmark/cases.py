"""Volumes to time with: bright bodies that wander and breathe in noise and haze, on every slice from first to last."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray

from imos.imaging import Image, ImageKind


@dataclass(frozen=True, slots=True)
class Case:
    """A volume and what is in it.

    Attributes:
        voxels: `(D, S, S)` uint16.
        labels: `(D, S, S)` uint8, objects 1 … K.
    """

    voxels: NDArray[np.uint16]
    labels: NDArray[np.uint8]

    @property
    def image(self) -> Image:
        """The volume, slices along its last axis, 1 × 1 × 2 mm."""
        return Image(np.moveaxis(self.voxels, 0, 2), np.diag([1.0, 1.0, 2.0, 1.0]), ImageKind.VOLUME, "benchmark")


def make_case(side: int, slices: int, objects: int) -> Case:
    """The same volume for the same numbers.

    Args:
        side: Pixels of a slice's sides.
        slices: How many.
        objects: How many; each fills about a quarter of its share of the slice.
    """
    noise = np.random.default_rng(0)
    cells = ceil(sqrt(objects))
    cell = side / cells
    y, x = np.mgrid[:side, :side].astype(np.float32)
    textures = noise.normal(0, 60, (8, side, side)).astype(np.float32)  # drawn anew for each slice it takes minutes
    voxels = np.empty((slices, side, side), np.uint16)
    labels = np.zeros((slices, side, side), np.uint8)
    for index in range(slices):
        turn = index / 20
        for number in range(objects):
            row = (number // cells + 0.5 + 0.15 * np.sin(turn + number)) * cell
            column = (number % cells + 0.5 + 0.15 * np.cos(0.7 * turn + number)) * cell
            height = (0.23 + 0.03 * np.sin(1.3 * turn + number)) * cell
            width = (0.26 + 0.03 * np.cos(turn + number)) * cell
            box = _box(row, column, 0.35 * cell, side)
            inside = ((y[box] - row) / height) ** 2 + ((x[box] - column) / width) ** 2 < 1
            labels[index][box][inside] = number + 1
        haze = 80 * np.sin(x / (0.09 * side) + turn / 3) * np.cos(y / (0.12 * side))
        shift = tuple(int(offset) for offset in noise.integers(0, side, 2))
        texture = np.roll(textures[index % len(textures)], shift, (0, 1))
        voxels[index] = np.maximum(400 + 250 * (labels[index] > 0) + haze + texture, 0)
    return Case(voxels, labels)


def _box(row: float, column: float, reach: float, side: int) -> tuple[slice, slice]:
    rows = slice(max(0, int(row - reach)), min(side, int(row + reach) + 1))
    return rows, slice(max(0, int(column - reach)), min(side, int(column + reach) + 1))
