"""Planes: which array axis one walks along when slices are painted in an anatomical plane.

Volumes are stored in any axis order, flipped or oblique. A plane is named by the anatomical axis it is perpendicular
to; the array axis that runs most nearly along that anatomical axis is the one to walk along.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np

from imos.errors import UserError
from imos.imaging.image import ImageKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from imos.imaging.image import Image


class Plane(StrEnum):
    """The plane in which slices are painted."""

    AUTO = "auto"
    AXIAL = "axial"
    CORONAL = "coronal"
    SAGITTAL = "sagittal"
    TIME = "time"


# World axis (RAS: 0 right-left, 1 front-back, 2 head-foot) that each plane is perpendicular to.
_WORLD_AXIS = {Plane.SAGITTAL: 0, Plane.CORONAL: 1, Plane.AXIAL: 2}


def plane_axis(image: Image, plane: Plane | str) -> int:
    """Array axis that one walks along from slice to slice of a plane.

    Args:
        image: The image whose array is walked.
        plane: An anatomical plane, `time`, or `auto` (a video: time; a volume: the axis of the largest spacing, that is
            the plane it was acquired in). Where prompts are at hand, `thin_axis` answers `auto` better.

    Returns:
        0, 1 or 2.

    Raises:
        UserError: An anatomical plane of a video, `time` of a volume, or a name that is no plane.
    """
    try:
        plane = Plane(plane)
    except ValueError as error:
        msg = f"There is no plane {str(plane)!r}. Use one of: {', '.join(Plane)}."
        raise UserError(msg) from error
    if image.kind is ImageKind.VIDEO:
        if plane in _WORLD_AXIS:
            msg = f"{image.name} is a video and has no {plane} plane. Use the plane 'time' or 'auto'."
            raise UserError(msg)
        return 2
    if plane is Plane.TIME:
        msg = f"{image.name} is a volume and has no time axis. Use axial, coronal, sagittal or auto."
        raise UserError(msg)
    if plane is Plane.AUTO:
        return _last_largest(image.spacing)
    return array_axes(image.affine)[_WORLD_AXIS[plane]]


def array_axes(affine: NDArray[np.float64]) -> tuple[int, int, int]:
    """Array axis that runs most nearly along each world axis.

    Args:
        affine: `(4, 4)`.

    Returns:
        For right-left, front-back and head-foot one array axis each; all three differ, however oblique the image is.
    """
    directions = np.abs(affine[:3, :3])
    directions = directions / np.maximum(np.linalg.norm(directions, axis=0), 1e-12)
    x, y, z = max(permutations(range(3)), key=lambda axes: float(directions[range(3), axes].sum()))
    return x, y, z


def thin_axis(labels: NDArray[Any], spacing: Sequence[float] | None = None) -> int:
    """Axis along which painted prompts are thin: the one the user painted slices across.

    Painted slices seldom touch, so a painted voxel has painted neighbours within its slice but few across slices. The
    axis with the shortest runs of painted voxels wins; ties go to the axis with the fewest painted slices, then to the
    largest spacing, then to the last axis.

    Args:
        labels: `(I, J, K)`, 0 where nothing is painted.
        spacing: mm along each axis; None takes all as equal.

    Returns:
        0, 1 or 2.

    Raises:
        UserError: Nothing is painted.
    """
    painted = labels != 0
    extents: list[slice] = []
    counts: list[int] = []
    for axis in range(3):
        used = painted.any(axis=tuple(other for other in range(3) if other != axis))
        indices = np.flatnonzero(used)
        if indices.size == 0:
            msg = "No voxel is painted. Paint at least one slice of one object."
            raise UserError(msg)
        counts.append(int(indices.size))
        extents.append(slice(int(indices[0]), int(indices[-1]) + 1))
    painted = painted[tuple(extents)]
    voxels = int(painted.sum())
    distances = tuple(spacing) if spacing is not None else (1.0, 1.0, 1.0)

    def thinness(axis: int) -> tuple[float, int, float, int]:
        along = np.moveaxis(painted, axis, 0)
        runs = int(along[0].sum()) + int((along[1:] & ~along[:-1]).sum())
        return voxels / runs, counts[axis], -float(distances[axis]), -axis

    return min(range(3), key=thinness)


def _last_largest(values: Sequence[float]) -> int:
    # 1 %: spacings that differ by rounding are equal.
    largest = max(values)
    return max(axis for axis, value in enumerate(values) if value >= 0.99 * largest)
