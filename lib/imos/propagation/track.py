"""One pass: one object is carried from its painted slice to the next ones, slice by slice.

Each step makes the untrained floor (flow prior and target model), lets the memory network correct it if the weights
hold one, and asks whether the object is still there. All of it happens in the object's region of interest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from imos.network.steps import Encoded, Steps
from imos.propagation.correction import Asked, Correction
from imos.propagation.existence import UNTAUGHT, Areas, gather
from imos.propagation.floor import FLOOR, FloorSettings, logit, sigmoid
from imos.propagation.flow import backward_flow, gray, warp
from imos.propagation.model import Model
from imos.propagation.parts import GAP, GAP_OF_VIDEOS, split
from imos.propagation.region import Region, region_around
from imos.propagation.search import arrive
from imos.propagation.slices import SliceSource
from imos.propagation.target import PixelFeatures, TargetModel, picture_tensor, pixel_features
from imos.propagation.trust import edge_density

PATIENCE = 2
"""Slices in a row on which the object must be missing before a pass through a volume ends."""


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


@dataclass(frozen=True, slots=True)
class Observed:
    """What the memory network was asked on the way, for those who train it.

    Attributes:
        index: Slice.
        region: Where.
        mask: `(S, S)` the part that is carried, as it was found.
        asked: What its decoder was given.
        share: How much of its correction was taken.
    """

    index: int
    region: Region
    mask: NDArray[np.bool_]
    asked: Asked
    share: float


def track(
    model: Model,
    slices: SliceSource,
    mask: NDArray[np.bool_],
    start: int,
    stop: int,
    *,
    patience: int | None = PATIENCE,
    settings: FloorSettings = FLOOR,
) -> Iterator[Estimate]:
    """Carry one object from its painted slice; its parts apart.

    Args:
        model: Weights of configuration `small`.
        slices: 8-bit slices.
        mask: `(H, W)` the painted object.
        start: Index of the painted slice (not yielded).
        stop: Last slice, inclusive; before or after `start`.
        patience: The pass ends when the object is missing on so many slices in a row; None: it never ends early, for
            videos, where an object may come back.
        settings: Constants of the floor.

    Yields:
        One estimate a slice, outward.

    Raises:
        ValueError: These are no weights of `small`.
    """
    parts = split(mask, GAP_OF_VIDEOS if patience is None else GAP)
    walks = [
        track_part(model, slices, part, mask & ~part, start, stop, patience=patience, settings=settings)
        for part in parts
    ]
    if len(walks) == 1:
        yield from walks[0]
        return
    shares = [float(part.sum()) for part in parts]
    for steps in zip_longest(*walks):
        yield _union([(step, share) for step, share in zip(steps, shares, strict=True) if step is not None])


def _union(steps: list[tuple[Estimate, float]]) -> Estimate:
    """Parts of one object on one slice as one estimate; its confidence is that of the parts by their size."""
    estimates = [step for step, _ in steps]
    top, left = min(step.top for step in estimates), min(step.left for step in estimates)
    bottom = max(step.top + step.probability.shape[0] for step in estimates)
    right = max(step.left + step.probability.shape[1] for step in estimates)
    probability = np.zeros((bottom - top, right - left), np.float32)
    for step in estimates:
        rows, columns = step.probability.shape
        place = probability[step.top - top : step.top - top + rows, step.left - left : step.left - left + columns]
        np.maximum(place, step.probability, out=place)
    weights = [max(share * step.existence, 1e-6) for step, share in steps]
    confidence = float(np.average([step.confidence for step in estimates], weights=weights))
    return Estimate(estimates[0].index, top, left, probability, max(step.existence for step in estimates), confidence)


@torch.no_grad()
def track_part(
    model: Model,
    slices: SliceSource,
    mask: NDArray[np.bool_],
    others: NDArray[np.bool_],
    start: int,
    stop: int,
    *,
    patience: int | None,
    settings: FloorSettings = FLOOR,
    observe: Callable[[Observed], None] | None = None,
) -> Iterator[Estimate]:
    """`track` for one part.

    Args:
        model: See `track`.
        slices: See `track`.
        mask: The part.
        others: The object's other parts, which are no background to learn from.
        start: See `track`.
        stop: See `track`.
        patience: See `track`.
        settings: See `track`.
        observe: Told of every step in which the network took part.

    Yields:
        See `track`.
    """
    step = 1 if stop >= start else -1
    shape = slices.shape
    region = region_around(mask)
    probability = region.beyond(region.crop(mask.astype(np.float32)).clip(0, 1), shape)
    plane = slices[start]
    is_video, has_colour = patience is None, plane.ndim == 3
    corrects = model.corrects(is_video=is_video, has_colour=has_colour)
    picture = region.picture(plane)
    seen, encoded = _see(model.steps, picture, corrects)
    features = seen.joined()
    model = model.suited_to(features)
    # in time-lapse microscopy cells keep their neighbours; in volumes passes gain too, but some run on beyond the end
    has_sides = is_video and not has_colour
    unknown = region.unknown(shape, others)
    target = TargetModel(features, probability, unknown, model.kinds, has_sides=has_sides)
    model = model.decoding_for(target.painted)
    networks = model.steps
    judge = (model.judge if corrects else model.floor_judge) or UNTAUGHT
    share = model.share.of(is_video=is_video, has_colour=has_colour)
    if not is_video:
        share = model.share.of_volume(edge_density(gray(picture), region.inside(shape)))
    correction = Correction(networks, encoded, gray(picture), probability) if encoded is not None else None
    areas = Areas.painted(float(mask.sum()))
    held: list[Estimate] = []  # slices without the object, until it is seen again or patience ends
    for distance, index in enumerate(range(start + step, stop + step, step), 1):
        following = region.follow(probability > 0.5, shape)
        probability = following.beyond(region.resample(probability, following), shape)
        if following != region:
            picture = following.picture(plane)
        region, before, plane = following, plane, slices[index]
        if is_video and has_colour:  # in time-lapse microscopy every cell looks like every other one
            region, current, flow = arrive(networks, before, plane, region, probability > 0.5)
        else:
            current = region.picture(plane)
            flow = backward_flow(gray(current), gray(picture))
        # the hard mask: a soft one would sum up evidence from slice to slice until neighbours belong to the object
        carried, warped = cv2.split(warp(_together(probability > 0.5, gray(picture)), flow))
        prior = cv2.GaussianBlur(carried, (0, 0), settings.prior_blur)
        prior_odds = logit(prior, settings.prior_limit)
        seen, encoded = _see(networks, current, corrects)
        score = cv2.resize(target.score(seen, prior > 0.5), (region.grid, region.grid))
        odds = prior_odds + settings.score_weight * score
        heads = (0.0, 0.0)
        if correction is not None and encoded is not None:
            corrected = correction.correct(encoded, gray(current), warped, prior_odds, score)
            odds, heads = odds + share * corrected.residual, corrected.heads
        probability = region.beyond(sigmoid(odds), shape)
        if observe is not None and correction is not None:
            observe(Observed(index, region, probability > 0.5, corrected.asked, share))
        areas = areas.then(float(np.count_nonzero(probability[region.inside(shape)] > 0.5)) * region.scale**2)
        evidence = gather(probability, prior, score, gray(current), warped, areas, distance, heads)
        existence, confidence = judge.of(evidence)
        top, left, pasted = region.paste(probability, shape)
        estimate = Estimate(index, top, left, pasted, existence, confidence)
        if (existence >= 0.5 and confidence >= settings.least_confidence) or patience is None:
            yield from held
            yield estimate
            held = []
        else:
            held.append(estimate)
            if len(held) == patience or areas.now == 0:
                return
        picture = current
        if correction is not None:
            correction.remember(gray(current), probability)
    yield from held


def _together(*planes: NDArray[np.bool_] | NDArray[np.uint8]) -> NDArray[np.float32]:
    """Planes as channels: what is carried along one flow is carried at once."""
    channels = np.empty((*planes[0].shape, len(planes)), np.float32)
    for number, plane in enumerate(planes):
        channels[..., number] = plane
    return channels


def _see(networks: Steps, picture: NDArray[np.uint8], corrects: bool) -> tuple[PixelFeatures, Encoded | None]:
    """The target model's features of a picture, and what the network wants of it, if it is asked."""
    image = picture_tensor(picture)
    if not corrects:
        return pixel_features(picture, networks.finer(image)), None
    encoded = networks.encode(image)
    return pixel_features(picture, encoded.finer), encoded
