"""F: agreement of two outlines within a tolerance, as DAVIS defines it.

The boundary map is one pixel wide and shifted half a pixel to the origin: a pixel belongs to it when it differs from
its right, lower or lower-right neighbour. Precision and recall are counted against the other boundary, dilated by a
disk.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, hypot

import cv2
import numpy as np
from numpy.typing import NDArray

TOLERANCE = 0.008
"""Share of the image's diagonal that two outlines may lie apart."""


@lru_cache(maxsize=32)
def _disk(radius: int) -> NDArray[np.uint8]:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disk: NDArray[np.uint8] = (x * x + y * y <= radius * radius).astype(np.uint8)
    return disk


def boundary_map(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Boundary pixels of a mask.

    Args:
        mask: `(H, W)`.

    Returns:
        `(H, W)`; the last row compares only with the right neighbour, the last column only with the lower one.
    """
    edge = np.zeros_like(mask)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1, :] |= mask[:-1, :] != mask[1:, :]
    edge[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    edge[-1, -1] = False
    return edge


def boundary_f(predicted: NDArray[np.bool_], true: NDArray[np.bool_], tolerance: float = TOLERANCE) -> float:
    """F = 2PR / (P + R) of two outlines.

    Args:
        predicted: `(H, W)`.
        true: `(H, W)`.
        tolerance: Share of the diagonal; a value of 1 or more is a number of pixels.

    Returns:
        A value in [0, 1]; 1 when neither mask has an outline, 0 when only one has.
    """
    height, width = true.shape
    radius = int(tolerance) if tolerance >= 1 else ceil(tolerance * hypot(height, width))
    predicted_edge, true_edge = boundary_map(predicted), boundary_map(true)
    predicted_count, true_count = int(predicted_edge.sum()), int(true_edge.sum())
    if not predicted_count and not true_count:
        return 1.0
    if not predicted_count or not true_count:
        return 0.0
    disk = _disk(radius)
    # outside the image counts as nothing: a constant border of 0, which is what dilation ignores
    near_true = cv2.dilate(true_edge.astype(np.uint8), disk, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    near_predicted = cv2.dilate(predicted_edge.astype(np.uint8), disk, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    precision = int(near_true[predicted_edge].sum()) / predicted_count
    recall = int(near_predicted[true_edge].sum()) / true_count
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
