"""MetaImage in and out (`.mha`, `.mhd`): a page of text and the voxels.

Both ways are written here, because ITK fills what is missing at the end of a file with zeros, prints instead of
raising, and does not notice a full disk.
"""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from imos.errors import UserError
from imos.imaging.geometry import RAS_FROM_LPS, check_affine
from imos.imaging.image import Image, ImageKind

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


_ELEMENTS = {
    "MET_CHAR": "<i1",
    "MET_UCHAR": "<u1",
    "MET_SHORT": "<i2",
    "MET_USHORT": "<u2",
    "MET_INT": "<i4",
    "MET_UINT": "<u4",
    "MET_LONG": "<i4",
    "MET_ULONG": "<u4",
    "MET_LONG_LONG": "<i8",
    "MET_ULONG_LONG": "<u8",
    "MET_FLOAT": "<f4",
    "MET_DOUBLE": "<f8",
}


def read_meta_image(path: Path, *, time: bool = False) -> Image:
    """Read a volume.

    Args:
        path: `.mha`, or `.mhd` with its voxels in one file beside it.
        time: Whether to take the last axis as time.

    Raises:
        UserError: The file cannot be read, or does not hold one volume.
    """
    try:
        header, end = _header(path)
        sides = [int(side) for side in header["DimSize"].split()]
        channels = int(header.get("ElementNumberOfChannels", "1"))
        element = np.dtype(_ELEMENTS[header["ElementType"].removesuffix("_ARRAY")])
        if _is_true(header, "BinaryDataByteOrderMSB", "ElementByteOrderMSB"):
            element = element.newbyteorder(">")
        if len(sides) != 3:
            msg = f"{path.name} has {len(sides)} dimensions. Use a volume with three."
            raise UserError(msg)
        if channels != 1 and (channels != 3 or element != np.uint8):
            msg = f"{path.name} has {channels} channels of {element}. Use gray, or RGB with 8 bits a channel."
            raise UserError(msg)
        if "LIST" in header["ElementDataFile"].upper() or "%" in header["ElementDataFile"]:
            msg = f"{path.name} keeps each slice in a file of its own. Convert it to a single .mha or .nii.gz."
            raise UserError(msg)
        data = _data(path, header, end, int(np.prod(sides)) * channels * element.itemsize)
        voxels = np.frombuffer(data, element).reshape(sides[::-1] if channels == 1 else [*sides[::-1], channels])
        affine = _affine(header)
    except UserError:
        raise
    except (OSError, ValueError, KeyError, OverflowError, MemoryError, zlib.error) as error:
        msg = (
            f"{path.name} cannot be read as MetaImage: it is damaged, cut short or another kind of file."
            " Export or copy it again."
        )
        raise UserError(msg) from error
    return Image(
        voxels=voxels.transpose((2, 1, 0) if channels == 1 else (2, 1, 0, 3)),
        affine=check_affine(RAS_FROM_LPS @ affine, path.name),
        kind=ImageKind.VIDEO if time else ImageKind.VOLUME,
        name=path.name.rsplit(".", 1)[0],
        source=path,
    )


def write_meta_image(path: Path, labels: NDArray[Any], image: Image) -> None:
    """Write a compressed label map.

    Args:
        path: `.mha`.
        labels: `(I, J, K)` uint8 or uint16.
        image: Whose grid it is.
    """
    affine = RAS_FROM_LPS @ image.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    data = zlib.compress(np.ascontiguousarray(labels.T).astype(labels.dtype.newbyteorder("<")).tobytes(), 1)
    header = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "True",
        "CompressedDataSize": str(len(data)),
        # One row an array axis: the transpose of the direction matrix.
        "TransformMatrix": _numbers((affine[:3, :3] / spacing).T.ravel()),
        "Offset": _numbers(affine[:3, 3]),
        "CenterOfRotation": "0 0 0",
        "ElementSpacing": _numbers(spacing),
        "DimSize": " ".join(str(size) for size in labels.shape),
        "ElementType": "MET_UCHAR" if labels.dtype == np.uint8 else "MET_USHORT",
        "ElementDataFile": "LOCAL",
    }
    with path.open("wb") as file:
        file.write("".join(f"{key} = {value}\n" for key, value in header.items()).encode())
        file.write(data)


def _header(path: Path) -> tuple[dict[str, str], int]:
    """Fields of the header, and where it ends."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        for line in file:
            key, separator, value = line.decode("latin-1").partition("=")
            if not separator or len(line) > 4096:
                raise ValueError("not a MetaImage header")
            fields[key.strip()] = value.strip()
            if key.strip() == "ElementDataFile":
                return fields, file.tell()
    raise ValueError("the header has no end")


def _data(path: Path, header: dict[str, str], end: int, size: int) -> bytes:
    """Voxels as `size` bytes.

    Raises:
        ValueError: There are fewer.
    """
    local = header["ElementDataFile"].upper() == "LOCAL"
    with (path if local else path.parent / header["ElementDataFile"]).open("rb") as file:
        skipped = int(header.get("HeaderSize", "0"))
        if skipped == -1:  # the voxels are the end of the file
            file.seek(-size, os.SEEK_END)
        else:
            file.seek(end if local else skipped)
        if _is_true(header, "CompressedData"):
            # 47: zlib's or gzip's framing, whichever is there.
            unpacker = zlib.decompressobj(47)
            data = unpacker.decompress(file.read(), size)
            while not unpacker.eof:  # the checksum comes last: only who reads it notices that voxels are damaged
                if not unpacker.unconsumed_tail:
                    raise ValueError("the voxels are cut short")
                unpacker.decompress(unpacker.unconsumed_tail, 2**20)
        else:
            data = file.read(size)
    if len(data) < size or size == 0:
        msg = f"{len(data)} of {size} bytes"
        raise ValueError(msg)
    return data


def _affine(header: dict[str, str]) -> NDArray[np.float64]:
    """`(4, 4)`, index to mm in LPS; absent fields as ITK takes them."""
    directions = _field(header, "TransformMatrix", "Rotation", "Orientation")
    spacing = _field(header, "ElementSpacing", "ElementSize")
    origin = _field(header, "Offset", "Position", "Origin")
    affine = np.eye(4)
    if directions is not None:
        affine[:3, :3] = directions.reshape(3, 3).T
    if spacing is not None:
        affine[:3, :3] *= spacing
    if origin is not None:
        affine[:3, 3] = origin
    return affine


def _field(header: dict[str, str], *keys: str) -> NDArray[np.float64] | None:
    text = next((header[key] for key in keys if key in header), None)
    return None if text is None else np.array([float(number) for number in text.split()])


def _is_true(header: dict[str, str], *keys: str) -> bool:
    return any(header.get(key, "").lower() == "true" for key in keys)


def _numbers(values: NDArray[np.float64]) -> str:
    return " ".join(repr(float(value)) for value in values)
