"""Region of interest: a square window that follows the object and is resampled to a fixed grid.

One scale for an oesophagus and a liver, five to ten times less arithmetic than on the whole slice, and better flow
(design, section 5). The window moves by whole grid pixels while its scale stays, so that following costs no blur.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

GRID = 160
"""Grid pixels a side; a multiple of 16."""

MARGIN = 2.2
"""Side of the window over the size of the object."""

SMALLEST_SIDE = 32.0
"""Least side of the window in slice pixels: below it there is nothing but interpolation."""

RESCALE = 1.25
"""The scale changes only when the object has grown or shrunk by this factor."""

Pixels = TypeVar("Pixels", NDArray[np.uint8], NDArray[np.float32])


@dataclass(frozen=True, slots=True)
class Region:
    """A square window of a slice.

    Attributes:
        row: Row of the window's upper edge in slice pixels (may be negative).
        column: Column of its left edge.
        side: Its side in slice pixels.
        grid: Grid pixels a side.
    """

    row: float
    column: float
    side: float
    grid: int = GRID

    @property
    def scale(self) -> float:
        """Slice pixels a grid pixel."""
        return self.side / self.grid

    def crop(self, plane: Pixels, *, replicate: bool = True) -> NDArray[np.float32]:
        """Resample a slice onto the grid.

        Args:
            plane: `(H, W)` or `(H, W, 3)`, uint8 or float32.
            replicate: Continue the slice's edge outside; else 0.

        Returns:
            `(grid, grid)` or `(grid, grid, 3)` of the same type. Bilinear; blurred first when the grid is coarser.
        """
        scale = self.scale
        border = cv2.BORDER_REPLICATE if replicate else cv2.BORDER_CONSTANT
        sigma = 0.5 * float(np.sqrt(max(0.0, scale * scale - 1.0)))
        top, left, plane = self._near(plane, int(np.ceil(4 * sigma)) + 2)
        if sigma > 0:  # blur first: bilinear sampling of a coarser grid would alias
            plane = cv2.GaussianBlur(plane, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        x, y = (place + 0.5 * scale - 0.5 for place in (self.column - left, self.row - top))
        matrix = np.array([[scale, 0, x], [0, scale, y]], np.float64)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cropped: NDArray[np.float32] = cv2.warpAffine(
            plane, matrix, (self.grid, self.grid), flags=flags, borderMode=border
        )
        return cropped

    def picture(self, plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A slice on the grid, as it is looked at: `(grid, grid)` or `(grid, grid, 3)` uint8."""
        return self.crop(plane).astype(np.uint8, copy=False)

    def moved(self, down: float, right: float) -> Region:
        """The same window elsewhere, by so many slice pixels."""
        return replace(self, row=self.row + down, column=self.column + right)

    def _near(self, plane: Pixels, rim: int) -> tuple[int, int, Pixels]:
        """The part of a slice that the window sees, with a rim, and where it begins."""
        places = []
        for start, length in ((self.row, plane.shape[0]), (self.column, plane.shape[1])):
            first = min(max(0, int(np.floor(start)) - rim), length - 1)
            after = max(min(length, int(np.ceil(start + self.side)) + rim), first + 1)
            places.append(slice(first, after))
        rows, columns = places
        return rows.start, columns.start, plane[rows, columns]

    def paste(self, values: NDArray[np.float32], shape: tuple[int, int]) -> tuple[int, int, NDArray[np.float32]]:
        """Resample a grid back to slice pixels.

        Args:
            values: `(grid, grid)`.
            shape: Height and width of the slice.

        Returns:
            Row and column of the upper left corner in the slice, and `(h, w)` values of the part inside the slice.
        """
        top, left = max(0, int(np.floor(self.row))), max(0, int(np.floor(self.column)))
        bottom = min(shape[0], int(np.ceil(self.row + self.side)))
        right = min(shape[1], int(np.ceil(self.column + self.side)))
        if bottom <= top or right <= left:
            return 0, 0, np.zeros((0, 0), np.float32)
        scale = 1.0 / self.scale
        matrix = np.array(
            [
                [scale, 0, (left - self.column + 0.5) * scale - 0.5],
                [0, scale, (top - self.row + 0.5) * scale - 0.5],
            ],
            np.float64,
        )
        if scale > 1.0:
            values = cv2.GaussianBlur(values, (0, 0), 0.5 * float(np.sqrt(scale * scale - 1.0)))
        size = (right - left, bottom - top)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return top, left, cv2.warpAffine(values, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)

    def inside(self, shape: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns of the grid whose centres lie in a slice of this height and width; may be empty."""
        ranges = []
        for start, length in ((self.row, shape[0]), (self.column, shape[1])):
            first = max(0, int(np.ceil(-start / self.scale - 0.5)))
            after = min(self.grid, int(np.ceil((length - start) / self.scale - 0.5)))
            ranges.append(slice(min(first, self.grid), max(after, first, 0)))
        return ranges[0], ranges[1]

    def unknown(self, shape: tuple[int, int], others: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
        """Grid pixels that tell nothing of an object and its surroundings: outside the slice, or on its other parts.

        Args:
            shape: The slice's.
            others: `(H, W)` other parts of the object.
        """
        unknown = np.ones((self.grid, self.grid), bool)
        unknown[self.inside(shape)] = False
        if others is not None and others.any():
            unknown |= self.crop(others.astype(np.float32)) > 0.1
        return unknown

    def beyond(self, values: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
        """Values of this grid with those at the slice's edge continued outside the slice.

        An object that the field of view cuts off goes on outside it: what moves in from there is object.
        """
        rows, columns = self.inside(shape)
        if (rows.start, columns.start, rows.stop, columns.stop) == (0, 0, self.grid, self.grid):
            return values
        part = values[rows, columns]
        if not part.size:
            return np.zeros_like(values)
        pads = ((rows.start, self.grid - rows.stop), (columns.start, self.grid - columns.stop))
        return np.pad(part, pads, mode="edge")

    def resample(self, values: NDArray[np.float32], other: Region) -> NDArray[np.float32]:
        """Values on this grid, seen on another region's grid; 0 outside."""
        if other == self:
            return values
        ratio = other.scale / self.scale
        shift_x = (other.column - self.column) / self.scale + 0.5 * ratio - 0.5
        shift_y = (other.row - self.row) / self.scale + 0.5 * ratio - 0.5
        matrix = np.array([[ratio, 0, shift_x], [0, ratio, shift_y]], np.float64)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        seen: NDArray[np.float32] = cv2.warpAffine(
            values, matrix, (other.grid, other.grid), flags=flags, borderMode=cv2.BORDER_CONSTANT
        )
        return seen

    def follow(self, mask: NDArray[np.bool_], shape: tuple[int, int]) -> Region:
        """The window for the next slice.

        Args:
            mask: `(grid, grid)` the object on this grid; an empty one leaves the window where it is.
            shape: Height and width of the slice; what lies outside is not looked at.
        """
        rows, columns = self.inside(shape)
        box = _box(mask[rows, columns])
        if box is None:
            return self
        top, bottom, left, right = box
        top, bottom, left, right = top + rows.start, bottom + rows.start, left + columns.start, right + columns.start
        wanted = _side(max(bottom - top, right - left) * self.scale, shape)
        row = self.row + 0.5 * (top + bottom) * self.scale
        column = self.column + 0.5 * (left + right) * self.scale
        if wanted > self.side * RESCALE or wanted < self.side / RESCALE:
            return Region(row - 0.5 * wanted, column - 0.5 * wanted, wanted, self.grid)
        step = self.scale
        moved_rows = round((row - 0.5 * self.side - self.row) / step) * step
        moved_columns = round((column - 0.5 * self.side - self.column) / step) * step
        return Region(self.row + moved_rows, self.column + moved_columns, self.side, self.grid)


def region_around(mask: NDArray[np.bool_], grid: int = GRID) -> Region:
    """The window around a painted object.

    Args:
        mask: `(H, W)` with at least one pixel.
        grid: Grid pixels a side.
    """
    box = _box(mask)
    if box is None:
        msg = "an empty mask has no region"
        raise ValueError(msg)
    top, bottom, left, right = box
    side = _side(float(max(bottom - top, right - left)), (mask.shape[0], mask.shape[1]))
    return Region(0.5 * (top + bottom - side), 0.5 * (left + right - side), side, grid)


def _side(size: float, shape: tuple[int, int]) -> float:
    largest = max(SMALLEST_SIDE, 1.1 * max(shape))
    return float(min(max(MARGIN * size, SMALLEST_SIDE), largest))


def _box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return None
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
