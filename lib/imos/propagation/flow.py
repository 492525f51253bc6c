"""Flow prior: dense optical flow carries the previous mask onto the next slice."""

from __future__ import annotations

import threading
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

FINEST_SCALE = 0
"""Flow down to full resolution. The preset's half resolution costs .01 of J&F, and .04 on electron microscopy."""

_local = threading.local()


def gray(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`(H, W)` luminance of a gray or RGB picture."""
    return picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)


def backward_flow(current: NDArray[np.uint8], previous: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Where each pixel of the current picture was in the previous one.

    DIS optical flow (Kroeger et al. 2016), medium preset; the fast preset costs .01 to .07 of J&F.

    Args:
        current: `(H, W)` uint8.
        previous: `(H, W)` uint8.

    Returns:
        `(H, W, 2)` displacement x, y in pixels.
    """
    if not hasattr(_local, "dis"):  # the object keeps buffers and is not safe to share between threads
        _local.dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        _local.dis.setFinestScale(FINEST_SCALE)
    flow: NDArray[np.float32] = _local.dis.calc(current, previous, None)
    return flow


def warp(values: NDArray[np.float32], flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """Carry values of the previous picture along a backward flow.

    Args:
        values: `(H, W)` or `(H, W, C)` on the previous picture.
        flow: `(H, W, 2)` from `backward_flow`.

    Returns:
        The same shape, on the current picture; 0 where the flow comes from outside.
    """
    places = _grid(*flow.shape[:2])
    warped: NDArray[np.float32] = cv2.remap(
        values, places + flow, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )
    return warped


@lru_cache(maxsize=8)
def _grid(height: int, width: int) -> NDArray[np.float32]:
    """`(H, W, 2)` x and y of every pixel."""
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    grid = np.dstack([x, y])
    grid.flags.writeable = False  # shared by all who ask
    return grid
