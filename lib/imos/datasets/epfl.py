"""EPFL mitochondria: two blocks of one mouse hippocampus, `https://www.epfl.ch/labs/cvlab/data/data-em`.

```
training.tif  training_groundtruth.tif  testing.tif  testing_groundtruth.tif
```

Stacks of 165 pages, 1024 × 768 pixels, 5 nm a voxel in all directions; masks hold 0 and 255. The masks do not tell
mitochondria apart, and one painted slice cannot stand for all of them: every connected part is an object of its own.
There is one animal, so the published division is kept: nothing of the test block is trained on.
"""

from __future__ import annotations

from pathlib import Path
from warnings import catch_warnings

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label as connected

from imos.datasets.published import (
    LARGEST_LABEL,
    DataSet,
    LabelledImage,
    Listing,
    PublishedCase,
    check_same_shape,
    folder_with,
)
from imos.datasets.splits import Split
from imos.errors import UserError
from imos.imaging.image import Image, ImageKind

SPECIMEN = "hippocampus"

SPACING = 5e-6
"""mm: 5 nm."""

BLOCKS = {"training": Split.TRAIN, "testing": Split.TEST}


def find(root: Path) -> Listing:
    """The blocks that are there.

    Raises:
        UserError: There is none, or one has no masks.
    """
    folder = folder_with(
        root, ("Lucchi", "EPFL"), lambda place: any((place / f"{name}.tif").is_file() for name in BLOCKS)
    )
    if folder is None:
        raise UserError(f"{root} has neither training.tif nor testing.tif. Name the folder of the EPFL stacks.")
    cases: list[PublishedCase] = []
    for name, split in BLOCKS.items():
        image, masks = folder / f"{name}.tif", folder / f"{name}_groundtruth.tif"
        if image.is_file() and not masks.is_file():
            raise UserError(f"{masks} is missing: {image.name} has no labels. Download it too.")
        if image.is_file():
            cases.append(PublishedCase(SPECIMEN, name, "EM FIB-SEM", (image,), (masks,), split=split))
    return Listing(tuple(cases))


def read(case: PublishedCase) -> LabelledImage:
    """Read a block as a volume: columns, rows, pages.

    Raises:
        UserError: A stack is broken, the two differ in shape, or the masks are no masks.
    """
    (path,), (path_of_masks,) = case.images, case.labels
    pages, masks = read_stack(path), read_stack(path_of_masks)
    check_same_shape(path_of_masks, masks.shape, path, pages.shape)
    values = np.flatnonzero(np.bincount(masks.ravel(), minlength=256))
    if values.size > 2:
        raise UserError(
            f"{path_of_masks} holds {values.size} gray values where masks have 0 and 255. Download it again."
        )
    objects, names = parts_of(masks > 0)
    affine = np.diag([SPACING, SPACING, SPACING, 1.0])
    image = Image(pages.T, affine, ImageKind.VOLUME, case.name, path)
    return LabelledImage(image, objects.T, names, preprocessing="connected parts of the masks as objects")


def parts_of(mask: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """The connected parts of a mask, the largest first, at most 255.

    Args:
        mask: `(D, H, W)`.

    Returns:
        `(D, H, W)` labels, and what they are called.
    """
    parts, count = connected(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    order = np.argsort(-sizes, kind="stable")[:LARGEST_LABEL]
    table = np.zeros(count + 1, np.uint8)
    table[order + 1] = np.arange(1, order.size + 1)
    return table[parts], {number: f"mitochondrion {number}" for number in range(1, order.size + 1)}


def read_stack(path: Path) -> NDArray[np.uint8]:
    """Read all pages of a TIFF file.

    Returns:
        `(D, H, W)`.

    Raises:
        UserError: It is broken, has one page only, pages of different sizes, or more than 8 bits.
    """
    from PIL import Image as Pillow
    from PIL import ImageSequence, UnidentifiedImageError

    pages: list[NDArray[np.uint8]] = []
    try:
        with catch_warnings(action="error"), Pillow.open(path) as stack:  # Pillow only warns of a file cut short
            for page in ImageSequence.Iterator(stack):
                if page.mode.startswith(("I", "F")):
                    raise UserError(f"{path} has more than 8 bits a pixel. Use the stacks as published.")
                pages.append(np.asarray(page.convert("L")))
    except UserError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, KeyError, TypeError, Warning) as error:
        raise UserError(
            f"{path} cannot be read as a TIFF stack: it is damaged or cut short. Download it again."
        ) from error
    if len(pages) < 2 or any(page.shape != pages[0].shape for page in pages):
        raise UserError(f"{path} is no stack of pages of one size. Use the stacks as published.")
    return np.stack(pages)


DATA_SET = DataSet(
    name="epfl",
    title="EPFL mitochondria",
    body_part="mouse hippocampus (CA1)",
    licence="none stated",
    licence_read_at="the data set's page",
    source="epfl.ch/labs/cvlab/data/data-em",
    label_origin="manual",
    find=find,
    read=read,
)
