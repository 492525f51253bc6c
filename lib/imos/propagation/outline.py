"""Local models: what the object looks like along each part of its outline.

A liver borders on lung above and on kidney below; one regression for all of it is a compromise. Beside it, one for each
of sixteen places on the outline is fitted to the pixels near that place and pulled towards the one for all (the idea
of the local classifiers of Bai et al., "Video SnapCut", 2009). Places are said from the object's middle in units of
its height and width, so that they go along when it moves, grows or shrinks.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imos.propagation.logistic import PixelSamples, fit_logistic

PLACES = 16
"""On the outline, as far from each other as they can be."""

REACH = 0.18
"""Standard deviation of a place's neighbourhood, in sizes of the object."""

PULL = 120.0
"""Towards the model for all of the object; a place's pixels weigh 400."""

WHOLE = 0.1
"""Say of the model for all of the object, where a pixel in the middle of a place has 1: far outside it is alone."""

LEAST = 0.01
"""What is farther away (three standard deviations) is not fitted to."""

_LEAST_SIZE = 8
"""Grid pixels: what is smaller has no sides."""


class LocalModels:
    """One regression for each place on the outline of a painted object.

    Args:
        painted: Pixels of the painted slice, as the model for all of it was fitted to.
        weights: `(F,)` that model.
        mask: `(S, S)` the painted object on the grid, in [0, 1].
        chosen: Which pixels of the features those are, as indices into `(S / stride)²`.
        stride: Grid pixels a feature pixel.
    """

    def __init__(
        self,
        painted: PixelSamples,
        weights: Tensor,
        mask: NDArray[np.float32],
        chosen: NDArray[np.int64],
        stride: int,
    ) -> None:
        self._stride = stride
        frame = _Frame(mask > 0.5)
        self._places = frame.places()
        near = self._nearness(frame, mask.shape[0] // stride)[:, torch.from_numpy(chosen)]
        self._weights = torch.stack([_fit(painted, weights, place) for place in near])

    def score(self, standard: Tensor, whole: Tensor, mask: NDArray[np.bool_]) -> Tensor:
        """Log odds of object against background.

        Args:
            standard: `(F - 1, N)` features, standardised as for the model for all of the object.
            whole: `(N,)` what that model says.
            mask: `(S, S)` where about the object is.

        Returns:
            `(N,)`: the mean of all models, each counting by how near its place is.
        """
        if not mask.any():
            return whole
        near = self._nearness(_Frame(mask), round(float(np.sqrt(whole.shape[0]))))
        local = torch.addmm(self._weights[:, -1:], self._weights[:, :-1], standard)
        return (local.mul_(near).sum(0) + WHOLE * whole) / (near.sum(0) + WHOLE)

    def _nearness(self, frame: _Frame, size: int) -> Tensor:
        """`(K, size²)` how much a feature pixel belongs to each place, at most 1."""
        rows, columns = (
            torch.from_numpy(np.exp(-((at - self._places[:, axis, None]) ** 2) / (2 * REACH**2)).astype(np.float32))
            for axis, at in enumerate(frame.positions(size, self._stride))
        )
        return (rows[:, :, None] * columns[:, None]).flatten(1)


class _Frame:
    """Positions from an object's middle, in units of its height and width."""

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self._mask = mask
        edges = [np.flatnonzero(mask.any(axis))[[0, -1]] for axis in (1, 0)]
        self._middle = [0.5 * float(first + last) for first, last in edges]
        self._size = [float(max(_LEAST_SIZE, last + 1 - first)) for first, last in edges]

    def positions(self, size: int, stride: int) -> list[NDArray[np.float64]]:
        """Of the rows and of the columns of feature pixels."""
        at = (np.arange(size) + 0.5) * stride - 0.5
        return [(at - middle) / length for middle, length in zip(self._middle, self._size, strict=True)]

    def places(self) -> NDArray[np.float64]:
        """`(K, 2)` points of the outline, each the farthest from those before it."""
        inside = self._mask.astype(np.uint8)
        outline = np.argwhere(inside - cv2.erode(inside, np.ones((3, 3), np.uint8), borderValue=0))
        points: NDArray[np.float64] = (outline - np.array(self._middle)) / np.array(self._size)
        chosen = [0]
        distance = ((points - points[0]) ** 2).sum(1)
        while len(chosen) < min(PLACES, len(points)):
            chosen.append(int(distance.argmax()))
            distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(1))
        spread: NDArray[np.float64] = points[chosen]
        return spread


def _fit(painted: PixelSamples, weights: Tensor, near: Tensor) -> Tensor:
    """The model of one place; the one for all where only object or only background is near."""
    seen = near > LEAST
    x, y, weight = painted.x[seen], painted.y[seen], (painted.weight * near)[seen]
    inside, outside = (weight * y).sum(), (weight * (1 - y)).sum()
    if not (inside > 0 and outside > 0):
        return weights
    balanced = 200.0 * weight * (y / inside + (1 - y) / outside)
    return fit_logistic(PixelSamples(x, y, balanced), ridge=PULL, towards=weights)
