"""Checks of uploaded files, before any library opens them.

NRRD and MetaImage headers can say that the voxels are in another file, which would be one of the server's; and a few
kilobytes can unpack to all of its memory.
"""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path

from imos.errors import UserError

MOST_UNPACKED = 2**32
"""Bytes that an uploaded file may have when it is unpacked."""

_LONGEST_HEADER = 64 * 1024
_PIECE = 2**22
_ENCODING = re.compile(rb"^encoding\s*:\s*(\w+)\s*$", re.IGNORECASE | re.MULTILINE)
_ELSEWHERE = {
    ".nrrd": re.compile(rb"^\s*data ?file\s*:", re.IGNORECASE | re.MULTILINE),
    ".mha": re.compile(rb"^\s*ElementDataFile\s*=\s*(?!LOCAL\s*$)", re.IGNORECASE | re.MULTILINE),
}


def check_file(path: Path, most_unpacked: int = MOST_UNPACKED) -> None:
    """Refuse a file that names another one, or that is too large when it is unpacked.

    Args:
        path: What was uploaded.
        most_unpacked: In bytes.

    Raises:
        UserError: It does or is.
    """
    with path.open("rb") as file:
        head = file.read(_LONGEST_HEADER)
    name = path.name.lower()
    end = min((found for mark in (b"\n\n", b"\n\r\n") if (found := head.find(mark)) >= 0), default=len(head))
    for suffix, pattern in _ELSEWHERE.items():
        if name.endswith(suffix) and pattern.search(head[:end] if suffix == ".nrrd" else head[:4096]):
            msg = "The file says that its voxels are in another file. Send one file that holds everything."
            raise UserError(msg)
    if head.startswith(b"\x1f\x8b"):
        _check_unpacked(path, most_unpacked)
    elif name.endswith(".nrrd"):
        encoding = _ENCODING.search(head[:end])
        if encoding is not None and encoding[1].lower() in (b"gzip", b"gz"):
            _check_nrrd(path, end, most_unpacked)
        elif encoding is not None and encoding[1].lower() in (b"bzip2", b"bz2"):
            msg = "The file is packed with bzip2. Save it with gzip, or not packed."
            raise UserError(msg)


def _check_unpacked(path: Path, most: int) -> None:
    unpacked = 0
    try:
        with gzip.open(path) as file:
            while piece := file.read(_PIECE):
                unpacked += len(piece)
                if unpacked > most:
                    raise _too_large(most)
    except (OSError, EOFError, zlib.error):
        return  # damaged: whoever reads it says so


def _check_nrrd(path: Path, end: int, most: int) -> None:
    unpacker = zlib.decompressobj(47)
    unpacked = 0
    with path.open("rb") as file:
        file.seek(end)
        packed = file.read(_PIECE).lstrip(b"\r\n")
        try:
            while packed and not unpacker.eof:
                unpacked += len(unpacker.decompress(packed, _PIECE))
                if unpacked > most:
                    raise _too_large(most)
                packed = unpacker.unconsumed_tail or file.read(_PIECE)
        except zlib.error:
            return


def _too_large(most: int) -> UserError:
    return UserError(f"The file is larger than {most // 2**20} MB when it is unpacked, which is the most taken here.")
