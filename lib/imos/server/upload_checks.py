"""Checks of uploaded files, before any library takes their voxels.

A header can say that the voxels are in another file, which would be one of the server's; and a few kilobytes can unpack
to all of its memory. Headers are read with the same rules as by whoever reads the voxels later, so that nothing means
one thing here and another one there.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from imos.errors import UserError

_PIECE = 2**22
_LONGEST_LINE = 4096
_LONGEST_HEADER = 2**22
"""Of a MetaImage; ITK writes some hundred bytes, and sequences of frames several lines for each."""

_DEFLATED = "1.2.840.10008.1.2.1.99"
_PICTURES = (".png", ".jpg", ".jpeg")
_NO_ELEMENT = 8
"""Bytes of a voxel whose type is not known; whoever reads the file refuses it."""

_ELEMENTS = {
    "MET_CHAR": 1,
    "MET_UCHAR": 1,
    "MET_SHORT": 2,
    "MET_USHORT": 2,
    "MET_INT": 4,
    "MET_UINT": 4,
    "MET_LONG": 4,
    "MET_ULONG": 4,
    "MET_FLOAT": 4,
}


class _Limit:
    """What the server was started with; other processes have the default."""

    unpacked = 2**32


def limit_unpacked(most: int) -> None:
    """Set how many bytes an uploaded file may have when it is unpacked."""
    _Limit.unpacked = most


def check_upload(path: Path) -> None:
    """Refuse a file, or a folder of files of one image, that must not be read.

    Args:
        path: What was uploaded.

    Raises:
        UserError: As `check_file`; the files of a folder are counted together.
    """
    unpacked = 0
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            unpacked += check_file(file)
            if unpacked > _Limit.unpacked:
                raise _too_large(_Limit.unpacked)


def check_file(path: Path, most_unpacked: int | None = None) -> int:
    """Refuse a file that names another one, or that is too large when it is unpacked.

    Args:
        path: What was uploaded; its suffix says what it will be read as.
        most_unpacked: In bytes; None for what the server was started with.

    Returns:
        Bytes of its voxels as far as they are known; 0 for a file that nobody here can read.

    Raises:
        UserError: It does or is, or is packed in a way that is not taken.
    """
    most = _Limit.unpacked if most_unpacked is None else most_unpacked
    name = path.name.lower()
    size = 0
    if name.endswith((".mhd", ".nhdr")):
        raise _elsewhere()
    if name.endswith(".nrrd"):
        size = _size_of_nrrd(path, most)
    elif name.endswith(".mha"):
        size = _size_of_meta_image(path)
    elif name.endswith((".nii", ".nii.gz")):
        size = max(_size_of_nifti(path), _size_of_gzip(path, most))
    elif name.endswith(_PICTURES):
        size = _size_of_picture(path)
    elif name.endswith(".dcm") or _is_dicom(path):
        size = _size_of_dicom(path)
    if size > most:
        raise _too_large(most)
    return size


def _size_of_nrrd(path: Path, most: int) -> int:
    """Packed voxels alone: pynrrd takes from others what is there, whatever the header promises."""
    import nrrd

    with path.open("rb") as file:
        try:
            header: Mapping[str, Any] = nrrd.read_header(file)
        except (nrrd.NRRDError, OSError, ValueError, LookupError, TypeError, StopIteration):
            return 0  # damaged: whoever reads it says so
        if "data file" in header or "datafile" in header:
            raise _elsewhere()
        encoding = str(header.get("encoding", "")).lower()
        if encoding in ("bzip2", "bz2"):
            msg = "The file is packed with bzip2. Save it with gzip, or not packed."
            raise UserError(msg)
        if any(header.get(field) for field in ("line skip", "lineskip", "byte skip", "byteskip")):
            msg = "The voxels of the NRRD file do not follow its header (line skip, byte skip). Save it anew."
            raise UserError(msg)
        if encoding not in ("gzip", "gz"):
            return 0
        unpacker = zlib.decompressobj(31)
        pieces = iter(lambda: file.read(_PIECE), b"")
        return _count(_unpacked(unpacker, pieces), most)


def _size_of_meta_image(path: Path) -> int:
    """What the header promises, which is what readers make room for.

    Raises:
        UserError: The voxels are elsewhere, or ITK and we might not agree on where they are.
    """
    header: dict[str, str] = {}
    with path.open("rb") as file:
        while "ElementDataFile" not in header and file.tell() < _LONGEST_HEADER:
            line = file.readline(_LONGEST_LINE + 1).decode("latin-1")
            key, separator, value = (part.strip() for part in line.partition("="))
            if not separator or len(line) > _LONGEST_LINE:
                return 0  # no such header: whoever reads it says so
            if not value:  # ITK would take the next line for it
                msg = f"The header of the MetaImage file has a line without a value ({key[:80]!r}). Save it anew."
                raise UserError(msg)
            if key != "ElementDataFile" and "elementdatafile" in line.lower():
                raise _elsewhere()
            header[key] = value
    if header.get("ElementDataFile", "").upper() != "LOCAL":
        raise _elsewhere()
    element = _ELEMENTS.get(header.get("ElementType", "").removesuffix("_ARRAY"), _NO_ELEMENT)
    try:
        sides = [int(side) for side in header.get("DimSize", "").split()]
        return math.prod(sides) * int(header.get("ElementNumberOfChannels", "1")) * element
    except ValueError:
        return 0


def _size_of_nifti(path: Path) -> int:
    """What the header promises, which is what nibabel makes room for."""
    import nibabel

    try:
        image: Any = nibabel.load(path)
        voxels, element = math.prod(image.shape), image.get_data_dtype().itemsize
        return int(voxels * element)
    except (nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError):
        return 0
    except (OSError, EOFError, ValueError, OverflowError, TypeError, zlib.error):
        return 0


def _size_of_gzip(path: Path, most: int) -> int:
    try:
        with gzip.open(path) as file:
            return _count(iter(lambda: file.read(_PIECE), b""), most)
    except (OSError, EOFError, zlib.error):
        return 0  # not packed, or damaged


def _size_of_dicom(path: Path) -> int:
    """What the header promises."""
    import pydicom

    wanted = ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated")
    damage = (OSError, EOFError, ValueError, TypeError, AttributeError, LookupError, NotImplementedError, struct.error)
    try:
        syntax = pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID")
    except pydicom.errors.InvalidDicomError as error:
        msg = f"{path.name} is no DICOM file: it does not begin as one. Export the series again."
        raise UserError(msg) from error
    except damage:
        return 0
    if syntax == _DEFLATED:  # reading any of its header unpacks all of it
        msg = "The DICOM file is deflated as a whole. Save it with transfer syntax Explicit VR Little Endian."
        raise UserError(msg)
    try:
        said = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(wanted))
        rows, columns, frames, samples, bits = (int(said.get(name) or 1) for name in wanted)
    except damage:
        return 0
    return rows * columns * frames * samples * math.ceil(bits / 8)


def _size_of_picture(path: Path) -> int:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            width, height = picture.size
            return width * height * 4
    except Image.DecompressionBombError:
        return 2**63
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return 0


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _unpacked(unpacker: Any, pieces: Iterable[bytes]) -> Iterable[bytes]:
    try:
        for piece in pieces:
            packed = piece
            while packed and not unpacker.eof:
                yield unpacker.decompress(packed, _PIECE)
                packed = unpacker.unconsumed_tail
    except zlib.error:
        return  # damaged: whoever reads it says so


def _count(pieces: Iterable[bytes], most: int) -> int:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > most:
            raise _too_large(most)
    return size


def _elsewhere() -> UserError:
    return UserError("The file says that its voxels are in another file. Send one file that holds everything.")


def _too_large(most: int) -> UserError:
    return UserError(f"The file is larger than {most // 2**20} MB when it is unpacked, which is the most taken here.")
