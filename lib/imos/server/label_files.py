"""Label maps on the wire: NRRD in, bounded; NRRD out.

pynrrd opens other files that a header names and unpacks whatever comes, so a header could read the server's files and a
small upload could fill its memory. Here the header is only text, the voxels come from the upload itself, and unpacking
stops at the size that the header promises.
"""

from __future__ import annotations

import re
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imos.errors import UserError
from imos.imaging.geometry import RAS_FROM_LPS, check_affine, check_labels
from imos.server.grids import Grid

MOST_VOXELS = 2**30
"""Voxels of a label map at most: 1024 slices of 1024 × 1024."""

_LONGEST_HEADER = 64 * 1024
_TYPES = {
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
}
_SIGNS = {
    "right-anterior-superior": (1.0, 1.0, 1.0),
    "ras": (1.0, 1.0, 1.0),
    "left-anterior-superior": (-1.0, 1.0, 1.0),
    "las": (-1.0, 1.0, 1.0),
    "left-posterior-superior": (-1.0, -1.0, 1.0),
    "lps": (-1.0, -1.0, 1.0),
}
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_VECTOR = re.compile(rf"\(\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*\)")


def decode_nrrd(content: bytes) -> tuple[NDArray[np.uint16], Grid]:
    """Read an uploaded label map.

    Args:
        content: One NRRD file with its voxels, raw or gzip.

    Returns:
        `(i, j, k)` label values, and where they lie.

    Raises:
        UserError: It is no such file, it is larger than allowed, or its values are no labels.
    """
    header, data = _header(content)
    try:
        sizes = [int(size) for size in header["sizes"].split()]
        kind = np.dtype(_TYPES[header["type"].lower()])
    except (KeyError, ValueError) as error:
        raise _broken("its header names no size and whole-numbered type") from error
    if len(sizes) != 3 or min(sizes) < 1:
        raise _broken(f"it has {len(sizes)} dimensions or an empty one; send one label map in three dimensions")
    if int(np.prod(sizes, dtype=object)) > MOST_VOXELS:
        msg = f"The label map has {'×'.join(map(str, sizes))} voxels, more than this server takes."
        raise UserError(msg)
    if kind.itemsize > 1 and header.get("endian", "little").lower() == "big":
        kind = kind.newbyteorder(">")
    expected = int(np.prod(sizes)) * kind.itemsize
    encoding = header.get("encoding", "").lower()
    if encoding in ("gzip", "gz"):
        data = _unpacked(data, expected)
    elif encoding != "raw":
        raise _broken("its encoding is neither raw nor gzip")
    if len(data) != expected:
        raise _broken(f"it holds {len(data)} bytes of voxels instead of {expected}")
    voxels = np.frombuffer(data, kind).reshape(sizes, order="F")
    affine = check_affine(_affine(header), "The label map")
    return check_labels(voxels, "The label map"), Grid((sizes[0], sizes[1], sizes[2]), affine)


def encode_nrrd(labels: NDArray[Any], grid: Grid) -> bytes:
    """Write a label map as one gzip NRRD in LPS space.

    Args:
        labels: `(i, j, k)` uint8 or uint16.
        grid: Where it lies.
    """
    affine = RAS_FROM_LPS @ grid.affine
    vectors = " ".join(_vector(affine[:3, axis]) for axis in range(3))
    header = [
        "NRRD0004",
        f"type: {'uint8' if labels.dtype.itemsize == 1 else 'uint16'}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {' '.join(str(size) for size in labels.shape)}",
        f"space directions: {vectors}",
        "kinds: domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(affine[:3, 3])}",
        "",
        "",
    ]
    packer = zlib.compressobj(1, wbits=31)
    raw = labels.astype(labels.dtype.newbyteorder("<"), copy=False).tobytes(order="F")
    return "\n".join(header).encode("ascii") + packer.compress(raw) + packer.flush()


def _header(content: bytes) -> tuple[dict[str, str], bytes]:
    head = content[:_LONGEST_HEADER]
    ends = [found for mark in (b"\n\n", b"\n\r\n") if (found := head.find(mark)) >= 0]
    if not head.startswith(b"NRRD000") or not ends:
        raise _broken("it does not begin with an NRRD header")
    end = min(ends)
    data = content[end + (3 if content[end + 1 : end + 2] == b"\r" else 2) :]
    fields: dict[str, str] = {}
    for line in head[:end].decode("latin-1").splitlines()[1:]:
        name, mark, value = line.partition(":")
        if mark and not line.startswith("#") and not value.startswith("="):
            fields[name.strip().lower()] = value.strip()
    if "data file" in fields or "datafile" in fields:
        raise _broken("its voxels are in another file; send them in the same one")
    if any(fields.get(name, "0") not in ("0", "") for name in ("line skip", "lineskip", "byte skip", "byteskip")):
        raise _broken("its voxels do not follow the header")
    return fields, data


def _unpacked(data: bytes, expected: int) -> bytes:
    unpacker = zlib.decompressobj(wbits=47)
    try:
        voxels = unpacker.decompress(data, expected + 1)
    except zlib.error as error:
        raise _broken("its voxels cannot be unpacked") from error
    return voxels


def _affine(header: dict[str, str]) -> NDArray[np.float64]:
    signs = _SIGNS.get(header.get("space", "").lower())
    vectors = _VECTOR.findall(header.get("space directions", ""))
    origin = _VECTOR.findall(header.get("space origin", ""))
    if signs is None or len(vectors) != 3 or len(origin) != 1:
        raise _broken("its header does not say where it lies (space, space directions, space origin)")
    affine = np.eye(4)
    affine[:3, :3] = np.array(vectors, dtype=np.float64).T
    affine[:3, 3] = np.array(origin[0], dtype=np.float64)
    placed: NDArray[np.float64] = np.diag([*signs, 1.0]) @ affine
    return placed


def _vector(values: NDArray[np.float64]) -> str:
    return "(" + ",".join(repr(float(value)) for value in values) + ")"


def _broken(reason: str) -> UserError:
    return UserError(f"The label map cannot be read as NRRD: {reason}.")
