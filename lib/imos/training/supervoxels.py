"""Supervoxels: objects that nobody painted, for volumes without labels (class-agnostic, paper.md 2).

SLIC (Achanta et al. 2012) cuts a volume into compact pieces of one gray value; neighbours whose means hardly differ
become one. What is left with an outline that can be seen is an object as good as any to learn propagation from.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from importlib.util import find_spec

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, find_objects, gaussian_filter
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from imos.errors import UserError
from imos.training.volumes import Stack

FEWEST_SLICES = 4
SMALLEST = 300
"""Voxels of an object."""
LARGEST_SHARE = 0.2
"""Of the volume: what is larger is mostly air or bed."""
DARKEST = 6
"""Gray value below which a piece is air or the rim that a scanner leaves."""
LEAST_CONTRAST = 0.8
"""Means inside and just outside differ by so many standard deviations of both."""
MOST_OBJECTS = 60
LONGEST, WIDEST = 40, 192
"""Slices, and pixels a side, of what is cut out of a volume first: pieces are made within seconds."""
KINDS = 4
"""Ways in which one volume is cut."""
POOL = 48
"""Cut volumes that are kept."""
_TRIES = 100


class SupervoxelPool:
    """Volumes cut into supervoxels, when they are asked for.

    Args:
        stacks: Volumes, labelled or not, and others, which are passed over.
        seed: Which pieces they are cut into.

    Raises:
        UserError: None of them can be cut, or scikit-image is not installed.
    """

    def __init__(self, stacks: Sequence[Stack], seed: int) -> None:
        if find_spec("skimage") is None:
            raise UserError("Supervoxels need scikit-image: pip install scikit-image, or leave --supervoxels out.")
        self._volumes = [stack for stack in stacks if not stack.is_video and len(stack.slices) >= FEWEST_SLICES]
        if not self._volumes:
            raise UserError("There is no volume to cut into supervoxels. Leave --supervoxels out, or add volumes.")
        self._seed = seed
        self._cut: OrderedDict[tuple[int, int], Stack] = OrderedDict()

    def draw(self, random: Generator) -> Stack:
        """A volume with objects; which one, its stream decides.

        Raises:
            UserError: There is nothing to be seen in these volumes.
        """
        for _ in range(_TRIES):
            stack = self._of(int(random.integers(len(self._volumes))), int(random.integers(KINDS)))
            if stack.objects().size:
                return stack
        raise UserError("Nothing stands out in these volumes. Leave --supervoxels out.")

    def _of(self, volume: int, kind: int) -> Stack:
        if (volume, kind) not in self._cut:
            if len(self._cut) >= POOL:
                self._cut.popitem(last=False)
            random = np.random.default_rng([self._seed, 6, volume, kind])
            self._cut[volume, kind] = supervoxel_stack(_block(self._volumes[volume], random), random)
        return self._cut[volume, kind]


def _block(stack: Stack, random: Generator) -> Stack:
    """A part of a volume that is not too large, at random."""
    most = (LONGEST, WIDEST, WIDEST)
    starts = [
        int(random.integers(max(1, length - limit + 1))) for length, limit in zip(stack.labels.shape, most, strict=True)
    ]
    part = tuple(slice(start, start + limit) for start, limit in zip(starts, most, strict=True))
    return Stack.of(stack.slices[part], stack.labels[part], is_video=stack.is_video, volume=stack.volume)


def supervoxel_stack(stack: Stack, random: Generator) -> Stack:
    """A volume with supervoxels in place of its labels.

    Args:
        stack: Its labels are not looked at.
        random: Decides how large the pieces are, and how unlike they stay apart.

    Returns:
        The same slices; labels of up to 60 disjoint objects, the ones with the most contrast; perhaps none.
    """
    gray = _gray(stack.slices)
    smooth = gaussian_filter(gray, float(random.uniform(0.5, 1.2)))
    pieces = _pieces(smooth, random)
    objects = _merged(smooth, pieces, float(np.exp(random.uniform(np.log(4), np.log(20)))))
    return Stack.of(stack.slices, _visible(smooth, objects), is_video=stack.is_video, volume=stack.volume)


def _gray(slices: NDArray[np.uint8]) -> NDArray[np.float32]:
    if slices.ndim == 4:
        slices = np.stack([cv2.cvtColor(plane, cv2.COLOR_RGB2GRAY) for plane in slices])
    return slices.astype(np.float32)


def _pieces(gray: NDArray[np.float32], random: Generator) -> NDArray[np.int64]:
    """SLIC's label map, counted from 0."""
    from skimage.segmentation import slic

    voxels = float(np.exp(random.uniform(np.log(400), np.log(6000))))
    compactness = float(np.exp(random.uniform(np.log(0.006), np.log(0.06))))
    count = max(2, round(gray.size / voxels))
    pieces: NDArray[np.int64] = slic(
        gray / 255, n_segments=count, compactness=compactness, channel_axis=None, start_label=0
    )
    return pieces


def _merged(gray: NDArray[np.float32], pieces: NDArray[np.int64], step: float) -> NDArray[np.int64]:
    """Neighbouring pieces whose means differ by less than `step` gray values become one."""
    count = int(pieces.max()) + 1
    sizes = np.bincount(pieces.ravel(), minlength=count)
    means = np.bincount(pieces.ravel(), gray.ravel(), count) / np.maximum(sizes, 1)
    pairs = []
    for axis in range(3):
        front, back = (np.moveaxis(pieces, axis, 0)[part].ravel() for part in (slice(None, -1), slice(1, None)))
        pairs.append(np.unique(np.stack([front, back])[:, front != back], axis=1))
    one, other = np.concatenate(pairs, axis=1)
    alike = np.abs(means[one] - means[other]) < step
    graph = coo_matrix((np.ones(alike.sum()), (one[alike], other[alike])), shape=(count, count))
    _, group = connected_components(graph, directed=False)
    merged: NDArray[np.int64] = group[pieces]
    return merged


def _visible(gray: NDArray[np.float32], objects: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The objects with the most contrast as a label map, counted from 1."""
    objects = objects + 1
    sizes = np.bincount(objects.ravel())
    found: list[tuple[float, int]] = []
    for value, box in enumerate(find_objects(objects), 1):
        if box is None or not SMALLEST <= sizes[value] <= LARGEST_SHARE * objects.size:
            continue
        if box[0].stop - box[0].start < FEWEST_SLICES:
            continue
        near = tuple(slice(max(0, part.start - 3), part.stop + 3) for part in box)
        inside = objects[near] == value
        ring = binary_dilation(inside, iterations=3) & ~binary_dilation(inside)
        if not ring.any():
            continue
        within, around = gray[near][inside], gray[near][ring]
        if within.mean() < DARKEST:
            continue
        spread = 0.5 * (float(within.std()) + float(around.std())) + 1.0
        found.append((abs(float(within.mean()) - float(around.mean())) / spread, value))
    kept = sorted((pair for pair in found if pair[0] >= LEAST_CONTRAST), reverse=True)[:MOST_OBJECTS]
    places = np.zeros(len(sizes), np.uint8)
    for number, (_, value) in enumerate(kept, 1):
        places[value] = number
    labels: NDArray[np.uint8] = places[objects]
    return labels
