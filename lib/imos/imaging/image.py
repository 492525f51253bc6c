"""An image: voxels, where they lie in the patient, and what they came from.

Whatever the file format, voxels are indexed `(I, J, K)` as stored and `affine` takes an index to millimetres in RAS+
(x grows towards the patient's right, y to the front, z to the head: nibabel's convention). A video is an image too:
rows, columns, time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


class ImageKind(StrEnum):
    """What the third array axis of an image is."""

    VOLUME = "volume"
    VIDEO = "video"


@dataclass(frozen=True, eq=False)
class Image:
    """A volume or a video.

    Attributes:
        voxels: `(I, J, K)` gray of any real type, or `(I, J, K, 3)` uint8 RGB. Video: rows, columns, time.
        affine: `(4, 4)` float64, voxel index to mm in RAS+; the identity for frames.
        kind: Volume or video.
        name: For messages and default file names.
        source: The file or folder it was read from.
        frame_names: Frame folders: the file stems in order along K. Empty otherwise.
        modality: DICOM Modality, or "".
        dicom_files: DICOM series: one file a slice in order of K; a multi-frame series: its one file.
        stored_shape: Shape in the file where it differs from `shape` (4-D NIfTI). Label maps are written in it.
    """

    voxels: NDArray[Any]
    affine: NDArray[np.float64]
    kind: ImageKind
    name: str
    source: Path | None = None
    frame_names: tuple[str, ...] = ()
    modality: str = ""
    dicom_files: tuple[Path, ...] = ()
    stored_shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        voxels = self.voxels
        if voxels.ndim != 3 and not (voxels.ndim == 4 and voxels.shape[3] == 3 and voxels.dtype == np.uint8):
            msg = f"voxels must be (I, J, K), or (I, J, K, 3) uint8; got {voxels.shape} {voxels.dtype}."
            raise ValueError(msg)
        object.__setattr__(self, "affine", np.asarray(self.affine, dtype=np.float64))
        if self.affine.shape != (4, 4):
            msg = f"affine must be (4, 4); got {self.affine.shape}."
            raise ValueError(msg)

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(I, J, K)`, without the colour axis."""
        i, j, k = self.voxels.shape[:3]
        return i, j, k

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance in mm between neighbouring voxels along each array axis."""
        x, y, z = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)).tolist()
        return x, y, z

    @property
    def is_rgb(self) -> bool:
        """Whether the voxels are colours."""
        return self.voxels.ndim == 4
