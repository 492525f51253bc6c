"""Series as files: a DICOM series as one NIfTI file, which clients can download.

Whether a series is a volume is decided here, when it is opened, and not after somebody has painted on it.
"""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from fastapi import HTTPException
from numpy.typing import NDArray

from imos.errors import UserError
from imos.imaging import Image, ImageKind, read_image
from imos.imaging.writing import replacing

_RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


class NoVolumeError(UserError, HTTPException):
    """A series that cannot be opened: 422, also from MONAI Label's own routes, which know `HTTPException` alone."""

    def __init__(self, sentence: str) -> None:
        HTTPException.__init__(self, 422, sentence)

    def __str__(self) -> str:
        """The sentence."""
        return str(self.detail)


def convert(folder: Path, series: str, target: Path, *, must_be_placed: bool = False) -> None:
    """Write a series as NIfTI, whole or not at all.

    Args:
        folder: Its files.
        series: Its UID.
        target: `.nii.gz`.
        must_be_placed: Whether frames that do not say where they lie are refused, too.

    Raises:
        NoVolumeError: It is no volume: slices are missing, uneven or sheared, or there is only one; or it cannot be
            read.
    """
    try:
        image = read_image(folder)
    except UserError as error:
        # The UID tells a person nothing.
        said = str(error)
        raise NoVolumeError(f"This series{said.removeprefix(series)}" if said.startswith(series) else said) from error
    if must_be_placed and image.kind is ImageKind.VIDEO:
        raise NoVolumeError(
            "This series does not say where its frames lie, so that no DICOM SEG of it could be stored."
            " Export it as a file, and serve a folder with it."
        )
    with replacing(target) as beside:
        nibabel.save(nibabel.Nifti1Image(_stored(image.voxels), image.affine), beside)


def grid_of(file: Path) -> Image:
    """An image of NIfTI as a grid to put labels on: everything but its voxels, which are not read."""
    found = nibabel.load(file)
    i, j, k = found.shape[:3]
    voxels = np.broadcast_to(np.uint8(0), (i, j, k))
    return Image(voxels, found.affine, ImageKind.VOLUME, file.name.removesuffix(".nii.gz"), source=file)


def _stored(voxels: NDArray[np.generic]) -> NDArray[np.generic]:
    """Voxels as NIfTI holds them: colours are one value each, no fourth dimension."""
    return np.ascontiguousarray(voxels).view(_RGB)[..., 0] if voxels.ndim == 4 else voxels
