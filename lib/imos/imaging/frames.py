"""Folders of frames: one png or jpg a time point, and one PNG label map a painted or segmented frame.

Frames are in natural order of their names (`frame2` before `frame10`). Label maps are PNGs of whole numbers named like
their
frames: palette images, as the video benchmarks have them, or 8 or 16 bit gray.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from imos.errors import UserError
from imos.imaging.formats import IMAGE_SUFFIXES
from imos.imaging.image import Image, ImageKind

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def read_frames(path: Path) -> Image:
    """Read a folder of frames as a video.

    Args:
        path: Folder with png or jpg files, all of one size.

    Returns:
        `(rows, columns, time)`, or `(rows, columns, time, 3)` where any frame has colour. 16-bit gray stays 16-bit.

    Raises:
        UserError: A frame cannot be read, sizes differ, or two frames have one name.
    """
    files = image_files(path)
    frames: list[NDArray[Any]] = []
    for file in files:
        frame = _read_frame(file)
        if frames and frame.shape[:2] != frames[0].shape[:2]:
            msg = (
                f"{path.name}: {file.name} is {_size(frame)} pixels and {files[0].name} is {_size(frames[0])}."
                " All frames must have one size."
            )
            raise UserError(msg)
        frames.append(frame)
    if any(frame.ndim == 3 for frame in frames):
        frames = [_as_colour(frame, path) for frame in frames]
    if len({frame.dtype for frame in frames}) > 1:
        msg = f"{path.name} mixes frames of 8 and 16 bits. Save all in one depth."
        raise UserError(msg)
    return Image(
        voxels=np.stack(frames, axis=2),
        affine=np.eye(4),
        kind=ImageKind.VIDEO,
        name=path.resolve().name,
        source=path,
        frame_names=tuple(file.stem for file in files),
    )


def image_files(path: Path) -> list[Path]:
    """Png and jpg files of a folder in natural order.

    Raises:
        UserError: There is none, or two differ only in their suffix.
    """
    files = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")]
    files.sort(key=lambda file: natural_key(file.name))
    if not files:
        msg = f"{path} holds no png or jpg files."
        raise UserError(msg)
    seen: dict[str, Path] = {}
    for file in files:
        if file.stem in seen:
            msg = f"{path.name} holds {seen[file.stem].name} and {file.name}: keep one file a frame."
            raise UserError(msg)
        seen[file.stem] = file
    return files


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which `frame2` comes before `frame10`."""
    parts = re.findall(r"\d+|\D+", name.lower())
    return [(0, int(part), "") if part.isdigit() and part.isascii() else (1, 0, part) for part in parts]


def read_frame_labels(path: Path, image: Image) -> NDArray[np.uint16]:
    """Label maps of some frames of a video.

    Args:
        path: Folder of PNGs named like frames of the image, or one such PNG.
        image: The video.

    Returns:
        `(rows, columns, time)`; 0 on frames without a PNG.

    Raises:
        UserError: A file has no frame of its name, another size, or no label values.
    """
    index_of = {name: index for index, name in enumerate(image.frame_names)}
    labels = np.zeros(image.shape, dtype=np.uint16)
    for file in image_files(path) if path.is_dir() else [path]:
        if file.stem not in index_of:
            first, last = image.frame_names[0], image.frame_names[-1]
            msg = (
                f"{file.name} is named like no frame of {image.name} ({first} … {last})."
                " Name each label map like the frame it was painted on."
            )
            raise UserError(msg)
        frame = _read_labels(file)
        if frame.shape != image.shape[:2]:
            msg = (
                f"{file.name} is {_size(frame)} pixels but the frames are {image.shape[1]}×{image.shape[0]}."
                " Paint on frames of the full size."
            )
            raise UserError(msg)
        labels[:, :, index_of[file.stem]] = frame
    return labels


def write_label_png(path: Path, labels: NDArray[Any]) -> None:
    """Write the label map of one frame.

    Args:
        path: `.png`.
        labels: `(H, W)` uint8, written with a colour palette whose indices are the labels, or uint16, written as gray.
    """
    from PIL import Image as Pillow

    labels = np.ascontiguousarray(labels)
    picture = Pillow.fromarray(labels)
    if labels.dtype == np.uint8:
        picture.putpalette(palette().ravel().tolist())  # turns gray into palette indices
    with path.open("wb") as file:
        picture.save(file, format="PNG")


def palette() -> NDArray[np.uint8]:
    """`(256, 3)` colours of labels: the palette of PASCAL VOC and DAVIS, whose first is black."""
    indices = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((indices >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def _open(path: Path) -> Any:
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    try:
        with Pillow.open(path) as picture:
            picture.load()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, Pillow.DecompressionBombError) as error:
        msg = (
            f"{path.name} cannot be read as an image: it is damaged, cut short or another kind of file. Copy it again."
        )
        raise UserError(msg) from error
    return picture


def _read_frame(path: Path) -> NDArray[Any]:
    picture = _open(path)
    if picture.mode.startswith("I"):
        return _wide(picture)
    if picture.mode in ("1", "L", "LA"):
        return np.asarray(picture.convert("L"))
    colour = np.asarray(picture.convert("RGB"))
    # Gray saved as RGB, as ultrasound often is, is read as gray: three times less to hold and to compute.
    if (colour[..., 0] == colour[..., 1]).all() and (colour[..., 0] == colour[..., 2]).all():
        return np.ascontiguousarray(colour[..., 0])
    return colour


def _read_labels(path: Path) -> NDArray[np.uint16]:
    picture = _open(path)
    if picture.mode in ("P", "L", "1"):
        return np.asarray(picture).astype(np.uint16)
    if picture.mode.startswith("I"):
        return _wide(picture)
    if path.suffix.lower() != ".png":
        msg = f"{path.name} is no label map: jpg changes label values. Save label maps as PNG."
        raise UserError(msg)
    msg = (
        f"{path.name} is a colour image ({picture.mode})."
        " Save label maps as palette or gray PNG whose values are the labels."
    )
    raise UserError(msg)


def _wide(picture: Any) -> NDArray[np.uint16]:
    """Gray of more than 8 bits, which Pillow may hand out as 32-bit."""
    return np.asarray(picture).astype(np.uint16)


def _as_colour(frame: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    if frame.dtype != np.uint8:
        msg = f"{path.name} mixes frames in colour and in 16-bit gray. Save all alike."
        raise UserError(msg)
    return frame if frame.ndim == 3 else np.repeat(frame[..., None], 3, axis=2)


def _size(frame: NDArray[Any]) -> str:
    return f"{frame.shape[1]}×{frame.shape[0]}"
