"""What an adapter remembers of the volumes that it learned from.

Kinds of labelled objects (`propagation/kinds.py`), and what these look like from slice to slice (`likeness.py` there).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imos.network.steps import Steps
from imos.propagation.kinds import Kind
from imos.propagation.likeness import Looks, Volume
from imos.propagation.logistic import PixelSamples
from imos.propagation.parts import GAP, GAP_OF_VIDEOS, split
from imos.propagation.region import Region, region_around
from imos.propagation.target import TargetModel, picture_tensor, pixel_features
from imos.training.volumes import SMALLEST_AREA, Stack

SLICES = 8
"""Slices of an object, spread evenly, beside the largest one."""

PAINTABLE = 0.3
"""Of an object's largest area: what people paint. The region around a tip shows a bit of anything."""


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


def looks_of(steps: Steps, stacks: Sequence[Stack]) -> Volume:
    """What each object of a volume looks like on some of its slices, its parts apart as in a pass.

    Args:
        steps: The networks.
        stacks: All of one volume.
    """
    painted: list[Looks] = []
    others: list[Looks] = []
    for stack in stacks:
        gap = GAP_OF_VIDEOS if stack.is_video else GAP
        for value in stack.objects():
            areas, largest = stack.areas[:, value], int(stack.areas[:, value].argmax())
            shown = np.flatnonzero(areas >= max(SMALLEST_AREA, PAINTABLE * areas[largest]))
            for index in np.unique([largest, *shown[np.linspace(0, shown.size - 1, SLICES).round().astype(int)]]):
                for part in split(stack.labels[index] == value, gap):
                    _, picture = _around(part, stack.slices[index])
                    (painted if index == largest else others).append(Looks.of(_features(steps, picture)))
    return Volume(Looks.together(painted), Looks.together([*painted, *others]))


def _around(mask: NDArray[np.bool_], plane: NDArray[np.uint8]) -> tuple[Region, NDArray[np.uint8]]:
    region = region_around(mask)
    return region, region.crop(plane).astype(np.uint8, copy=False)


def _features(steps: Steps, picture: NDArray[np.uint8]) -> Tensor:
    return pixel_features(picture, steps.pixels(picture_tensor(picture))[0])


def _kind(steps: Steps, stack: Stack, value: int, largest: int, indices: NDArray[np.int64]) -> Kind:
    target: TargetModel | None = None
    look: Looks | None = None
    parts: list[PixelSamples] = []
    for index in (largest, *(int(index) for index in indices if index != largest)):
        mask, plane = stack.labels[index] == value, stack.slices[index]
        region, picture = _around(mask, plane)
        features = _features(steps, picture)
        cropped = region.beyond(region.crop(mask.astype(np.float32)).clip(0, 1), mask.shape)
        unknown = np.ones(cropped.shape, bool)
        unknown[region.inside(mask.shape)] = False
        target = target or TargetModel(features, cropped, unknown)  # the largest one's: it is what people paint
        look = look or Looks.of(features)
        x, y, weight = target.samples(features, cropped, unknown)
        parts.append(PixelSamples(x[::2], y[::2], 2 * weight[::2] / len(indices)))
    assert look is not None  # the largest slice came first
    return Kind.of(PixelSamples(*(torch.cat(columns) for columns in zip(*parts, strict=True))), look)


def thinned(kinds: Sequence[Kind], most: int) -> list[Kind]:
    """At most so many of them, spread evenly."""
    chosen = np.linspace(0, len(kinds) - 1, min(most, len(kinds))).round().astype(int)
    return [kinds[int(number)] for number in chosen]
