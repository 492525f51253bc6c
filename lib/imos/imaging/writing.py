"""Writing: label maps on an image's grid, whole or not at all.

A file is written under a temporary name beside its place and moved there when it is complete and on disk. Whoever looks
at the path sees the old file or the new one, and after Ctrl-C or on a full disk the old one or none.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imos.errors import UserError
from imos.imaging.formats import Format, format_of_suffix
from imos.imaging.geometry import check_labels

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from imos.imaging.image import Image

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SUFFIXES = ".nii.gz, .nii, .nrrd or .mha"


def check_writable(path: str | os.PathLike[str], image: Image) -> None:
    """Make sure, before any work is done, that a label map can be written.

    Args:
        path: Where it shall go.
        image: Whose grid it will have.

    Raises:
        UserError: The suffix names no format, the format cannot hold this image, or the folder is missing or not
            writable.
    """
    path = Path(path)
    form = _format_of_output(path, image)
    if path.resolve() in {source.resolve() for source in (image.source, *image.dicom_files) if source is not None}:
        msg = f"{path} is the image itself and would be overwritten. Name another file for the label map."
        raise UserError(msg)
    parent = path.resolve().parent
    if not parent.is_dir():
        msg = f"{path.name} cannot be written: there is no folder {path.parent}. Create it first."
        raise UserError(msg)
    if form is Format.FRAMES:
        if path.exists() and not path.is_dir():
            msg = f"{path} is a file, but the label maps of frames go to a folder. Name another path."
            raise UserError(msg)
    elif path.is_dir():
        msg = f"{path} is a folder. Name a file, such as {path / 'labels.nii.gz'}."
        raise UserError(msg)
    folder = path.resolve() if path.is_dir() else parent
    probe = _temporary(folder / path.name)
    try:
        # Asking for permissions is not enough: root has all of them, also on file systems that are read-only.
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        msg = f"The folder {folder} cannot be written to ({error.strerror}). Choose another one."
        raise UserError(msg) from error


def write_label_map(
    path: str | os.PathLike[str], labels: NDArray[Any], image: Image, names: Mapping[int, str] | None = None
) -> None:
    """Write a label map on the image's grid.

    Args:
        path: `.nii`, `.nii.gz`, `.nrrd`, `.mha`; `.dcm` for DICOM SEG; without suffix, for frames, a folder that gets
            one PNG a frame.
        labels: `(I, J, K)` whole numbers 0…65535. Stored as uint8 where all are below 256, else as uint16.
        image: Whose grid it is.
        names: What each label is called, where the format keeps names; "Label N" otherwise.

    Raises:
        UserError: It cannot be written; nothing is left then.
    """
    path = Path(path)
    check_writable(path, image)
    form = _format_of_output(path, image)
    if tuple(labels.shape) != image.shape:
        msg = f"labels must have the image's shape {image.shape}; got {labels.shape}."
        raise ValueError(msg)
    stored = labels if labels.dtype == np.uint8 else check_labels(labels, "The label map")
    if stored.size == 0 or stored.max() <= 255:
        stored = stored.astype(np.uint8, copy=False)
    if form is Format.FRAMES:
        _write_frames(path, stored, image)
        return
    with replacing(path) as temporary:
        if form is Format.NIFTI:
            from imos.imaging.nifti import write_nifti

            write_nifti(temporary, stored, image)
        elif form is Format.NRRD:
            from imos.imaging.nrrd import write_nrrd

            write_nrrd(temporary, stored, image)
        elif form is Format.META_IMAGE:
            from imos.imaging.meta_image import write_meta_image

            write_meta_image(temporary, stored, image)
        else:
            from imos.imaging.dicom_seg import write_dicom_seg

            write_dicom_seg(temporary, stored, image, names or {})


def check_folder_of(path: Path) -> None:
    """See before the work that a file can be written.

    Raises:
        UserError: There is no such folder, or a folder has the file's name.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UserError(f"cannot write {path}: {path.parent} is not a folder. Create it first.")
    if path.is_dir():
        raise UserError(f"cannot write {path}: a folder has that name. Choose another name.")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    Args:
        path: Where the file shall be; a folder of that name is not replaced.

    Yields:
        A path with the same suffix, to write a file or to create a folder at.

    Raises:
        UserError: The disk is full, or the file system refuses. Nothing is left then.
    """
    temporary = _temporary(path.resolve())
    try:
        yield temporary
        if temporary.is_file():
            _flush(temporary)
        os.replace(temporary, path.resolve())
        _flush(path.resolve().parent)
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        _remove(temporary)


def _write_frames(path: Path, labels: NDArray[Any], image: Image) -> None:
    from imos.imaging.frames import write_label_png

    target = path.resolve()
    temporary = _temporary(target)
    try:
        temporary.mkdir()
        for index, name in enumerate(image.frame_names):
            file = temporary / f"{name}.png"
            write_label_png(file, labels[:, :, index])
            _flush(file)
        if target.is_dir():
            # Files of an earlier run are replaced one by one; what else is in the folder is the user's.
            for name in image.frame_names:
                os.replace(temporary / f"{name}.png", target / f"{name}.png")
        else:
            os.replace(temporary, target)
        _flush(target.parent)
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        _remove(temporary)


def _format_of_output(path: Path, image: Image) -> Format:
    form = format_of_suffix(path)
    if form is None:
        if image.frame_names and (path.is_dir() or not path.suffix):
            return Format.FRAMES
        folder = ", or a folder without a suffix" if image.frame_names else ""
        seg = ", or .dcm" if image.dicom_files else ""
        msg = f"{path.name} names no format to write. Use {_SUFFIXES}{seg}{folder}."
        raise UserError(msg)
    if form is Format.DICOM and not image.dicom_files:
        msg = f"{path.name}: a DICOM SEG refers to DICOM images, and {image.name} is none. Use {_SUFFIXES}."
        raise UserError(msg)
    if path.name.lower().endswith((".nhdr", ".mhd")):
        msg = f"{path.name}: label maps are written as one file. Use {_SUFFIXES}."
        raise UserError(msg)
    return form


def _temporary(path: Path) -> Path:
    # The name in front: nibabel and others go by the suffix. The dot hides it from viewers and folder datastores.
    return path.with_name(f".{secrets.token_hex(4)}.partial.{path.name}")


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot sync folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # where nothing can be written, nothing can be left; what went wrong is said already
            path.unlink(missing_ok=True)


def _not_written(path: Path, error: OSError) -> UserError:
    if error.errno in _FULL:
        return UserError(f"{path.name} was not written: the disk is full. Free some space; no partial file was left.")
    reason = error.strerror or str(error)
    return UserError(f"{path.name} was not written ({reason}). Choose another place; no partial file was left.")
