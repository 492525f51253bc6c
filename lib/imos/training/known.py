"""Kinds of labelled objects: what an adapter remembers of the volumes that it learned from (`propagation/kinds.py`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from imos.network.steps import Steps
from imos.propagation.kinds import Kind
from imos.propagation.logistic import PixelSamples
from imos.propagation.region import region_around
from imos.propagation.target import TargetModel, picture_tensor, pixel_features
from imos.training.volumes import SMALLEST_AREA, Stack

SLICES = 8
"""Slices of an object, spread evenly, beside the largest one."""


def kinds_of(steps: Steps, stack: Stack) -> list[Kind]:
    """One kind an object of a stack; what is on fewer than four slices shows too little."""
    found = []
    for value in stack.objects():
        shown = np.flatnonzero(stack.areas[:, value] >= SMALLEST_AREA)
        if shown.size >= 4:
            largest = int(stack.areas[:, value].argmax())
            spread = shown[np.linspace(0, shown.size - 1, SLICES).round().astype(int)]
            found.append(_kind(steps, stack, int(value), largest, np.unique([largest, *spread])))
    return found


def _kind(steps: Steps, stack: Stack, value: int, largest: int, indices: NDArray[np.int64]) -> Kind:
    target: TargetModel | None = None
    parts: list[PixelSamples] = []
    for index in (largest, *(int(index) for index in indices if index != largest)):
        mask, plane = stack.labels[index] == value, stack.slices[index]
        region = region_around(mask)
        picture = region.crop(plane).astype(np.uint8, copy=False)
        features = pixel_features(picture, steps.pixels(picture_tensor(picture))[0])
        cropped = region.beyond(region.crop(mask.astype(np.float32)).clip(0, 1), mask.shape)
        unknown = np.ones(cropped.shape, bool)
        unknown[region.inside(mask.shape)] = False
        target = target or TargetModel(features, cropped, unknown)  # the largest one's: it is what people paint
        x, y, weight = target.samples(features, cropped, unknown)
        parts.append(PixelSamples(x[::2], y[::2], 2 * weight[::2] / len(indices)))
    return Kind.of(PixelSamples(*(torch.cat(columns) for columns in zip(*parts, strict=True))))


def thinned(kinds: Sequence[Kind], most: int) -> list[Kind]:
    """At most so many of them, spread evenly."""
    chosen = np.linspace(0, len(kinds) - 1, min(most, len(kinds))).round().astype(int)
    return [kinds[int(number)] for number in chosen]
