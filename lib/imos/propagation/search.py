"""Search: where in the next frame of a colour video an object is that moved farther than optical flow can follow.

Endoscopes jump, and frames are left out. Where flow does not explain the picture around the object, its surroundings
are looked through for what looks like it to the key encoder; the window goes there if flow, from there, explains the
picture better (docs/training.md). In volumes, where slices lie on top of each other, next to nothing is ever found; in
time-lapse microscopy, where every cell looks like every other one, the neighbour is.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from imos.network.efficientnet import CHANNELS
from imos.network.steps import Steps
from imos.propagation.flow import backward_flow, gray, warp
from imos.propagation.region import Region
from imos.propagation.target import picture_tensor

EXPLAINED = 0.9
"""Correlation of the carried picture with the new one, around the object, above which nothing is searched."""
RIM = 16
"""Grid pixels around the object that belong to what is searched for."""
BETTER = 0.02
"""How much more like the object (mean cosine of the features) another place must be than where it was."""
NEAR = 1
"""Cells of the features' grid around where it was that count as there: flow follows so far."""
CELL = 8
"""Grid pixels of the object's window a cell of the features' grid: twice the window's side, stride 4."""
FEWEST = 20
"""Grid pixels on which a correlation can be told."""


class Arrival(NamedTuple):
    """The next frame, where the object is looked for.

    Attributes:
        region: Window.
        picture: `(S, S)` or `(S, S, 3)` uint8.
        flow: `(S, S, 2)` backward, to the picture of the frame before.
    """

    region: Region
    picture: NDArray[np.uint8]
    flow: NDArray[np.float32]


def arrive(
    steps: Steps,
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    region: Region,
    mask: NDArray[np.bool_],
) -> Arrival:
    """Where to look for an object in the next frame.

    Args:
        steps: The networks.
        before: Frame, `(H, W)` gray or `(H, W, 3)` RGB.
        after: The next one.
        region: The object's window in `before`.
        mask: `(S, S)` the object there.

    Returns:
        The same window, or one up to a side of it away.
    """
    seen = gray(region.picture(before))
    wide_mask = cv2.dilate(mask.astype(np.uint8), np.ones((2 * RIM + 1, 2 * RIM + 1), np.uint8))
    here = _arrival(region, after, seen)
    if not mask.any():
        return here
    explained = _explained(here, seen, wide_mask)
    if explained > EXPLAINED:
        return here
    moved = _most_alike(steps, before, after, region, wide_mask)
    if moved is None:
        return here
    there = _arrival(moved, after, seen)
    return there if _explained(there, seen, wide_mask) >= explained else here


def _arrival(region: Region, plane: NDArray[np.uint8], seen: NDArray[np.uint8]) -> Arrival:
    picture = region.picture(plane)
    return Arrival(region, picture, backward_flow(gray(picture), seen))


def _explained(arrival: Arrival, seen: NDArray[np.uint8], mask: NDArray[np.uint8]) -> float:
    """Correlation of the picture with what flow makes of the one before, where it carries the mask to; -1 for none."""
    carried = warp(mask.astype(np.float32), arrival.flow) > 0.5
    if np.count_nonzero(carried) < FEWEST:
        return -1.0
    one = warp(seen.astype(np.float32), arrival.flow)[carried]
    other = gray(arrival.picture)[carried].astype(np.float32)
    one, other = one - one.mean(), other - other.mean()
    return float((one * other).sum() / (np.sqrt((one**2).sum() * (other**2).sum()) + 1e-3))


def _most_alike(
    steps: Steps,
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    region: Region,
    mask: NDArray[np.uint8],
) -> Region | None:
    """The window moved to what is most like the object and its rim; None where that is about where it was."""
    wide = Region(region.row - region.side / 2, region.column - region.side / 2, 2 * region.side, region.grid)
    object_there, around = (_features(steps, wide.picture(plane)) for plane in (before, after))
    cells = around.shape[1]
    weight = np.zeros((cells, cells), np.float32)
    inner = region.grid // CELL
    first = (cells - inner) // 2
    shrunk = cv2.resize(mask.astype(np.float32), (inner, inner), interpolation=cv2.INTER_AREA)
    weight[first : first + inner, first : first + inner] = shrunk
    rows, columns = (np.flatnonzero(weight.any(axis)) for axis in (1, 0))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    kernel = (object_there * torch.from_numpy(weight / weight.sum()))[:, window[0], window[1]]
    far = cells // 2
    padded = functional.pad(around, (far, far, far, far))
    height, width = kernel.shape[1] + 2 * far, kernel.shape[2] + 2 * far
    searched = padded[:, rows[0] : rows[0] + height, columns[0] : columns[0] + width]
    likeness = functional.conv2d(searched[None], kernel[None])[0, 0].numpy()
    there = likeness[far - NEAR : far + NEAR + 1, far - NEAR : far + NEAR + 1].max()
    down, right = np.unravel_index(int(likeness.argmax()), likeness.shape)
    if likeness[down, right] < there + BETTER:
        return None
    step = CELL * region.scale
    return region.moved(step * float(down - far), step * float(right - far))


def _features(steps: Steps, picture: NDArray[np.uint8]) -> Tensor:
    """`(C, S/4, S/4)` the key encoder's maps of strides 4 and 8, each of unit length at every place."""
    maps = functional.avg_pool2d(steps.finer(picture_tensor(picture)).pixels(), 2)[0].cpu()
    found = []
    for level in torch.tensor_split(maps, (CHANNELS[0], CHANNELS[0] + CHANNELS[1]))[1:]:
        centred = level - level.mean((1, 2), keepdim=True)
        even = centred / (centred.std((1, 2), keepdim=True) + 1e-3)
        found.append(even / (even.norm(dim=0, keepdim=True) + 1e-3))
    features: Tensor = torch.cat(found) / len(found) ** 0.5
    return features
