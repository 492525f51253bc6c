"""Target model: what the painted object looks like, learned from the painted slice alone.

A logistic regression per object, fitted in a few Newton steps on intensities, their blurs and deviations, and the
frozen key encoder's maps (the idea of FRTM-VOS and "Learning what to learn"), and beside it one for each part of its
outline where that helps (outline.py). Their score is a likelihood beside the flow's prior.
It is not fitted again on the way: learning from one's own masks cost .02 of J&F on the training volumes. Adapters
bring along how objects of labelled volumes look on all their slices (kinds.py); those that the painted slice looks like
have a say.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imos.propagation.kinds import Kind, pull_of
from imos.propagation.likeness import Looks
from imos.propagation.logistic import PixelSamples, fit_logistic
from imos.propagation.outline import LocalModels

STRIDE = 2
"""Grid pixels a feature pixel."""

SAMPLE = 2
"""Only every second feature pixel is fitted to, in both directions."""

SCORE_LIMIT = 8.0


def picture_tensor(picture: NDArray[np.uint8]) -> Tensor:
    """`(1, 3, S, S)` float32 in [0, 1] of a gray or RGB picture."""
    tensor = torch.from_numpy(picture).float().div_(255.0)
    if tensor.ndim == 2:
        return tensor.expand(1, 3, -1, -1)
    return tensor.permute(2, 0, 1)[None]


def pixel_features(picture: NDArray[np.uint8], deep: Tensor) -> Tensor:
    """Features of every second grid pixel.

    Args:
        picture: `(S, S)` or `(S, S, 3)` uint8, the region.
        deep: `(80, S/2, S/2)` key encoder's maps of the same picture at stride 2, `Pyramid.pixels`.

    Returns:
        `(F, S/2 · S/2)` float32, on the CPU.
    """
    size = picture.shape[0] // STRIDE
    values = picture.astype(np.float32) / 255.0
    values = values[..., None] if values.ndim == 2 else values
    hand: list[NDArray[np.float32]] = []
    for sigma in (0.0, 1.0, 2.0, 4.0):
        blurred = cv2.GaussianBlur(values, (0, 0), sigma) if sigma else values
        blurred = blurred.reshape(values.shape)
        hand.extend(blurred[..., channel] for channel in range(values.shape[2]))
        if sigma >= 2.0:
            square = cv2.GaussianBlur(values * values, (0, 0), sigma).reshape(values.shape)
            deviation = np.sqrt(np.maximum(square - blurred * blurred, 0.0))
            hand.extend(deviation[..., channel] for channel in range(values.shape[2]))
    hand.extend(plane * plane for plane in hand[: 4 * values.shape[2]])
    small = [cv2.resize(plane, (size, size), interpolation=cv2.INTER_AREA).reshape(-1) for plane in hand]
    return torch.cat([torch.from_numpy(np.stack(small)), deep.reshape(deep.shape[0], -1).cpu()])


class TargetModel:
    """Logistic regression from pixel features to object or background.

    In PyTorch, because passes side by side limit its threads; NumPy's linear algebra would take all cores for each.

    Args:
        features: `(F, N)` of the painted slice.
        mask: `(S, S)` float32 in [0, 1], the painted object on the grid.
        unknown: `(S, S)` pixels that say nothing: neither object nor background.
        kinds: Known objects.
        has_sides: Whether each part of the outline has a model of its own.

    Attributes:
        painted: The painted slice's pixels, as they were fitted to.
    """

    def __init__(
        self,
        features: Tensor,
        mask: NDArray[np.float32],
        unknown: NDArray[np.bool_] | None = None,
        kinds: Sequence[Kind] = (),
        *,
        has_sides: bool = False,
    ) -> None:
        deviation, self._mean = torch.std_mean(features, 1, correction=0, keepdim=True)
        self._scale = 1.0 / (deviation + 1e-3)
        self.painted = self.samples(features, mask, unknown)
        pull = pull_of(self.painted, kinds, Looks.of(features)) if kinds else None
        self._weights = fit_logistic(self.painted, pull)
        self._mask = mask
        self._has_sides = has_sides and bool((mask > 0.5).any())

    @cached_property
    def _local(self) -> LocalModels:
        return LocalModels(self.painted, self._weights, self._mask, _chosen(self._mask), STRIDE)

    def score(self, features: Tensor, where: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """Log odds of object against background, `(S/2, S/2)`, limited to ±8.

        Args:
            features: `(F, N)` of a slice.
            where: `(S, S)` where about the object is: each side of it is looked for on its own side. None: not known.
        """
        size = round(float(np.sqrt(features.shape[1])))
        standard = self._standard(features)
        score = torch.mv(standard.T, self._weights[:-1]) + self._weights[-1]
        if self._has_sides and where is not None:
            score = self._local.score(standard, score, where)
        limited: NDArray[np.float32] = score.clamp_(-SCORE_LIMIT, SCORE_LIMIT).reshape(size, size).numpy()
        return limited

    def samples(self, features: Tensor, mask: NDArray[np.float32], unknown: NDArray[np.bool_] | None) -> PixelSamples:
        """Pixels of a slice as the regression takes them, standardised as the painted slice is.

        Every second feature pixel in both directions: a quarter of them fits as well and costs a quarter.
        """
        chosen = _chosen(mask)
        target, weight = _targets(mask)
        if unknown is not None:
            weight = np.where(unknown[::STRIDE, ::STRIDE].reshape(-1), 0, weight)
        standard = self._standard(features[:, chosen])
        x = torch.cat([standard, standard.new_ones(1, len(chosen))]).T.contiguous()
        return PixelSamples(x, torch.from_numpy(target[chosen]), torch.from_numpy(weight[chosen] * SAMPLE**2))

    def _standard(self, features: Tensor) -> Tensor:
        return (features - self._mean).mul_(self._scale).clamp_(-6.0, 6.0)


def _chosen(mask: NDArray[np.float32]) -> NDArray[np.int64]:
    """Which feature pixels are fitted to."""
    size = mask.shape[0] // STRIDE
    return np.arange(size * size).reshape(size, size)[::SAMPLE, ::SAMPLE].reshape(-1)


def _targets(mask: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Targets and weights of every feature pixel: both classes weigh the same, pixels near the object more."""
    size = mask.shape[0] // STRIDE
    target = cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA)
    outside = (target < 0.5).astype(np.uint8)
    if outside.all() or not outside.any():
        return target.reshape(-1), np.full(target.size, 100.0 / target.size, np.float32)
    distance = cv2.distanceTransform(outside, cv2.DIST_L2, 3)
    near = 0.25 + np.exp(-distance / (0.08 * size))
    inside = 1.0 - outside
    weight = 200.0 * (inside / inside.sum() + outside * near / (outside * near).sum())
    return target.reshape(-1), weight.reshape(-1).astype(np.float32)
