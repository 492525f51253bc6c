"""One pass: one object is carried from its painted slice to the next ones, slice by slice.

Each step first makes the untrained floor (flow prior and target model), to which the memory network adds a residual.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from imos.propagation.floor import FLOOR, FloorSettings, logit, sigmoid
from imos.propagation.flow import backward_flow, gray, warp
from imos.propagation.model import Model
from imos.propagation.region import Region, region_around
from imos.propagation.slices import SliceSource
from imos.propagation.target import TargetModel, picture_tensor, pixel_features


@dataclass(frozen=True, slots=True)
class Estimate:
    """One object on one slice, as one pass sees it.

    Attributes:
        index: Slice.
        top: Row of `probability`'s upper edge in the slice.
        left: Column of its left edge.
        probability: `(h, w)` float32 in [0, 1]; 0 outside.
        existence: Probability that the object is on this slice at all.
        confidence: Predicted J in [0, 1].
    """

    index: int
    top: int
    left: int
    probability: NDArray[np.float32]
    existence: float
    confidence: float


@torch.no_grad()
def track(
    model: Model, slices: SliceSource, mask: NDArray[np.bool_], start: int, stop: int, settings: FloorSettings = FLOOR
) -> Iterator[Estimate]:
    """Carry one object from its painted slice.

    Args:
        model: Encoder and, if there is one, network.
        slices: 8-bit slices.
        mask: `(H, W)` the painted object.
        start: Index of the painted slice (not yielded).
        stop: Last slice, inclusive; before or after `start`.

    Yields:
        One estimate a slice, outward. Ends early when the object has ended.
    """
    step = 1 if stop >= start else -1
    region = region_around(mask)
    probability = (region.crop(mask.astype(np.float32), replicate=False)).clip(0, 1)
    picture = _picture(slices[start], region)
    target = TargetModel(_features(model, picture), probability)
    painted_area = float(mask.sum())
    shape = slices.shape
    plane = slices[start]
    for count, index in enumerate(range(start + step, stop + step, step), 1):
        following = region.follow(probability > 0.5, shape)
        probability = region.resample(probability, following)
        if following != region:
            picture = _picture(plane, following)
        region = following
        plane = slices[index]
        current = _picture(plane, region)
        prior = warp((probability > 0.5).astype(np.float32), backward_flow(gray(current), gray(picture)))
        if settings.prior_blur:
            prior = cv2.GaussianBlur(prior, (0, 0), settings.prior_blur)
        features = _features(model, current)
        score = target.score(features)
        score = cv2.resize(score, (region.grid, region.grid), interpolation=cv2.INTER_LINEAR)
        probability = sigmoid(logit(prior, settings.prior_limit) + settings.score_weight * score)
        inside = probability > 0.5
        area = float(inside.sum()) * region.scale**2
        evidence = float(score[inside].mean()) if area else -9.0
        existence = 1.0 if area >= settings.stop_area * painted_area and evidence > settings.stop_score else 0.0
        if existence < 0.5 or area < 4:
            return
        top, left, pasted = region.paste(probability, shape)
        yield Estimate(index, top, left, pasted, existence, float(abs(2 * probability[prior > 0.05] - 1).mean()))
        picture = current
        if settings.update_every and count % settings.update_every == 0:
            target.update(features, probability)


def _picture(plane: NDArray[np.uint8], region: Region) -> NDArray[np.uint8]:
    return region.crop(plane)


def _features(model: Model, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    return pixel_features(picture, model.encoder(picture_tensor(picture), depth=3))
