"""Baselines without weights: repeat the painted mask, or carry it with optical flow.

Both run to the ends of the volume: they do not know where an object ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from imos.evaluation.sequences import Sequence, paint

Carried = Iterator[tuple[int, NDArray[np.float32]]]


def copy(slices: NDArray[np.uint8], mask: NDArray[np.bool_], start: int) -> Carried:
    """Repeat the painted mask on all other slices; arguments and yields as in `flow`."""
    for index in range(len(slices)):
        if index != start:
            yield index, mask.astype(np.float32)


def flow(slices: NDArray[np.uint8], mask: NDArray[np.bool_], start: int) -> Carried:
    """Carry a mask slice by slice to both ends, along dense optical flow of the full slices.

    DIS (Kroeger et al. 2016), medium preset. The mask stays soft on its way: hardened after every slice it erodes, and
    scores .04 less on volumes.

    Args:
        slices: `(D, H, W)` gray.
        mask: `(H, W)`, painted on slice `start`.
        start: Painted slice; not yielded.

    Yields:
        Slice index and `(H, W)` float32 in [0, 1]; a direction ends when nothing exceeds one half any more.
    """
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    height, width = mask.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    for step in (1, -1):
        carried = mask.astype(np.float32)
        for index in range(start + step, len(slices) if step > 0 else -1, step):
            move = dis.calc(slices[index], slices[index - step], None)
            carried = cv2.remap(carried, x + move[..., 0], y + move[..., 1], cv2.INTER_LINEAR)
            if carried.max() <= 0.5:  # interpolation never raises the largest value
                break
            yield index, carried


@dataclass(frozen=True, slots=True)
class Baseline:
    """How objects are carried, and what happens where two of them claim a voxel equally.

    Attributes:
        carry: `copy` or `flow`.
        later_wins: Among equals the higher label wins, else the lower. Figures depend on it by .02 where painted masks
            of nested objects meet; each baseline has the rule with which its published figures were made.
    """

    carry: Callable[[NDArray[np.uint8], NDArray[np.bool_], int], Carried]
    later_wins: bool


COPY = Baseline(copy, later_wins=True)
FLOW = Baseline(flow, later_wins=False)


def carry_all(
    baseline: Baseline,
    slices: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    sequences: Iterable[Sequence],
) -> NDArray[np.uint8]:
    """One label map of all objects of a case, each carried on its own.

    A voxel goes to the object with the largest value above one half; painted slices stay as painted.

    Args:
        baseline: `COPY` or `FLOW`.
        slices: `(D, H, W)` or `(D, H, W, 3)`.
        labels: `(D, H, W)` the truth, of which only the painted slices are looked at.
        sequences: What is painted where.

    Returns:
        `(D, H, W)` label map.
    """
    sequences = list(sequences)
    gray = _gray(slices)
    found = np.zeros_like(labels)
    best = np.full(labels.shape, 0.5, np.float32)
    for sequence in sorted(sequences, key=lambda sequence: sequence.label):
        mask = labels[sequence.painted] == sequence.label
        for index, values in baseline.carry(gray, mask, sequence.painted):
            wins = values > best[index]
            if baseline.later_wins:
                wins |= (values == best[index]) & (values > 0.5)
            best[index][wins] = values[wins]
            found[index][wins] = sequence.label
    for sequence in sequences:
        plane = found[sequence.painted]
        plane[plane == sequence.label] = 0
    painted = paint(labels, sequences)
    found[painted > 0] = painted[painted > 0]
    return found


def _gray(slices: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if slices.ndim == 3:
        return slices
    return np.stack([cv2.cvtColor(plane, cv2.COLOR_RGB2GRAY) for plane in slices])
