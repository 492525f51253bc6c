"""Segments: the objects of a DICOM segmentation one by one, as no label map can hold them.

Segments may share voxels, and a segment may have a name and no voxel. Both are kept, in and out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from imos.errors import UserError
from imos.imaging.dicom_seg import Described, read_frames_of, write_numbered
from imos.imaging.geometry import label_map_on_grid
from imos.imaging.writing import check_writable, replacing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from imos.imaging.dicom_colors import Color
    from imos.imaging.image import Image

_LARGEST = 65535


@dataclass(frozen=True, eq=False, slots=True)
class Segment:
    """One object.

    Attributes:
        value: The user's label value, 1…65535.
        name: What it is called; "Label N" where nobody said.
        mask: `(I, J, K)` bool on the image's grid; may be empty, and share voxels with others.
        color: Red, green and blue, 0…255, or None.
    """

    value: int
    name: str
    mask: NDArray[np.bool_]
    color: Color | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Flattened:
    """A segmentation as one label map, and what is lost by that.

    Attributes:
        labels: `(I, J, K)` label values on the image's grid.
        described: Every segment, in the order of the file.
        hidden: In how many voxels the first value of a pair lies under the second; counted on the file's own grid.
    """

    labels: NDArray[np.uint16]
    described: tuple[Described, ...]
    hidden: dict[tuple[int, int], int]


def read_segments(path: Path, image: Image) -> list[Segment]:
    """Read every segment of a segmentation, also those without a voxel. Each takes the memory of a mask.

    Args:
        path: The file, or a folder that holds one segmentation.
        image: What it was painted on.

    Returns:
        In the order of the file.

    Raises:
        UserError: It cannot be read, is no segmentation, or a segment lies outside the image.
    """
    frames = read_frames_of(path, image)
    segments = []
    for number, one in frames.described.items():
        mask = frames.mask(number)
        if mask.any():
            placed = label_map_on_grid(mask.astype(np.uint8), frames.affine, image, path.name) != 0
        else:
            placed = np.zeros(image.shape, dtype=bool)
        segments.append(Segment(one.value, one.name, placed, one.color))
    return segments


def read_flattened(path: Path, image: Image) -> Flattened:
    """Read a segmentation as a label map; where segments overlap, the later one wins.

    Args:
        path: The file, or a folder that holds one segmentation.
        image: What it was painted on.

    Raises:
        UserError: It cannot be read, is no segmentation, has no voxel, or lies outside the image.
    """
    frames = read_frames_of(path, image)
    labels, hidden = frames.flat()
    placed = label_map_on_grid(labels, frames.affine, image, path.name)
    return Flattened(placed, tuple(frames.described.values()), hidden)


def write_segments(path: Path, segments: Sequence[Segment], image: Image) -> None:
    """Write segments as a binary DICOM segmentation of the series they were made on.

    Args:
        path: `.dcm`.
        segments: At least one; each value once.
        image: The series.

    Raises:
        UserError: The image is no DICOM series, there is no segment, or it cannot be written; nothing is left then.
        ValueError: A mask has another shape than the image, or a value is used twice or out of range.
    """
    check_writable(path, image)
    if not segments:
        msg = f"{path.name} was not written: a DICOM SEG needs a segment. Name at least one."
        raise UserError(msg)
    values = [one.value for one in segments]
    if len(set(values)) < len(values) or not all(1 <= value <= _LARGEST for value in values):
        msg = f"values must be different ones of 1…{_LARGEST}; got {values}."
        raise ValueError(msg)
    for one in segments:
        if one.mask.shape != image.shape:
            msg = f"{one.name}: the mask must have the image's shape {image.shape}; got {one.mask.shape}."
            raise ValueError(msg)
    described = [Described(one.value, one.name, one.color) for one in segments]
    with replacing(path) as beside:
        write_numbered(beside, _pixels(segments), described, image)


def _pixels(segments: Sequence[Segment]) -> NDArray[Any]:
    """`(I, J, K)` numbers of the segments, or `(I, J, K, segments)` where they overlap, which takes far more memory."""
    numbers = np.zeros(segments[0].mask.shape, dtype=np.uint8 if len(segments) < 256 else np.uint16)
    for number, one in enumerate(segments, start=1):
        if numbers[one.mask].any():
            return np.stack([other.mask.view(np.uint8) for other in segments], axis=-1)
        numbers[one.mask] = number
    return numbers
