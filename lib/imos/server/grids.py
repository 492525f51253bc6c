"""Grids: the index space that a client sees, and how it lies on the image's own.

A viewer orders slices by their position, a file stores them in any order. A client therefore speaks in the indices of
the label maps that it sends (its view grid), and nothing but this module knows the image's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imos.imaging import Image, ImageKind, label_map_on_grid
from imos.imaging.geometry import RAS_FROM_LPS

if TYPE_CHECKING:
    from collections.abc import Mapping

_TOLERANCE = 1e-2
"""Share of a voxel that two grids may differ by at their corners and still hold the same voxels."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Where voxels lie.

    Attributes:
        size: Voxels along each axis.
        affine: `(4, 4)` float64, voxel index to mm in RAS+.
    """

    size: tuple[int, int, int]
    affine: NDArray[np.float64]

    @classmethod
    def of_image(cls, image: Image) -> Grid:
        """An image's own grid."""
        return cls(image.shape, image.affine)

    @property
    def spacing(self) -> list[float]:
        """Mm between neighbouring voxels along each axis."""
        return [float(value) for value in np.linalg.norm(self.affine[:3, :3], axis=0)]

    @property
    def origin(self) -> list[float]:
        """Centre of voxel (0, 0, 0), mm in LPS."""
        return [float(value) for value in (RAS_FROM_LPS @ self.affine)[:3, 3]]

    @property
    def directions(self) -> list[list[float]]:
        """For each axis the unit vector along it, in LPS."""
        vectors = (RAS_FROM_LPS @ self.affine)[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        return [[float(value) for value in vectors[:, axis]] for axis in range(3)]


@dataclass(frozen=True, slots=True)
class Turn:
    """A view grid that holds the image's voxels in another order.

    Attributes:
        order: For each view axis the image axis that it is.
        flipped: For each view axis whether it runs the other way.
    """

    order: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]


@dataclass(frozen=True, eq=False)
class View:
    """One client's grid on one image.

    Attributes:
        grid: The client's grid.
        image: The image.
    """

    grid: Grid
    image: Image

    @cached_property
    def turn(self) -> Turn | None:
        """How the view's voxels are ordered; None where they are not the image's own voxels."""
        relation = np.linalg.inv(self.image.affine) @ self.grid.affine
        whole = np.rint(relation)
        turned = np.abs(whole[:3, :3])
        if not ((turned.sum(axis=0) == 1).all() and (turned.sum(axis=1) == 1).all()):
            return None
        far = np.array(self.grid.size, dtype=np.float64) - 1
        if (np.abs(relation - whole) @ np.array([*far, 1.0]))[:3].max() >= _TOLERANCE:
            return None
        order = [int(np.argmax(turned[:, axis])) for axis in range(3)]
        flipped = [bool(whole[order[axis], axis] < 0) for axis in range(3)]
        for axis in range(3):
            size = self.image.shape[order[axis]]
            start = size - 1 if flipped[axis] else 0
            if self.grid.size[axis] != size or whole[order[axis], 3] != start:
                return None
        return Turn((order[0], order[1], order[2]), (flipped[0], flipped[1], flipped[2]))

    def to_image(self, labels: NDArray[Any]) -> NDArray[np.uint16]:
        """A label map of the view on the image's grid.

        Args:
            labels: Shape of the view grid; 0 where nothing is.

        Raises:
            UserError: All that is painted lies outside the image.
        """
        turn = self.turn
        if turn is not None:
            moved = np.flip(labels, [axis for axis in range(3) if turn.flipped[axis]])
            return np.ascontiguousarray(moved.transpose(np.argsort(turn.order))).astype(np.uint16, copy=False)
        if not labels.any():
            return np.zeros(self.image.shape, np.uint16)
        return label_map_on_grid(labels, self.grid.affine, self.image, "The painted label map")

    def from_image(self, labels: NDArray[Any]) -> NDArray[Any]:
        """A label map of the image on the view grid."""
        turn = self.turn
        if turn is not None:
            return np.flip(labels.transpose(turn.order), [axis for axis in range(3) if turn.flipped[axis]])
        if not labels.any():
            return np.zeros(self.grid.size, labels.dtype)
        voxels = np.broadcast_to(np.uint8(0), self.grid.size)
        seen = Image(voxels=voxels, affine=self.grid.affine, kind=ImageKind.VOLUME, name="the view")
        return label_map_on_grid(labels, self.image.affine, seen, "The result")

    def axis_from_image(self, axis: int) -> int:
        """The view axis that an image axis is; the same number where the grids have nothing in common."""
        return axis if self.turn is None else self.turn.order.index(axis)

    def axis_to_image(self, axis: int) -> int:
        """The image axis that a view axis is."""
        return axis if self.turn is None else self.turn.order[axis]

    def index_to_image(self, axis: int, index: int) -> int:
        """Slice index along the image axis for one along the view axis `axis`."""
        flipped = self.turn is not None and self.turn.flipped[axis]
        return self.grid.size[axis] - 1 - index if flipped else index

    def index_from_image(self, axis: int, index: int) -> int:
        """Slice index along the view's axis for one along the image axis `axis`."""
        return self.index_to_image(self.axis_from_image(axis), index)

    def point_to_image(self, point: tuple[int, int, int]) -> tuple[int, int, int]:
        """Voxel of the image for one of the view; the nearest where the grids do not hold the same voxels."""
        if self.turn is None:
            there = np.linalg.inv(self.image.affine) @ self.grid.affine @ np.array([*point, 1.0])
            i, j, k = (round(float(value)) for value in there[:3])
            return i, j, k
        found = [0, 0, 0]
        for axis, index in enumerate(point):
            found[self.turn.order[axis]] = self.index_to_image(axis, index)
        return found[0], found[1], found[2]

    def plane_from_image(self, axis: int, plane: NDArray[Any]) -> NDArray[Any]:
        """A slice across an image axis, as the view has it: its two axes in the view's order and direction.

        Args:
            axis: Image axis across which the slice lies.
            plane: `(H, W)`, the two other image axes in order.
        """
        turn = self.turn
        if turn is None:
            return plane
        rest = [other for other in range(3) if other != self.axis_from_image(axis)]
        if turn.order[rest[0]] > turn.order[rest[1]]:
            plane = plane.T
        return np.flip(plane, [number for number, other in enumerate(rest) if turn.flipped[other]])


def slices_from_image(view: View, axis: int, values: Mapping[int, float]) -> dict[int, float]:
    """Values by slice along an image axis, by slice of the view."""
    return dict(sorted((view.index_from_image(axis, index), value) for index, value in values.items()))
