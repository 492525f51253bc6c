"""Reading: any supported file or folder as an image, or as a label map on an image's grid."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imos.errors import UserError
from imos.imaging.formats import IMAGE_SUFFIXES, Format, format_of_input
from imos.imaging.geometry import check_labels, label_map_on_grid
from imos.imaging.image import Image, ImageKind

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray


def read_image(path: str | os.PathLike[str], *, time: bool = False) -> Image:
    """Read a volume or a video in any supported format.

    Args:
        path: NIfTI, NRRD, MetaImage, a DICOM folder or multi-frame file, or a folder of png or jpg frames.
        time: Whether to take the last axis as time. A 4-D NIfTI file then must be flat.

    Returns:
        The image, in the axis order of the file. Voxels that are not a number have become the smallest value.

    Raises:
        UserError: It cannot be read, has one slice only, or shows nothing (all voxels equal or not a number).
    """
    return _checked(read_grid(path, time=time))


def read_grid(path: str | os.PathLike[str], *, time: bool = False) -> Image:
    """`read_image` for what need not show anything, such as a label map whose grid is wanted.

    Raises:
        UserError: It cannot be read.
    """
    path = Path(path)
    form = format_of_input(path)
    if form is Format.NIFTI:
        from imos.imaging.nifti import read_nifti

        image = read_nifti(path, time=time)
    elif form is Format.NRRD:
        from imos.imaging.nrrd import read_nrrd

        image = read_nrrd(path, time=time)
    elif form is Format.META_IMAGE:
        from imos.imaging.meta_image import read_meta_image

        image = read_meta_image(path, time=time)
    elif form is Format.DICOM:
        from imos.imaging.dicom import read_dicom

        image = read_dicom(path, time=time)
    else:
        from imos.imaging.frames import read_frames

        image = read_frames(path)
    return image


def read_label_map(path: str | os.PathLike[str], image: Image, *, may_be_empty: bool = False) -> NDArray[np.uint16]:
    """Read a label map and put it on the image's grid.

    Args:
        path: A label map in any supported format, DICOM SEG included, in the image's physical space; for frames a
            folder of PNGs named like the painted frames.
        image: The image it was painted on.
        may_be_empty: Whether a label map without an object is one.

    Returns:
        `(I, J, K)`, 0 where nothing is painted.

    Raises:
        UserError: It cannot be read, holds no labels, or lies outside the image.
    """
    path = Path(path)
    if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES and path.stat().st_size > 0:
        form = Format.FRAMES
    else:
        form = format_of_input(path)
    if form is Format.FRAMES:
        if not image.frame_names:
            msg = (
                f"{path.name} holds PNG label maps, but {image.name} is no folder of frames."
                " Use a label map in three dimensions."
            )
            raise UserError(msg)
        from imos.imaging.frames import read_frame_labels

        labels = read_frame_labels(path, image)
        affine = image.affine
    elif form is Format.DICOM:
        from imos.imaging.dicom_seg import read_dicom_seg

        labels, affine = read_dicom_seg(path, image)
    else:
        time = image.kind is ImageKind.VIDEO
        if form is Format.NIFTI:
            from imos.imaging.nifti import read_nifti

            read = read_nifti(path, time=time)
        elif form is Format.NRRD:
            from imos.imaging.nrrd import read_nrrd

            read = read_nrrd(path, time=time)
        else:
            from imos.imaging.meta_image import read_meta_image

            read = read_meta_image(path, time=time)
        if read.is_rgb:
            msg = f"{path.name} is a colour image. A label map has one whole number a voxel."
            raise UserError(msg)
        labels, affine = check_labels(read.voxels, path.name), read.affine
        if image.kind is ImageKind.VIDEO and labels.shape[2] > image.shape[2]:
            msg = (
                f"{path.name} has {labels.shape[2]} frames but {image.name} has {image.shape[2]}."
                " Use the label map of this video."
            )
            raise UserError(msg)
    return label_map_on_grid(labels, affine, image, path.name, may_be_empty=may_be_empty)


def _checked(image: Image) -> Image:
    from dataclasses import replace

    if min(image.shape) < 2:
        what = "frame" if image.kind is ImageKind.VIDEO else "slice"
        msg = (
            f"{image.name} has only one {what} ({'×'.join(str(size) for size in image.shape)})."
            " There is nothing to propagate to: use a volume or a video."
        )
        raise UserError(msg)
    voxels = _native(_without_gaps(image.voxels, image.name), image.name)
    # One pass each, without a boolean copy of the image.
    if voxels.min() == voxels.max():
        msg = (
            f"{image.name} shows nothing: all its voxels have the value {voxels.flat[0]:g}. Check the file in a viewer."
        )
        raise UserError(msg)
    return replace(image, voxels=voxels)


def _native(voxels: NDArray[Any], name: str) -> NDArray[Any]:
    if voxels.dtype == np.bool_:
        return voxels.astype(np.uint8)
    if voxels.dtype.kind not in "iuf":
        msg = f"{name} holds {voxels.dtype} values. Use an image with one real number a voxel, or 8-bit RGB."
        raise UserError(msg)
    if voxels.dtype.kind == "f" and voxels.dtype.itemsize != 4:
        # float32 tells 16 million grey values apart; more would only double the memory.
        return np.clip(voxels, np.finfo(np.float32).min, np.finfo(np.float32).max).astype(np.float32)
    if not voxels.dtype.isnative:
        return voxels.astype(voxels.dtype.newbyteorder("="))
    return voxels


def _without_gaps(voxels: NDArray[Any], name: str) -> NDArray[Any]:
    """Voxels with numbers only: not-a-number and minus infinity become the smallest value, infinity the largest."""
    if voxels.dtype.kind != "f":
        return voxels
    finite = np.isfinite(voxels)
    if finite.all():
        return voxels
    if not finite.any():
        msg = f"{name} shows nothing: none of its voxels is a number. Check the file in a viewer."
        raise UserError(msg)
    low, high = float(voxels.min(where=finite, initial=np.inf)), float(voxels.max(where=finite, initial=-np.inf))
    return np.nan_to_num(voxels, nan=low, posinf=high, neginf=low)
