"""Target model: what the painted object looks like, learned from the painted slice alone.

A logistic regression per object, fitted in a few Newton steps on intensities, their blurs and deviations, and the
frozen key encoder's maps (the idea of FRTM-VOS and "Learning what to learn"), and beside it one for each part of its
outline where that helps (outline.py). Their score is a likelihood beside the flow's prior.
It is not fitted again on the way: learning from one's own masks cost .02 of J&F on the training volumes. Adapters
bring along how objects of labelled volumes look on all their slices (kinds.py); those that the painted slice looks like
have a say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imos.network.efficientnet import Finer, at_finest
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


class PixelFeatures(NamedTuple):
    """Features of every second grid pixel, the key encoder's coarser maps as they come.

    Attributes:
        fine: `(F - 64, S/2 · S/2)` float32: of the picture itself, and the encoder's finest map.
        coarser: `(C, S/4, S/4)` and `(C, S/8, S/8)`, the other two.
    """

    fine: Tensor
    coarser: tuple[Tensor, ...]

    def joined(self) -> Tensor:
        """All of them on every second grid pixel, `(F, S/2 · S/2)`."""
        fine = self.fine.unflatten(1, (self.size, self.size))
        return at_finest([level[None] for level in (fine, *self.coarser)])[0].flatten(1)

    @property
    def size(self) -> int:
        """S/2."""
        return math.isqrt(self.fine.shape[1])


def pixel_features(picture: NDArray[np.uint8], finer: Finer, number: int = 0) -> PixelFeatures:
    """What tells an object's pixels from others.

    Args:
        picture: `(S, S)` or `(S, S, 3)` uint8, the region.
        finer: The key encoder's maps of a batch of pictures.
        number: Of this picture in the batch.
    """
    size = picture.shape[0] // STRIDE
    values = picture.astype(np.float32) / 255.0
    near = cv2.GaussianBlur(values, (0, 0), 1.0)
    plain, squares, near, near_squares = (_small(plane, size) for plane in (values, values * values, near, near * near))
    blurred: list[NDArray[np.float32]] = []
    variances: list[NDArray[np.float32]] = []
    for sigma in (2.0, 4.0):  # of the small picture: a quarter of the pixels and half of the taps
        mean, square = (
            cv2.GaussianBlur(plane, (0, 0), sigma / STRIDE).reshape(plain.shape) for plane in (plain, squares)
        )
        blurred.append(mean)
        variances.append(np.maximum(square - mean * mean, 0.0))
    hand = [plain, near, blurred[0], np.sqrt(variances[0]), blurred[1], np.sqrt(variances[1])]
    hand += [squares, near_squares, blurred[0] * blurred[0], variances[0]]
    channels = np.concatenate([planes.reshape(size * size, -1) for planes in hand], 1).T
    f2, f4, f8 = (level[number].cpu() for level in finer)
    fine = torch.cat([torch.from_numpy(np.ascontiguousarray(channels)), f2.flatten(1)])
    return PixelFeatures(fine, (f4, f8))


def _small(planes: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """`(S, S)` or `(S, S, C)` as means of squares of pixels: `(size, size)` or `(size, size, C)`."""
    small: NDArray[np.float32] = cv2.resize(planes, (size, size), interpolation=cv2.INTER_AREA)
    return small


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

    def score(self, features: PixelFeatures, where: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """Log odds of object against background, `(S/2, S/2)`, limited to ±8.

        Args:
            features: Of a slice.
            where: `(S, S)` where about the object is: each side of it is looked for on its own side. None: not known.
        """
        if self._has_sides and where is not None:
            standard = self._standard(features.joined())
            score = self._local.score(standard, self._scored(standard, 0) + self._weights[-1], where).numpy()
            return self._limited(score.reshape(features.size, features.size))
        score = (self._scored(self._standard(features.fine), 0) + self._weights[-1]).numpy()
        score = score.reshape(features.size, features.size)
        first = len(features.fine)
        for level in features.coarser:  # where they are: but for what is limited, sums commute with interpolation
            scored = self._scored(self._standard(level.flatten(1), first), first).reshape(level.shape[1:])
            score = score + cv2.resize(scored.numpy(), score.shape, interpolation=cv2.INTER_LINEAR)
            first += len(level)
        return self._limited(score)

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

    def _standard(self, features: Tensor, first: int = 0) -> Tensor:
        """Features from the one numbered `first` on, as the weights want them."""
        own = slice(first, first + len(features))
        return (features - self._mean[own]).mul_(self._scale[own]).clamp_(-6.0, 6.0)

    def _scored(self, standard: Tensor, first: int) -> Tensor:
        return torch.mv(standard.T, self._weights[first : first + len(standard)])

    @staticmethod
    def _limited(score: NDArray[np.float32]) -> NDArray[np.float32]:
        limited: NDArray[np.float32] = score.clip(-SCORE_LIMIT, SCORE_LIMIT)
        return limited


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
