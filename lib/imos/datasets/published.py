"""A published data set: which cases its folders hold, and how one of them is read.

Every layout has a module of its own that offers one `DataSet`. Listing the cases looks at names only, so that a missing
label is found before any work is done; a case is read when its turn comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imos.datasets.splits import Split
from imos.errors import UserError
from imos.imaging.image import Image

LARGEST_LABEL = 255
"""Collections hold 8-bit label maps."""


@dataclass(frozen=True, slots=True)
class PublishedCase:
    """One labelled volume or video of a data set, not read yet.

    Attributes:
        patient: Who it shows, as the data set calls him. All his cases go to one split.
        name: Unique in the data set; names its files in the collection.
        modality: As the tables of a collection say it, e.g. `CT`.
        images: The image's file, or one file a frame.
        labels: The label map's file, or one a frame in the same order.
        others: Further files that are read, or that the above refer to.
        split: Where the data set itself divides; None leaves it to the patient's name.
    """

    patient: str
    name: str
    modality: str
    images: tuple[Path, ...]
    labels: tuple[Path, ...]
    others: tuple[Path, ...] = ()
    split: Split | None = None

    @property
    def sources(self) -> tuple[Path, ...]:
        """All files that the case is made of."""
        return (*self.images, *self.labels, *self.others)


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImage:
    """A case that was read.

    Attributes:
        image: Volume, or video as rows, columns, time.
        labels: `(I, J, K)` uint8 on the image's grid.
        names: What the labels are called; those that do not occur may be among them.
        axis: Array axis to walk along; of a video the last one.
        preprocessing: What was changed, for the tables.
    """

    image: Image
    labels: NDArray[np.uint8]
    names: Mapping[int, str]
    axis: int = 2
    preprocessing: str = "as published"


@dataclass(frozen=True, slots=True)
class Listing:
    """What a folder holds.

    Attributes:
        cases: At least one; always in the same order.
        files: Files that list or describe the cases.
    """

    cases: tuple[PublishedCase, ...]
    files: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data set with a published layout.

    Attributes:
        name: As the command line calls it.
        title: As its publishers call it.
        body_part: For the tables.
        licence: As far as it is known.
        licence_read_at: Where that was read.
        source: Where it is published.
        label_origin: Who or what made the labels.
        find: Lists the cases of a folder. Raises `UserError` if the layout is another one or a label is missing.
        read: Reads a case. Raises `UserError` if a file is broken or image and labels do not fit.
    """

    name: str
    title: str
    body_part: str
    licence: str
    licence_read_at: str
    source: str
    label_origin: str
    find: Callable[[Path], Listing]
    read: Callable[[PublishedCase], LabelledImage]


def read_volume(path: Path, *, time: bool = False) -> Image:
    """Read the gray image of a case.

    Args:
        path: NIfTI or MetaImage.
        time: Whether the last axis is time.

    Raises:
        UserError: It cannot be read, shows nothing or is a colour image. The message names the whole path.
    """
    from imos.imaging.reading import read_image

    with naming(path):
        image = read_image(path, time=time)
    if image.is_rgb:
        raise UserError(f"{path} is a colour image, not a gray one. Unpack the data set again.")
    return image


def read_labels(path: Path, image: Image, largest: int, *, time: bool = False) -> NDArray[np.uint8]:
    """Read a label map that belongs to an image voxel by voxel.

    Args:
        path: NIfTI or MetaImage.
        image: The image.
        largest: Largest label that the data set defines, at most 255.
        time: Whether the last axis is time; the affine of such files says nothing and is not compared.

    Returns:
        `(I, J, K)`.

    Raises:
        UserError: It cannot be read, is no label map, has another shape, lies a voxel or more beside the image, or
            holds a label that the data set does not define. The message names the whole path.
    """
    from imos.imaging.geometry import check_labels

    read = read_as_stored(path, time=time)
    with naming(path):
        labels = check_labels(read.voxels, path.name)
    check_same_shape(path, labels.shape, image.source or Path(image.name), image.voxels.shape)
    if not time and _largest_shift(read.affine, image.affine, labels.shape) >= 1:
        raise UserError(f"{path} lies beside its image {image.name}: their affines differ. Leave this case out.")
    highest = int(labels.max())
    if highest > largest:
        raise UserError(f"{path} holds the label {highest}; the labels of this data set go from 0 to {largest}.")
    return labels.astype(np.uint8)


def read_as_stored(path: Path, *, time: bool = False) -> Image:
    """Read NIfTI or MetaImage without asking whether it shows anything or has more than one slice.

    Raises:
        UserError: It cannot be read. The message names the whole path.
    """
    from imos.imaging.formats import Format, format_of_input
    from imos.imaging.meta_image import read_meta_image
    from imos.imaging.nifti import read_nifti

    with naming(path):
        is_meta_image = format_of_input(path) is Format.META_IMAGE
        return (read_meta_image if is_meta_image else read_nifti)(path, time=time)


def read_picture(path: Path, mode: str) -> NDArray[np.uint8]:
    """Read one picture.

    Args:
        path: PNG.
        mode: `RGB`, or `L` for gray.

    Returns:
        `(H, W, 3)` or `(H, W)`.

    Raises:
        UserError: It is broken or has more than 8 bits.
    """
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    try:
        with Pillow.open(path) as picture:
            if picture.mode.startswith(("I", "F")):
                raise UserError(f"{path} has more than 8 bits a pixel. Unpack the data set again.")
            return np.asarray(picture.convert(mode))
    except UserError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, Pillow.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as an image: it is damaged or cut short. Unpack it again.") from error


def check_same_shape(path: Path, shape: tuple[int, ...], image: Path, image_shape: tuple[int, ...]) -> None:
    """See that labels fit their image.

    Raises:
        UserError: The shapes differ.
    """
    if tuple(shape) != tuple(image_shape):
        sizes = [" × ".join(str(size) for size in sizes) for sizes in (shape, image_shape)]
        raise UserError(
            f"{path} is {sizes[0]} but its image {image.name} is {sizes[1]}. Unpack both again, or leave the case out."
        )


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Make errors name the whole path: in these data sets an image and its labels often have the same name."""
    try:
        yield
    except UserError as error:
        said = str(error)
        if str(path) in said:
            raise
        raise UserError(said.replace(path.name, str(path), 1) if path.name in said else f"{path}: {said}") from error


def folder_with(root: Path, inner: tuple[str, ...], holds: Callable[[Path], bool]) -> Path | None:
    """The folder of the layout: the one that was named, or one that archives unpack to inside of it."""
    return next((place for place in (root, *(root / name for name in inner)) if place.is_dir() and holds(place)), None)


def _largest_shift(affine: NDArray[Any], other: NDArray[Any], shape: tuple[int, ...]) -> float:
    """By how many voxels two grids of one shape differ at most, at their corners."""
    corners = np.array([[i, j, k, 1] for i in (0, shape[0] - 1) for j in (0, shape[1] - 1) for k in (0, shape[2] - 1)])
    moved = corners @ (np.linalg.inv(other) @ affine).T
    return float(np.abs(moved - corners).max())
