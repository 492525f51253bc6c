"""Random walks from the painted slices (Grady 2006), the method of Biomedisa.

Object and background of the painted slices are the seeds. A voxel belongs to the object when a random walker, which
avoids edges of the image, would from there more probably reach an object's seed first. A painted slice is seeds
throughout, so no walk passes it: every gap between painted slices is a problem of its own.

Walks are solved in a window around the painted object, reduced to `LARGEST_SIDE` pixels a side.
"""

from __future__ import annotations

import warnings

import cv2
import numpy as np
from numpy.typing import NDArray

from imos.errors import UserError
from imos.evaluation.baselines import Baseline, Carried

LARGEST_SIDE = 96
_LEAST_MARGIN = 8
_OBJECT, _BACKGROUND = 1, 2


def check_installed() -> None:
    """Make sure that scikit-image is there.

    Raises:
        UserError: It is not.
    """
    try:
        from skimage.segmentation import random_walker  # noqa: F401
    except ImportError as error:
        raise UserError(
            "--compare walker needs scikit-image: pip install scikit-image, or name other methods in --compare."
        ) from error


def between(
    slices: NDArray[np.uint8], lower: NDArray[np.bool_] | None, upper: NDArray[np.bool_] | None
) -> NDArray[np.float32]:
    """Probability of the object in a gap with a painted slice on one side or on both.

    Args:
        slices: `(N + 2, H, W)` gray: the gap and the slice before and behind it; those that are not painted are left
            out (`N + 1`).
        lower: `(H, W)` painted on the slice before the gap; None where none is.
        upper: `(H, W)` painted behind it.

    Returns:
        `(N, H, W)` in [0, 1]; 0 outside the window.
    """
    painted = [mask for mask in (lower, upper) if mask is not None]
    whole = np.zeros((len(slices) - len(painted), *slices.shape[1:]), np.float32)
    seeds = np.logical_or.reduce(painted)
    if not seeds.any() or not len(whole):
        return whole
    window = _window(seeds)
    part = slices[(slice(None), *window)]
    height, width = part.shape[1:]
    shrink = max(1.0, max(height, width) / LARGEST_SIDE)
    size = max(1, round(width / shrink)), max(1, round(height / shrink))
    image = np.stack([cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in part]) / np.float32(255)
    labels = np.zeros(image.shape, np.uint8)
    for place, mask in ((0, lower), (-1, upper)):
        if mask is not None:
            share = cv2.resize(mask[window].astype(np.float32), size, interpolation=cv2.INTER_AREA)
            labels[place] = np.where(share >= min(0.5, share.max() or 0.5), _OBJECT, _BACKGROUND)
    found = _walk(image, labels)
    inside = found[lower is not None : len(found) - (upper is not None)]
    for index, plane in enumerate(inside):
        whole[(index, *window)] = cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR)
    return whole


def carry(slices: NDArray[np.uint8], mask: NDArray[np.bool_], start: int) -> Carried:
    """Carry a painted slice to both ends; arguments and yields as in `baselines.flow`."""
    for index, plane in enumerate(between(slices[start:], mask, None), start + 1):
        yield index, plane
    for index, plane in enumerate(between(slices[: start + 1], None, mask)):
        yield index, plane


WALKER = Baseline(carry, later_wins=False)


def _window(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The box of a mask, with half its larger side around: objects move and grow."""
    inside = [np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0)]
    margin = max(_LEAST_MARGIN, max(int(used[-1] - used[0]) + 1 for used in inside) // 2)
    rows, columns = (slice(max(int(used[0]) - margin, 0), int(used[-1]) + 1 + margin) for used in inside)
    return rows, columns


def _walk(image: NDArray[np.float32], labels: NDArray[np.uint8]) -> NDArray[np.float32]:
    from skimage.segmentation import random_walker

    if not (labels == _BACKGROUND).any():  # the object fills the slice
        return np.ones(image.shape, np.float32)
    if image.min() == image.max():  # edges are measured in standard deviations: there must be one
        image = image.copy()
        image.flat[0] += 1  # the window's corner, far from the object
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about probabilities that are beyond [0, 1] by rounding
        found = random_walker(image, labels, mode="cg_j", tol=1e-3, return_full_prob=True)
    probability: NDArray[np.float32] = np.clip(found[0], 0, 1).astype(np.float32)
    return probability
