"""Which format a path means: by its suffix, and for what has none by its content."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from imos.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


class Format(StrEnum):
    """A file format or kind of folder."""

    NIFTI = "NIfTI"
    NRRD = "NRRD"
    META_IMAGE = "MetaImage"
    DICOM = "DICOM"
    FRAMES = "frames"


_FORMAT_OF_SUFFIX = {
    ".nii": Format.NIFTI,
    ".nii.gz": Format.NIFTI,
    ".nrrd": Format.NRRD,
    ".nhdr": Format.NRRD,
    ".mha": Format.META_IMAGE,
    ".mhd": Format.META_IMAGE,
    ".dcm": Format.DICOM,
}
_READABLE = "NIfTI (.nii, .nii.gz), NRRD (.nrrd), MetaImage (.mha), a DICOM folder or a folder of png or jpg frames"


def format_of_suffix(path: Path) -> Format | None:
    """Format that the suffix of a path names, or None."""
    name = path.name.lower()
    return next((form for suffix, form in _FORMAT_OF_SUFFIX.items() if name.endswith(suffix)), None)


def format_of_input(path: Path) -> Format:
    """Format of a file or folder that is there to be read.

    Raises:
        UserError: There is no such file or folder, it is empty, or it is in no known format.
    """
    try:
        if path.is_dir():
            return _format_of_folder(path)
        if not path.exists():
            msg = f"There is no file or folder {path}. Check the path."
            raise UserError(msg)
        if path.stat().st_size == 0:
            msg = f"{path.name} is empty (0 bytes). Export or copy it again."
            raise UserError(msg)
        found = format_of_suffix(path)
        if found is None and is_dicom(path):
            found = Format.DICOM
    except PermissionError as error:
        msg = f"{path} may not be read by this user. Change its permissions."
        raise UserError(msg) from error
    if found is None:
        msg = f"{path.name} is in no format that is read here. Use {_READABLE}."
        raise UserError(msg)
    return found


def is_dicom(path: Path) -> bool:
    """Whether a file starts as DICOM files do."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _format_of_folder(path: Path) -> Format:
    files = sorted(file for file in path.rglob("*") if not file.name.startswith(".") and file.is_file())
    if any(file.parent == path and file.suffix.lower() in IMAGE_SUFFIXES for file in files):
        return Format.FRAMES
    if any(file.suffix.lower() == ".dcm" or is_dicom(file) for file in files):
        return Format.DICOM
    volumes = [file.name for file in files if format_of_suffix(file) is not None]
    if volumes:
        msg = f"{path} is a folder of volumes. Name one of its files, such as {volumes[0]}."
    else:
        msg = f"{path} holds no images. Use {_READABLE}."
    raise UserError(msg)
