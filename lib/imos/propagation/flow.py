"""Flow prior: dense optical flow carries the previous mask onto the next slice."""

from __future__ import annotations

import threading

import cv2
import numpy as np
from numpy.typing import NDArray

FINEST_SCALE = 0
"""Flow down to full resolution. The preset's half resolution costs .01 of J&F, and .04 on electron microscopy."""

PATCH_STRIDE, DESCENT_STEPS, REFINEMENT_STEPS = 4, 12, 2
"""Instead of the preset's 3, 25, 5: two thirds of the time. J&F is the same in volumes, where little moves, and .01
less in endoscopy, so that videos keep the preset's."""

_local = threading.local()


def gray(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`(H, W)` luminance of a gray or RGB picture."""
    return picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)


def backward_flow(current: NDArray[np.uint8], previous: NDArray[np.uint8], *, is_video: bool) -> NDArray[np.float32]:
    """Where each pixel of the current picture was in the previous one.

    DIS optical flow (Kroeger et al. 2016), medium preset; the fast preset costs .01 to .07 of J&F.

    Args:
        current: `(H, W)` uint8.
        previous: `(H, W)` uint8.
        is_video: Whether things may move far.

    Returns:
        `(H, W, 2)` displacement x, y in pixels.
    """
    kept: dict[str, cv2.DISOpticalFlow] = _local.__dict__  # the objects keep buffers: not to be shared by threads
    name = "video" if is_video else "volume"
    if name not in kept:
        dis = kept[name] = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        dis.setFinestScale(FINEST_SCALE)
        if not is_video:
            dis.setPatchStride(PATCH_STRIDE)
            dis.setGradientDescentIterations(DESCENT_STEPS)
            dis.setVariationalRefinementIterations(REFINEMENT_STEPS)
    flow: NDArray[np.float32] = kept[name].calc(current, previous, None)
    return flow


def warp(values: NDArray[np.float32], flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """Carry values of the previous picture along a backward flow.

    Args:
        values: `(H, W)` or `(H, W, C)` on the previous picture.
        flow: `(H, W, 2)` from `backward_flow`.

    Returns:
        The same shape, on the current picture; 0 where the flow comes from outside.
    """
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    warped: NDArray[np.float32] = cv2.remap(
        values, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )
    return warped
