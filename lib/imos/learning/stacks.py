"""Stacks: what training cuts its samples from, made of accepted labels.

Slices are in the window in which a session would carry the object, walked along the axis along which it was painted.
Only the objects and what is around them is kept: a sample is cut about twice as large as its object, and five volumes
shall fit into the memory of a small machine several times, once for every process that makes samples.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from imos.imaging import Image, ImageKind, Window, apply_window, choose_window
from imos.learning.volumes import LabelledVolume
from imos.training.volumes import SMALLEST_AREA, Stack

MOST_VOXELS = 16 * 2**20
"""Of a stack; larger ones are cut down to single objects, and then made coarser."""

MOST_OBJECTS = 255
AROUND = 8
"""Slices kept before and behind an object: where it ends is learned too."""

_RIM = 0.75
"""Kept around an object, in sizes of the object."""


def stacks_of(volume: LabelledVolume) -> list[Stack]:
    """The stacks of a volume: one for all objects that are walked along one axis in one window.

    Args:
        volume: Image and label.

    Returns:
        Empty where no object is large enough to be painted.
    """
    together: dict[tuple[int, Window], list[int]] = defaultdict(list)
    for value in volume.values:
        axis = volume.axis_of(value)
        labels = np.moveaxis(volume.labels, axis, 0)
        areas = (labels == value).sum(axis=(1, 2))
        if areas.max() >= SMALLEST_AREA:
            window = window_of(volume.image, labels[int(areas.argmax())] == value, axis, int(areas.argmax()))
            together[axis, window].append(value)
    made = []
    for (axis, window), values in together.items():
        for first in range(0, len(values), MOST_OBJECTS):
            made += _stacks(volume, axis, window, values[first : first + MOST_OBJECTS])
    return made


def window_of(image: Image, mask: NDArray[np.bool_], axis: int, index: int) -> Window:
    """The window in which a session carries an object that is painted on a slice.

    Args:
        image: The image.
        mask: `(H, W)` the object on that slice.
        axis: Axis across which the slice lies.
        index: The slice.
    """
    if image.is_rgb:
        return choose_window(image)
    rim = max(2, round(0.2 * float(np.sqrt(np.count_nonzero(mask)))))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * rim + 1, 2 * rim + 1))
    seen = cv2.dilate(mask.astype(np.uint8), disc) > 0
    return choose_window(image, np.moveaxis(image.voxels, axis, 0)[index][seen])


def _stacks(volume: LabelledVolume, axis: int, window: Window, values: Sequence[int]) -> list[Stack]:
    """One stack for these objects, or one each where one would be too large."""
    labels = np.moveaxis(volume.labels, axis, 0)
    renamed = np.zeros(int(labels.max()) + 1, np.uint8)
    renamed[list(values)] = np.arange(1, len(values) + 1, dtype=np.uint8)
    box = _box(renamed[labels] > 0)
    size = int(np.prod([part.stop - part.start for part in box]))
    if size > MOST_VOXELS and len(values) > 1:
        return [stack for value in values for stack in _stacks(volume, axis, window, [value])]
    step = 1 if size <= MOST_VOXELS else int(np.ceil((size / MOST_VOXELS) ** 0.5))
    box = (box[0], slice(box[1].start, box[1].stop, step), slice(box[2].start, box[2].stop, step))
    slices = apply_window(np.moveaxis(volume.image.voxels, axis, 0)[box], window)
    is_video = volume.image.kind is ImageKind.VIDEO
    return [Stack.of(np.ascontiguousarray(slices), np.ascontiguousarray(renamed[labels[box]]), is_video=is_video)]


def _box(mask: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """Where objects are, and what is around them."""
    box = []
    for axis in range(3):
        used = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        first, last = int(used[0]), int(used[-1]) + 1
        more = AROUND if axis == 0 else max(16, round(_RIM * (last - first)))
        box.append(slice(max(0, first - more), min(mask.shape[axis], last + more)))
    return box[0], box[1], box[2]
