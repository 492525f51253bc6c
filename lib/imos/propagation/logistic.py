"""Logistic regression of the target model: a few Newton steps, in PyTorch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

NEWTON_STEPS = 6
NEWTON_STEPS_NEARBY = 2
"""From weights that are nearly right."""

RIDGE = 30.0
"""Against overfitting: both classes together weigh 400."""


class PixelSamples(NamedTuple):
    """Pixels to fit to.

    Attributes:
        x: `(N, F)` features, the last of them 1.
        y: `(N,)` 1 for the object, 0 for what is around it, between them at its border.
        weight: `(N,)`.
    """

    x: Tensor
    y: Tensor
    weight: Tensor


class Pull(NamedTuple):
    """A quadratic term `½ wᵀ precision w - linearᵀ w` beside the loss: what is known of the weights beforehand.

    Attributes:
        precision: `(F, F)`.
        linear: `(F,)`.
    """

    precision: Tensor
    linear: Tensor


def fit_logistic(
    samples: PixelSamples, pull: Pull | None = None, *, ridge: float = RIDGE, towards: Tensor | None = None
) -> Tensor:
    """Weights of the log odds that a pixel is the object's.

    Args:
        samples: Pixels.
        pull: What is known of the weights beforehand.
        ridge: Strength of the pull towards `towards`.
        towards: `(F,)` weights to begin with and to stay near; None: zero.

    Returns:
        `(F,)`.
    """
    x, y, weight = samples
    centre = x.new_zeros(x.shape[1]) if towards is None else towards
    weights = centre
    identity = torch.eye(x.shape[1], dtype=torch.float64) * ridge
    for _ in range(NEWTON_STEPS if towards is None else NEWTON_STEPS_NEARBY):
        p = (x @ weights).clamp_(-30, 30).sigmoid_()
        gradient = x.T @ (weight * (p - y)) + ridge * (weights - centre)
        hessian = _curved(samples, p).double() + identity
        if pull is not None:
            gradient = gradient + pull.precision @ weights - pull.linear
            hessian = hessian + pull.precision
        weights = weights - torch.linalg.solve(hessian, gradient.double()).float()
    return weights


def curvature(samples: PixelSamples, weights: Tensor) -> Tensor:
    """Second derivative `(F, F)` of the loss at some weights, the ridge left out."""
    return _curved(samples, (samples.x @ weights).clamp_(-30, 30).sigmoid_())


def mean_loss(samples: PixelSamples, weights: Tensor) -> Tensor:
    """Cross entropy `(K,)` in nats a pixel of each of the weights `(K, F)`."""
    scores = (samples.x @ weights.T).clamp_(-30, 30)
    target = samples.y[:, None].expand_as(scores)
    losses = functional.binary_cross_entropy_with_logits(scores, target, reduction="none")
    return samples.weight @ losses / samples.weight.sum()


def _curved(samples: PixelSamples, p: Tensor) -> Tensor:
    curved = torch.maximum(samples.weight * p * (1 - p), 1e-4 * samples.weight)
    return (samples.x * curved[:, None]).T @ samples.x
