"""Uploaded files: where they are kept during a request, and how a mask among them becomes a label map.

Stock MONAI Label merges the request's `params` over everything, so `{"label": "/etc/passwd"}` reads like an uploaded
mask. Here a mask or an image that came with the request is an `Upload`, which no JSON can forge, and nothing else is
opened.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from imos.errors import UserError
from imos.imaging import Image, read_label_map
from imos.server.upload_checks import check_file

if TYPE_CHECKING:
    from fastapi import UploadFile
    from numpy.typing import NDArray

RAW_SUFFIX = ".bin"
IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
LABEL_SUFFIXES = (*IMAGE_SUFFIXES, RAW_SUFFIX)

_BYTES_A_VOXEL = 8
"""Of a mask: what the widest numbers take, or small ones on a grid twice as fine."""

_SMALL_MASK = 2**26
"""Bytes that every mask may have."""

_HEADER = 2**16


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that came with the request.

    Attributes:
        path: Where the server keeps it until the request is answered.
        name: What the client called it; only for messages.
    """

    path: Path
    name: str


def store(part: UploadFile, folder: Path, stem: str, suffixes: tuple[str, ...]) -> Upload:
    """Write one uploaded part to a folder, under a name of ours. Whoever opens it checks it first.

    Args:
        part: The multipart file part.
        folder: Existing folder that is removed after the request.
        stem: File name without suffix.
        suffixes: Formats that are accepted; the part's file name tells which it is. None at all means `.nii.gz`.

    Raises:
        UserError: The part's file name has none of the suffixes.
    """
    name = part.filename or f"{stem}.nii.gz"
    suffix = next((suffix for suffix in suffixes if name.lower().endswith(suffix)), None)
    if suffix is None:
        msg = f"The {stem} was uploaded as {Path(name).name!r}; send one of {', '.join(suffixes)}."
        raise UserError(msg)
    path = folder / f"{stem}{suffix}"
    with path.open("wb") as file:
        shutil.copyfileobj(part.file, file)
    return Upload(path=path, name=Path(name).name)


def read_mask(upload: Upload, image: Image) -> NDArray[np.uint16]:
    """The uploaded mask on the image's grid.

    Args:
        upload: A label map in any format of `LABEL_SUFFIXES`. `.bin` is what OHIF sends: one byte a voxel, first index
            fastest, on the image's own grid.
        image: The image it was painted on.

    Returns:
        `(I, J, K)` label values, 0 where nothing is painted.

    Raises:
        UserError: The file is broken, lies elsewhere, or must not be opened.
    """
    voxels = math.prod(image.shape)
    if not upload.path.name.endswith(RAW_SUFFIX):
        check_file(upload.path, max(_SMALL_MASK, _BYTES_A_VOXEL * voxels) + _HEADER)
        return read_label_map(upload.path, image)
    size = upload.path.stat().st_size
    if size != voxels:
        grid = "×".join(map(str, image.shape))
        msg = (
            f"The raw mask has {size} bytes, but the image has {grid} = {voxels} voxels."
            " Send one byte a voxel on the image's grid, or a format that says its own size (.nii.gz, .nrrd)."
        )
        raise UserError(msg)
    raw = np.fromfile(upload.path, dtype=np.uint8)
    return raw.reshape(image.shape, order="F").astype(np.uint16)
