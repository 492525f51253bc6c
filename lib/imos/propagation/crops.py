"""Crops: the part of a slice that holds something, stored small.

A session keeps many slices of many objects: painted masks, every pass's probabilities, results to go back to. Each is
kept as the smallest rectangle that holds its values, 8 bits a pixel, compressed. Probabilities of a segmented object
are flat nearly everywhere, so a slice costs a few kilobytes whatever the size of the image.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FOREGROUND = 128
"""Smallest level that counts as object: the first above a probability of one half."""

_NOTHING = 4
"""Levels below are stored as 0: less than 1/64 of probability decides nothing, and would make rectangles large."""


@dataclass(frozen=True, slots=True)
class Crop:
    """Levels 0…255 in a rectangle of a slice, 0 outside.

    Attributes:
        top: Row of the rectangle's upper edge in the slice.
        left: Column of its left edge.
        height: Rows.
        width: Columns.
        area: Number of foreground pixels.
        packed: The compressed levels.
    """

    top: int
    left: int
    height: int
    width: int
    area: int
    packed: bytes

    @classmethod
    def of_levels(cls, levels: NDArray[np.uint8], top: int = 0, left: int = 0) -> Crop:
        """Store `(h, w)` levels that lie at `top`, `left` of a slice, without their empty margin."""
        rectangle = _rectangle(levels > 0)
        if rectangle is None:
            return cls(0, 0, 0, 0, 0, b"")
        part, (rows, columns) = levels[rectangle], rectangle
        area = int(np.count_nonzero(part >= FOREGROUND))
        # Level 1: these pictures are flat, higher levels cost five times as long for a tenth of the size.
        packed = zlib.compress(np.ascontiguousarray(part).tobytes(), 1)
        return cls(top + rows.start, left + columns.start, part.shape[0], part.shape[1], area, packed)

    @classmethod
    def of_mask(cls, mask: NDArray[np.bool_]) -> Crop:
        """Store a mask `(H, W)`, exactly."""
        rectangle = _rectangle(mask)
        if rectangle is None:
            return cls(0, 0, 0, 0, 0, b"")
        levels = mask[rectangle].astype(np.uint8) * np.uint8(255)
        return cls.of_levels(levels, rectangle[0].start, rectangle[1].start)

    @classmethod
    def of_probability(
        cls, probability: NDArray[np.float32], top: int, left: int, shape: tuple[int, int] | None = None
    ) -> Crop:
        """Store probabilities `(h, w)` in 8 bits; above one half becomes foreground, one half does not.

        Args:
            probability: In [0, 1].
            top: Row of its upper edge in the slice.
            left: Column of its left edge.
            shape: The slice's height and width; what hangs over its border is cut off.
        """
        if shape is not None:
            rows = slice(max(0, -top), max(0, shape[0] - top))
            columns = slice(max(0, -left), max(0, shape[1] - left))
            probability, top, left = probability[rows, columns], max(0, top), max(0, left)
        rectangle = _rectangle(probability >= _NOTHING / 256)
        if rectangle is None:
            return cls.of_levels(np.zeros((0, 0), np.uint8))
        part = np.nan_to_num(probability[rectangle])
        # Half-open steps (level - 1 … level] put exactly .5 below the threshold; what is not a number is background.
        levels = np.clip(np.ceil(part * np.float32(256)) - 1, 0, 255).astype(np.uint8)
        levels[levels < _NOTHING] = 0
        return cls.of_levels(levels, top + rectangle[0].start, left + rectangle[1].start)

    @property
    def is_empty(self) -> bool:
        """Whether there is no level above 0."""
        return self.height == 0

    @property
    def nbytes(self) -> int:
        """Bytes that the crop keeps, with what Python adds."""
        return len(self.packed) + 128

    @property
    def window(self) -> tuple[slice, slice]:
        """The rectangle as an index into the slice."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    def levels(self) -> NDArray[np.uint8]:
        """The levels `(height, width)`; read-only."""
        if self.is_empty:
            return np.zeros((0, 0), np.uint8)
        return np.frombuffer(zlib.decompress(self.packed), np.uint8).reshape(self.height, self.width)

    def foreground(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """The mask on a whole slice of `shape`."""
        mask = np.zeros(shape, bool)
        if not self.is_empty:
            mask[self.window] = self.levels() >= FOREGROUND
        return mask


def _rectangle(mask: NDArray[np.bool_]) -> tuple[slice, slice] | None:
    """The smallest rectangle that holds all of a mask; None when it is empty."""
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        return None
    columns = np.flatnonzero(mask.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
