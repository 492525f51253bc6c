"""Geometry: label maps from one voxel grid to another, by where the voxels lie in the patient.

Labels are categories, so resampling is nearest-neighbour. Three things are made sure of beyond that: grids that differ
only by rounding are equal; grids that differ only by axis order, flips and whole voxels are moved exactly; and a
painted slice thinner than the image's slices never falls between two of them.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from imos.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from imos.imaging.image import Image

# Affines are stored as float32 and pass through quaternions and text: a grid is off by less than this share of a voxel
# at its far corner if only rounding separates it from another.
_TOLERANCE = 1e-2
_MAX_LABEL = 65535
_SLAB_VOXELS = 4_000_000  # voxels resampled at a time: bounds the memory of the coordinates

RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK, NRRD and DICOM count x to the left and y to the back


def check_affine(affine: NDArray[Any], name: str) -> NDArray[np.float64]:
    """Affine as float64.

    Raises:
        UserError: It is not finite or flattens the volume.
    """
    affine = np.asarray(affine, dtype=np.float64)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not (spacing > 0).all() or abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-3:
        msg = f"{name} has no usable orientation and spacing in its header. Export it again from the scanner or viewer."
        raise UserError(msg)
    return affine


def is_same_grid(
    shape: tuple[int, ...], affine: NDArray[np.float64], other_shape: tuple[int, ...], other_affine: NDArray[np.float64]
) -> bool:
    """Whether two grids hold the same voxels, up to rounding of their affines."""
    if tuple(shape) != tuple(other_shape):
        return False
    relation = np.linalg.inv(other_affine) @ affine
    return _largest_shift(relation - np.eye(4), shape) < _TOLERANCE


def check_labels(labels: NDArray[Any], name: str) -> NDArray[np.uint16]:
    """Label values as uint16.

    Args:
        labels: Any shape; whole numbers in any type.
        name: For messages.

    Raises:
        UserError: A value is no whole number, negative or above 65535.
    """
    labels = np.asarray(labels)
    if labels.dtype == np.uint16:
        return labels
    if labels.dtype == np.bool_ or labels.dtype == np.uint8:
        return labels.astype(np.uint16)
    if labels.dtype.kind not in "iuf":
        msg = f"{name} is no label map: its voxels are {labels.dtype}. Save it with one whole number a voxel."
        raise UserError(msg)
    if labels.size == 0:
        return labels.astype(np.uint16)
    if labels.dtype.kind == "f":
        whole = np.rint(labels)
        # A slope in the header leaves rounding of this size.
        wrong = ~(np.abs(labels - whole) <= 1e-3)
        if wrong.any():
            value = labels[wrong].flat[0]
            msg = f"{name} is no label map: it holds the value {value:g}. Save it with one whole number a voxel."
            raise UserError(msg)
        labels = whole
    low, high = float(labels.min()), float(labels.max())
    if low < 0:
        msg = f"{name} holds the negative label {low:.0f}. Labels are 1 to {_MAX_LABEL}; 0 is background."
        raise UserError(msg)
    if high > _MAX_LABEL:
        msg = f"{name} holds the label {high:.0f}. Labels go up to {_MAX_LABEL}: renumber them."
        raise UserError(msg)
    return labels.astype(np.uint16)


def label_map_on_grid(
    labels: NDArray[Any],
    affine: NDArray[np.float64],
    image: Image,
    name: str = "The label map",
    *,
    may_be_empty: bool = False,
) -> NDArray[np.uint16]:
    """A label map on the image's grid.

    Args:
        labels: `(I', J', K')` whole numbers 0…65535.
        affine: `(4, 4)`, index of `labels` to mm in RAS+.
        image: The image whose grid is wanted.
        name: What to call the label map in messages.
        may_be_empty: Whether a label map without an object is one.

    Returns:
        `(I, J, K)`. Never shares memory with an image, but may be `labels` itself where nothing had to move.

    Raises:
        UserError: Values are no labels, nothing is painted, or all that is painted lies outside the image.
    """
    labels = check_labels(labels, name)
    if labels.ndim != 3:
        msg = f"{name} has {labels.ndim} dimensions. A label map has one label a voxel in three dimensions."
        raise UserError(msg)
    affine = check_affine(affine, name)
    if not labels.any():
        if may_be_empty:
            return np.zeros(image.shape, np.uint16)
        msg = f"{name} has no painted voxel. Paint at least one slice of one object."
        raise UserError(msg)
    if is_same_grid(labels.shape, affine, image.shape, image.affine):
        return labels
    relation = np.linalg.inv(image.affine) @ affine  # index of `labels` to index of the image
    moved = _moved_exactly(labels, relation, image.shape)
    if moved is None:
        moved = _resampled(labels, relation, image.shape)
    if not moved.any():
        distance = _distance_outside(labels, relation, image)
        away = f"{distance:.0f}" if distance >= 1 else f"{distance:.2g}"
        msg = (
            f"{name} lies outside {image.name}: its nearest painted voxel is {away} mm away."
            " Paint on this image, or check that both files have the same orientation and origin."
        )
        raise UserError(msg)
    return moved


def _largest_shift(matrix: NDArray[np.float64], shape: tuple[int, ...]) -> float:
    """Largest coordinate that an affine map takes a corner of a grid to, in voxels."""
    corners = np.array([[*corner, 1.0] for corner in product(*((0, size - 1) for size in shape))])
    return float(np.abs(corners @ matrix[:3].T).max())


def _moved_exactly(
    labels: NDArray[np.uint16], relation: NDArray[np.float64], shape: tuple[int, int, int]
) -> NDArray[np.uint16] | None:
    """Labels moved by axis order, flips and whole voxels alone, or None where that is not what separates the grids."""
    rounded = np.rint(relation)
    turn = np.abs(rounded[:3, :3])
    if not ((turn.sum(axis=0) == 1).all() and (turn.sum(axis=1) == 1).all() and (turn <= 1).all()):
        return None
    if _largest_shift(relation - rounded, labels.shape) >= _TOLERANCE:
        return None
    order = [int(np.argmax(turn[axis])) for axis in range(3)]  # the source axis that becomes each target axis
    turned = labels.transpose(order)
    result = np.zeros(shape, dtype=np.uint16)
    target: list[slice] = []
    source: list[slice] = []
    for axis in range(3):
        start = int(rounded[axis, 3])
        if rounded[axis, order[axis]] < 0:
            turned = np.flip(turned, axis)
            start -= turned.shape[axis] - 1
        low, high = max(start, 0), min(start + turned.shape[axis], shape[axis])
        if low >= high:
            return result
        target.append(slice(low, high))
        source.append(slice(low - start, high - start))
    result[tuple(target)] = turned[tuple(source)]
    return result


def _resampled(
    labels: NDArray[np.uint16], relation: NDArray[np.float64], shape: tuple[int, int, int]
) -> NDArray[np.uint16]:
    """Nearest neighbours, and then every painted part that fell through the image's grid."""
    result = np.zeros(shape, dtype=np.uint16)
    box = _painted_box(labels)
    part = labels[box]
    origin = np.array([side.start for side in box], dtype=np.float64)
    low, high = _reached_box(origin.tolist(), box, relation, result)
    if (low >= high).any():
        return result
    back = np.linalg.inv(relation)
    i, j = np.arange(low[0], high[0], dtype=np.float64), np.arange(low[1], high[1], dtype=np.float64)
    depth = max(1, _SLAB_VOXELS // (i.size * j.size))
    for start in range(int(low[2]), int(high[2]), depth):
        stop = min(start + depth, int(high[2]))
        k = np.arange(start, stop, dtype=np.float64)
        inside: NDArray[np.bool_] | None = None
        index: list[NDArray[np.intp]] = []
        for axis in range(3):
            along = back[axis, 0] * i[:, None, None] + back[axis, 1] * j[:, None] + (back[axis, 2] * k + back[axis, 3])
            along -= origin[axis]
            # A hair towards the lower neighbour: centres exactly between two voxels must not depend on rounding.
            nearest = np.ceil(along - 0.5 - 1e-6).astype(np.intp)
            fits = (nearest >= 0) & (nearest < part.shape[axis])
            inside = fits if inside is None else inside & fits
            index.append(np.clip(nearest, 0, part.shape[axis] - 1))
        values = part[index[0], index[1], index[2]]
        values[~inside] = 0  # type: ignore[operator]
        result[low[0] : high[0], low[1] : high[1], start:stop] = values
    _restore_lost_parts(result, part, origin, relation)
    return result


def _restore_lost_parts(
    result: NDArray[np.uint16], part: NDArray[np.uint16], origin: NDArray[np.float64], relation: NDArray[np.float64]
) -> None:
    """Put every connected painted part that kept less than half its volume where its voxels lie.

    Looking up each image voxel misses what is thinner than the image's slices; so those parts are carried over voxel by
    voxel.
    """
    from scipy import ndimage

    volume_ratio = abs(float(np.linalg.det(relation[:3, :3])))  # size of a label voxel in image voxels
    if volume_ratio > 0.999 and (np.linalg.norm(relation[:3, :3], axis=0) > 0.999).all():
        return  # label voxels are at least as large as the image's: each is met
    neighbours = np.ones((3, 3, 3), dtype=bool)
    for label, whole in enumerate(ndimage.find_objects(part), start=1):
        if whole is None:
            continue
        parts, count = ndimage.label(part[whole] == label, structure=neighbours)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        corner = origin + [side.start for side in whole]
        for number, box in enumerate(ndimage.find_objects(parts), start=1):
            low, high = _reached_box(
                [corner[axis] + side.start for axis, side in enumerate(box)], box, relation, result
            )
            around = result[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
            kept = int((around == label).sum())
            if kept > 0 and kept >= 0.5 * sizes[number] * volume_ratio:
                continue
            voxels = np.argwhere(parts[box] == number) + [side.start for side in box] + corner
            target = np.rint(voxels @ relation[:3, :3].T + relation[:3, 3]).astype(np.intp)
            target = target[((target >= 0) & (target < result.shape)).all(axis=1)]
            target = target[result[tuple(target.T)] == 0]
            result[tuple(target.T)] = label


def _reached_box(
    start: Sequence[float], box: tuple[slice, ...], relation: NDArray[np.float64], target: NDArray[Any]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and last (exclusive) indices of the target that a box of source voxels reaches, with one voxel to spare.

    Args:
        start: Source index of the box's first voxel.
        box: Its sides; only their lengths count.
        relation: `(4, 4)`, source index to target index.
        target: `(I, J, K)`.
    """
    lengths = np.array([side.stop - side.start for side in box])
    corners = np.array(start) - 0.5 + np.array(list(product((0, 1), repeat=3))) * lengths
    reached = corners @ relation[:3, :3].T + relation[:3, 3]
    low = np.clip(np.floor(reached.min(axis=0)), 0, target.shape).astype(np.intp)
    high = np.clip(np.ceil(reached.max(axis=0)) + 1, 0, target.shape).astype(np.intp)
    return low, high


def _painted_box(labels: NDArray[np.uint16]) -> tuple[slice, slice, slice]:
    sides: list[slice] = []
    for axis in range(3):
        used = np.flatnonzero(labels.any(axis=tuple(other for other in range(3) if other != axis)))
        sides.append(slice(int(used[0]), int(used[-1]) + 1))
    return sides[0], sides[1], sides[2]


def _distance_outside(labels: NDArray[np.uint16], relation: NDArray[np.float64], image: Image) -> float:
    """Mm from the image's edge to the nearest painted voxel centre."""
    painted = np.argwhere(labels)
    painted = painted[:: max(1, len(painted) // 200_000)]
    reached = painted @ relation[:3, :3].T + relation[:3, 3]
    outside = reached - np.clip(reached, -0.5, np.array(image.shape) - 0.5)
    return float(np.linalg.norm(outside @ image.affine[:3, :3].T, axis=1).min())
