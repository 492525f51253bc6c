"""Labelled stacks that training samples are cut from: real volumes, frame sequences, stills and synthetic volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom
from scipy.ndimage import label as connected

from imos.datasets.categories import read_categories
from imos.datasets.collection import read_collection, stills, unlabelled_volumes
from imos.errors import UserError

SMALLEST_AREA = 12
"""Pixels below which an object is not painted."""


@dataclass(frozen=True)
class Stack:
    """A labelled stack of slices.

    Attributes:
        slices: `(D, H, W)` or `(D, H, W, 3)` uint8.
        labels: `(D, H, W)` uint8.
        areas: `(D, L)` pixels of every label value on every slice.
        is_video: Frames: an object may leave and come back.
        volume: Number of the volume that it was cut from; None where no other stack was cut from that one.
    """

    slices: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    areas: NDArray[np.int64]
    is_video: bool
    volume: int | None = None

    @classmethod
    def of(
        cls, slices: NDArray[np.uint8], labels: NDArray[np.uint8], *, is_video: bool = False, volume: int | None = None
    ) -> Stack:
        """Count areas once."""
        areas = np.stack([np.bincount(plane.ravel(), minlength=256) for plane in labels])
        areas[:, 0] = 0
        return cls(slices, labels, areas, is_video, volume)

    def objects(self) -> NDArray[np.int64]:
        """Label values that are large enough on some slice."""
        return np.flatnonzero(self.areas.max(0) >= SMALLEST_AREA)

    def can_be_walked(self) -> bool:
        """Whether one of these objects is on more than one slice: from one alone there is no way."""
        return bool((np.count_nonzero(self.areas[:, self.objects()], axis=0) > 1).any())

    def is_of_volume(self, other: Stack) -> bool:
        """Whether both were cut from one volume."""
        return self is other or (self.volume is not None and self.volume == other.volume)


def volumes_of(stacks: Sequence[Stack]) -> int:
    """Of how many volumes stacks are: what is looked at in two windows is still one."""
    return len(by_volume(stacks))


def by_volume(stacks: Sequence[Stack]) -> list[list[Stack]]:
    """Stacks, those of one volume together."""
    volumes: list[list[Stack]] = []
    for stack in stacks:
        same = next((others for others in volumes if others[0].is_of_volume(stack)), None)
        volumes.append([stack]) if same is None else same.append(stack)
    return volumes


def labelled_stacks(
    root: Path, split: str = "train", groups: tuple[str, ...] = (), without: tuple[str, ...] = ()
) -> list[Stack]:
    """Volumes, frame sequences and stills of a collection, as they are walked in use.

    Args:
        root: Folder of the collection.
        split: Which rows.
        groups: Only these data sets; empty for all.
        without: Names of labels that become background.

    Raises:
        UserError: The collection cannot be read, or has no such data set or label.
    """
    cases = read_collection(root, split)
    known = {case.group for case in cases}
    for group in groups:
        if group not in known:
            raise UserError(f"split '{split}' of {root} has no set '{group}'. Its sets: {', '.join(sorted(known))}.")
    cases = [case for case in cases if not groups or case.group in groups]
    categories = read_categories(root, split)
    names = {name for (group, _, _), name in categories.names.items() if not groups or group in groups}
    for name in without:
        if name not in names:
            raise UserError(f"split '{split}' of {root} has no label '{name}'. Its labels: {', '.join(sorted(names))}.")
    stacks: list[Stack] = []
    for case in cases:
        slices, labels = case.load()
        hidden = [
            value for value in np.unique(labels) if categories.names.get((case.group, case.name, int(value))) in without
        ]
        labels = np.where(np.isin(labels, hidden), 0, labels).astype(np.uint8) if hidden else labels
        if labels.any():
            stacks.append(Stack.of(slices, labels, is_video=case.is_video))
    for image, mask in stills(root, split):
        if groups and image.parents[1].name not in groups:
            continue
        picture, label = cv2.imread(str(image)), cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE)
        if picture is None or label is None or picture.shape[:2] != label.shape:
            continue
        picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        stacks.append(Stack.of(picture[None], label[None], is_video=True))
    return stacks


def unlabelled_stacks(root: Path, split: str = "train", groups: tuple[str, ...] = ()) -> list[Stack]:
    """Volumes of a collection that nobody labelled.

    Args:
        root: Folder of the collection.
        split: Which rows.
        groups: Only these data sets; empty for all.

    Raises:
        UserError: A volume cannot be read.
    """
    cases = [case for case in unlabelled_volumes(root, split) if not groups or case.group in groups]
    return [Stack.of(*case.load()) for case in cases]


def turned(stack: Stack) -> list[Stack]:
    """The stack and, for a volume with enough slices, the same walked along its other two axes."""
    views = [stack]
    if not stack.is_video and min(stack.slices.shape[:3]) >= 24:
        for axis in (1, 2):
            arrays = (np.ascontiguousarray(np.moveaxis(array, axis, 0)) for array in (stack.slices, stack.labels))
            views.append(Stack.of(*arrays, volume=stack.volume))
    return [view for view in views if view.objects().size]


def synthetic_stack(random: Generator, size: int = 112, depth: int = 28) -> Stack:
    """A volume of random shapes with random intensities, texture, bias field, blur and noise.

    Smooth random fields compete for every voxel, which gives a label map of touching shapes that split, merge, begin
    and end; every region gets an intensity and a texture of its own (the recipe of SynthSeg).
    """
    regions = int(random.integers(5, 12))
    smooth = float(random.uniform(5, 12))
    through = smooth * float(random.uniform(0.35, 0.9))
    coarse = 0.5
    shape = (max(4, round(depth * coarse)), round(size * coarse), round(size * coarse))
    fields = []
    for _ in range(regions):
        factor = float(random.uniform(0.6, 1.4)) * coarse
        sigma = np.array([through, smooth, smooth]) * factor
        field = gaussian_filter(random.standard_normal(shape).astype(np.float32), sigma)
        fields.append(field / field.std() + float(random.normal(0, 0.25)))
    fine = [zoom(field, np.array((depth, size, size)) / np.array(shape), order=1) for field in fields]
    stacked = np.stack(fine)
    labels = stacked.argmax(0).astype(np.uint8) + 1
    regions_of = labels
    if random.random() < 0.6:  # what people paint is smoother than what the picture shows
        grain = float(random.uniform(1.5, 4))
        detail = gaussian_filter(random.standard_normal(stacked.shape).astype(np.float32), (0, grain / 2, grain, grain))
        detail *= float(random.uniform(0.2, 0.7)) / detail.std()
        regions_of = (stacked + detail).argmax(0).astype(np.uint8) + 1
    if random.random() < 0.35:  # a ring: the rim of one region becomes an object of its own
        winner = np.sort(stacked, axis=0)
        margin = winner[-1] - winner[-2]
        inner = (labels == 1) & (margin > float(random.uniform(0.3, 0.8)))
        is_one = regions_of is labels
        labels = np.where(inner, regions + 1, labels).astype(np.uint8)
        regions_of = labels if is_one else np.where(inner & (regions_of == 1), regions + 1, regions_of).astype(np.uint8)
    if random.random() < 0.35:
        regions_of = _with_inclusions(regions_of, random)
    labels = _components(labels)
    intensity = random.uniform(20, 235, 256)
    volume = intensity[regions_of].astype(np.float32)
    texture = random.standard_normal(volume.shape).astype(np.float32)
    for strength, grain in ((float(random.uniform(0, 18)), 2.0), (float(random.uniform(0, 18)), 0.8)):
        part = gaussian_filter(texture, (grain * 0.5, grain, grain))
        volume += (strength * random.uniform(0.3, 1.0, 256))[regions_of] * part / part.std()
    bias = gaussian_filter(random.standard_normal((8, 16, 16)).astype(np.float32), 3)
    bias = zoom(bias / (np.abs(bias).max() + 1e-6), np.array(volume.shape) / np.array(bias.shape), order=1)
    volume *= 1 + float(random.uniform(0, 0.35)) * bias
    blur = float(random.uniform(0.3, 1.3))
    volume = gaussian_filter(volume, (0.3 * blur, blur, blur))
    volume += random.standard_normal(volume.shape).astype(np.float32) * float(random.uniform(0, 14))
    return Stack.of(volume.clip(0, 255).astype(np.uint8), labels)


def _with_inclusions(regions: NDArray[np.uint8], random: Generator) -> NDArray[np.uint8]:
    """Small bodies inside some regions that look like another one, as papillary muscles in a ventricle do."""
    grain = float(random.uniform(1.5, 4))
    field = gaussian_filter(random.standard_normal(regions.shape).astype(np.float32), (grain, grain, grain))
    inside = np.isin(regions, random.choice(np.unique(regions), 4)) & (field > 1.3 * field.std())
    return np.where(inside, random.choice(regions.ravel()), regions).astype(np.uint8)


def _components(regions: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The connected parts of every region as objects of their own, small ones left out."""
    objects = np.zeros_like(regions)
    count = 0
    for value in np.unique(regions):
        parts, number = connected(regions == value)
        sizes = np.bincount(parts.ravel(), minlength=number + 1)
        for part in np.flatnonzero(sizes[1:] > 300) + 1:
            if count < 255:
                count += 1
                objects[parts == part] = count
    return objects
