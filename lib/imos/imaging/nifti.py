"""NIfTI in and out (`.nii`, `.nii.gz`), through nibabel.

Three-dimensional files are volumes in any axis order. A four-dimensional file is a video if it is flat, that is, one of
its spatial axes has one voxel; time is then the last array axis.
"""

from __future__ import annotations

import gzip
import logging
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from imos.errors import UserError
from imos.imaging.geometry import check_affine
from imos.imaging.image import Image, ImageKind

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_COMPRESSION = 1
"""As nibabel: label maps hardly get smaller with more, and take much longer."""


def read_nifti(path: Path, *, time: bool = False) -> Image:
    """Read a volume or a flat time series.

    Args:
        path: `.nii` or `.nii.gz`.
        time: Whether to take the last axis as time. Needed for 4-D files, which must be flat.

    Returns:
        The image. Values are scaled as the header says, in float32 if that makes fractions.

    Raises:
        UserError: The file cannot be read, or its dimensions do not make one volume or one video.
    """
    voxels, affine = _load(path)
    while voxels.ndim > 3 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    if voxels.dtype.names is not None:
        voxels = np.stack([voxels[channel] for channel in ("R", "G", "B")], axis=-1)
        spatial = voxels.shape[:-1]
    elif voxels.ndim == 5 and voxels.shape[3] == 1 and voxels.shape[4] == 3 and voxels.dtype == np.uint8:
        voxels = voxels[:, :, :, 0]  # colours as a vector: the other way NIfTI files hold RGB
        spatial = voxels.shape[:3]
    else:
        spatial = voxels.shape
    kind = ImageKind.VIDEO if time else ImageKind.VOLUME
    stored_shape: tuple[int, ...] = ()
    if len(spatial) == 4:
        flat = [axis for axis in range(3) if spatial[axis] == 1]
        if len(flat) != 1:
            msg = (
                f"{path.name} is four-dimensional ({_times(spatial)}): {spatial[3]} volumes over time."
                " Save one of them as its own file; only flat series (one slice over time) are taken as a video."
            )
            raise UserError(msg)
        if not time:
            msg = (
                f"{path.name} is one slice over {spatial[3]} time points ({_times(spatial)})."
                " Add --time to take it as a video."
            )
            raise UserError(msg)
        stored_shape = tuple(spatial)
        voxels = voxels.squeeze(axis=flat[0])
        affine = affine[:, [*(axis for axis in range(3) if axis != flat[0]), flat[0], 3]]
    elif len(spatial) != 3:
        msg = f"{path.name} has {len(spatial)} dimensions ({_times(spatial)}). Use a volume with three."
        raise UserError(msg)
    return Image(
        voxels=voxels,
        affine=check_affine(affine, path.name),
        kind=kind,
        name=path.name[: path.name.lower().rindex(".nii")],
        source=path,
        stored_shape=stored_shape,
    )


def write_nifti(path: Path, labels: NDArray[Any], image: Image) -> None:
    """Write a label map with the image's affine, in the shape of the image's own file.

    Args:
        path: `.nii` or `.nii.gz`.
        labels: `(I, J, K)` uint8 or uint16.
        image: Whose grid it is.
    """
    import nibabel

    affine = image.affine
    if image.stored_shape:
        flat = image.stored_shape[:3].index(1)
        labels = labels.reshape(image.stored_shape)
        columns = [0, 1]
        columns.insert(flat, 2)
        affine = affine[:, [*columns, 3]]
    file = nibabel.Nifti1Image(labels, affine)
    # Both codes: readers differ in which of the two they believe. The quaternion cannot hold shear.
    file.set_sform(affine, code=1)
    file.set_qform(affine, code=1, strip_shears=True)
    file.header.set_xyzt_units("mm", "sec" if labels.ndim == 4 else None)
    # Opened here: when the disk fills, nibabel leaves a file that it opened itself open.
    with path.open("wb") as target:
        if path.name.lower().endswith(".gz"):
            with gzip.GzipFile("", "wb", compresslevel=_COMPRESSION, fileobj=target, mtime=0) as packed:
                file.to_stream(packed)
        else:
            file.to_stream(target)


def _load(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    import nibabel
    from nibabel import imageglobals
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    level = imageglobals.logger.level
    # nibabel mends small faults of headers and says so on stderr; what it cannot mend is refused here.
    imageglobals.logger.setLevel(logging.CRITICAL + 1)
    try:
        file = nibabel.load(path, mmap=False)
        if not isinstance(file, nibabel.Nifti1Image):
            raise ImageFileError("not NIfTI")
        if path.name.lower().endswith(".gz"):
            with gzip.open(path) as stream:
                voxels = _voxels(type(file).from_stream(stream))
                _read_to_the_end(stream)
        else:
            voxels = _voxels(file)
        affine = np.array(file.affine, dtype=np.float64)
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error) as error:
        msg = (
            f"{path.name} cannot be read as NIfTI: it is damaged, cut short or another kind of file."
            " Export or copy it again."
        )
        raise UserError(msg) from error
    finally:
        imageglobals.logger.setLevel(level)
    return voxels, affine


def _voxels(file: Any) -> NDArray[Any]:
    proxy = file.dataobj
    if proxy.dtype.names is not None or (proxy.slope == 1 and proxy.inter == 0):
        return np.asanyarray(proxy.get_unscaled())
    return np.asarray(proxy, dtype=np.float32)


def _read_to_the_end(stream: gzip.GzipFile) -> None:
    """The checksum comes last: only who reads it notices that voxels are damaged.

    Raises:
        OSError, EOFError, zlib.error: They are, or the file is cut short.
    """
    try:
        while stream.read(2**20):
            pass
    except gzip.BadGzipFile as error:
        if not str(error).startswith("Not a gzipped file"):  # something else behind a good file, as gzip ignores it
            raise


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(str(size) for size in shape)
