"""NRRD in and out (`.nrrd`, `.nhdr`, `.seg.nrrd`), through pynrrd.

NRRD says in its header which way its space axes point; 3D Slicer writes left-posterior-superior, and so do we. A
`.seg.nrrd` of one layer is an ordinary label map.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from imos.errors import UserError
from imos.imaging.geometry import RAS_FROM_LPS, check_affine
from imos.imaging.image import Image, ImageKind

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_SPACE_TO_RAS = {
    "right-anterior-superior": (1.0, 1.0, 1.0),
    "ras": (1.0, 1.0, 1.0),
    "left-anterior-superior": (-1.0, 1.0, 1.0),
    "las": (-1.0, 1.0, 1.0),
    "left-posterior-superior": (-1.0, -1.0, 1.0),
    "lps": (-1.0, -1.0, 1.0),
}
_SPATIAL_KINDS = ("domain", "space")
_COLOUR_KINDS = ("rgb-color", "3-color", "vector", "3-vector", "list", "none", "???")


def read_nrrd(path: Path, *, time: bool = False) -> Image:
    """Read a volume.

    Args:
        path: `.nrrd` or `.nhdr`.
        time: Whether to take the last axis as time.

    Raises:
        UserError: The file cannot be read, or does not hold one volume.
    """
    voxels, header = _load(path)
    kinds = [str(kind).lower() for kind in header.get("kinds", ["domain"] * voxels.ndim)]
    directions = header.get("space directions")
    if voxels.ndim == 4:
        voxels, axis = _without_extra_axis(voxels, kinds, path)
        if directions is not None and len(directions) == 4:
            directions = [row for number, row in enumerate(directions) if number != axis]
    elif voxels.ndim != 3:
        msg = f"{path.name} has {voxels.ndim} dimensions. Use a volume with three."
        raise UserError(msg)
    try:
        affine = _affine(header, directions)
    except (ValueError, TypeError) as error:
        msg = f"{path.name} does not say where it lies in three dimensions. Export it again as a volume."
        raise UserError(msg) from error
    return Image(
        voxels=voxels,
        affine=check_affine(affine, path.name),
        kind=ImageKind.VIDEO if time else ImageKind.VOLUME,
        name=path.name.rsplit(".", 1)[0].removesuffix(".seg"),
        source=path,
    )


def write_nrrd(path: Path, labels: NDArray[Any], image: Image) -> None:
    """Write a label map in left-posterior-superior space.

    Args:
        path: `.nrrd`.
        labels: `(I, J, K)` uint8 or uint16.
        image: Whose grid it is.
    """
    import nrrd

    affine = RAS_FROM_LPS @ image.affine
    header = {
        "space": "left-posterior-superior",
        "space directions": affine[:3, :3].T,
        "space origin": affine[:3, 3],
        "kinds": ["domain"] * 3,
        "encoding": "gzip",
    }
    nrrd.write(str(path), labels, header, index_order="F", compression_level=1)


def _load(path: Path) -> tuple[NDArray[Any], dict[str, Any]]:
    import nrrd

    try:
        voxels, header = nrrd.read(str(path), index_order="F")
    except (nrrd.NRRDError, OSError, EOFError, ValueError, LookupError, TypeError, zlib.error) as error:
        msg = (
            f"{path.name} cannot be read as NRRD: it is damaged, cut short or another kind of file."
            " Export or copy it again."
        )
        raise UserError(msg) from error
    return voxels, dict(header)


def _without_extra_axis(voxels: NDArray[Any], kinds: list[str], path: Path) -> tuple[NDArray[Any], int]:
    extra = [axis for axis, kind in enumerate(kinds) if kind not in _SPATIAL_KINDS]
    axis = extra[0] if len(extra) == 1 else -1
    if axis >= 0 and voxels.shape[axis] == 1:
        return voxels.squeeze(axis=axis), axis
    if axis >= 0 and voxels.shape[axis] == 3 and voxels.dtype == np.uint8 and kinds[axis] in _COLOUR_KINDS:
        return np.moveaxis(voxels, axis, -1), axis
    if path.name.lower().endswith(".seg.nrrd"):
        msg = f"{path.name} holds overlapping segments in several layers. Export it from the viewer as one label map."
    else:
        msg = f"{path.name} is four-dimensional. Save one of its volumes as its own file."
    raise UserError(msg)


def _affine(header: dict[str, Any], directions: Any) -> NDArray[np.float64]:
    affine = np.eye(4)
    if directions is not None:
        affine[:3, :3] = np.asarray(directions, dtype=np.float64).T
    elif "spacings" in header:
        affine[:3, :3] = np.diag(np.nan_to_num(np.asarray(header["spacings"], dtype=np.float64)[-3:], nan=1.0))
    if "space origin" in header:
        affine[:3, 3] = header["space origin"]
    # Without a space ITK and 3D Slicer take left-posterior-superior.
    signs = _SPACE_TO_RAS.get(str(header.get("space", "left-posterior-superior")).lower(), (-1.0, -1.0, 1.0))
    return np.diag([*signs, 1.0]) @ affine
