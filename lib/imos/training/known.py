"""What an adapter remembers of the volumes that it learned from.

Kinds of labelled objects (`propagation/kinds.py`), what these look like from slice to slice (`likeness.py` there), and
which objects its decoder was trained on (`taught.py` there).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imos.network.steps import Steps
from imos.propagation.kinds import MOST as MOST_KINDS
from imos.propagation.kinds import Kind
from imos.propagation.likeness import MOST as MOST_LOOKS
from imos.propagation.likeness import Looks, Seen, Volume, reach_of
from imos.propagation.logistic import PixelSamples
from imos.propagation.parts import GAP, GAP_OF_VIDEOS, split
from imos.propagation.region import Region, region_around
from imos.propagation.target import TargetModel, picture_tensor, pixel_features
from imos.propagation.taught import Taught, limit_of
from imos.training.volumes import SMALLEST_AREA, Stack, by_volume

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


def seen_in(steps: Steps, stacks: Sequence[Stack], before: Seen | None) -> Seen:
    """What an adapter is to be used for: what looks like these stacks, or like what it had learned from before."""
    looks = [looks_of(steps, of_one) for of_one in by_volume(stacks)]
    new, reach = Looks.together([one.all for one in looks]).thinned(MOST_LOOKS), reach_of(looks)
    if before is None:
        return Seen(new, reach)
    old = before.looks.thinned(MOST_LOOKS - new.means.shape[0])
    return Seen(Looks.together([new, old]), max(reach, before.reach))


def taught_in(
    steps: Steps, stacks: Sequence[Stack], found: Sequence[Sequence[Kind]], before: Taught | None
) -> Taught | None:
    """What an adapter's decoder is to be used for: objects of the sort of these, or of those that it had before.

    Args:
        steps: The networks.
        stacks: What it was trained on.
        found: Kinds of each of them.
        before: What had taught it earlier.

    Returns:
        None where no object ever showed enough of itself to be a kind: then likeness alone decides.
    """
    if not any(found):
        return before
    kinds = {id(stack): of_it for stack, of_it in zip(stacks, found, strict=True)}
    volumes = [
        (
            [kind for stack in of_one for kind in kinds[id(stack)]],
            (painted for stack in of_one for painted in painted_of(steps, stack)),
        )
        for of_one in by_volume(stacks)
    ]
    new = Taught.by(thinned([kind for of_it in found for kind in of_it], MOST_KINDS), limit_of(volumes))
    return new if before is None else new.and_earlier(before, MOST_KINDS)


def painted_of(steps: Steps, stack: Stack) -> Iterator[PixelSamples]:
    """Each object's largest slice as a pass from there takes it, its parts apart; half a megabyte each."""
    for value in stack.objects():
        largest = int(stack.areas[:, value].argmax())
        mask = stack.labels[largest] == value
        for part in split(mask, GAP_OF_VIDEOS if stack.is_video else GAP):
            region, picture = _around(part, stack.slices[largest])
            shape = (part.shape[0], part.shape[1])
            cropped = region.beyond(region.crop(part.astype(np.float32)).clip(0, 1), shape)
            unknown = region.unknown(shape, mask & ~part)
            yield TargetModel(_features(steps, picture), cropped, unknown).painted


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
    return region, region.picture(plane)


def _features(steps: Steps, picture: NDArray[np.uint8]) -> Tensor:
    return pixel_features(picture, steps.finer(picture_tensor(picture))).joined()


def _kind(steps: Steps, stack: Stack, value: int, largest: int, indices: NDArray[np.int64]) -> Kind:
    target: TargetModel | None = None
    look: Looks | None = None
    parts: list[PixelSamples] = []
    for index in (largest, *(int(index) for index in indices if index != largest)):
        mask, plane = stack.labels[index] == value, stack.slices[index]
        region, picture = _around(mask, plane)
        features = _features(steps, picture)
        cropped = region.beyond(region.crop(mask.astype(np.float32)).clip(0, 1), mask.shape)
        unknown = region.unknown(mask.shape)
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
