"""Slices of an image along one axis, as 8-bit pictures."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from imos.imaging.image import Image
from imos.imaging.windowing import Window, apply_window


class SliceSource(Protocol):
    """A sequence of 8-bit slices."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of a slice in pixels."""

    @property
    def count(self) -> int:
        """Number of slices."""

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Slice `index`: `(H, W)` gray or `(H, W, 3)` RGB."""


def plane_of(voxels: NDArray[Any], index: int, axis: int) -> NDArray[Any]:
    """One slice as a view: `np.take` would first copy a volume whole whose memory order is not C, as NIfTI's is not."""
    return voxels[tuple(index if other == axis else slice(None) for other in range(axis + 1))]


class VolumeSlices:
    """Slices of an `Image`, windowed one by one so that a big stack is never copied as a whole.

    Attributes:
        shape: Height and width in pixels: the two array axes other than `axis`, in order.
        count: Number of slices along `axis`.
    """

    def __init__(self, image: Image, axis: int, window: Window) -> None:
        self._voxels = image.voxels
        self._axis = axis
        self._window = window
        sizes = [size for number, size in enumerate(image.shape) if number != axis]
        self.shape = (sizes[0], sizes[1])
        self.count = image.shape[axis]

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Slice `index`: `(H, W)` gray or `(H, W, 3)` RGB, uint8."""
        plane = plane_of(self._voxels, index, self._axis)
        if plane.ndim == 3:
            return np.ascontiguousarray(plane, dtype=np.uint8)
        return np.ascontiguousarray(apply_window(plane, self._window))
