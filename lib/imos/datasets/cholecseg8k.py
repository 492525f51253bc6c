"""CholecSeg8k: gallbladder operations, clips of 80 frames, `https://www.kaggle.com/datasets/newslab/cholecseg8k`.

```
video01/video01_00080/frame_80_endo.png                  the frame
                      frame_80_endo_watershed_mask.png   its classes, as equal gray values in all channels
                      frame_80_endo_mask.png  frame_80_endo_color_mask.png    not read
```

A video is a patient, a folder in it a case. The class table of the publishers prints gray values as if they were
hexadecimal (`#212121`); the masks hold them as decimal numbers (21). A white line runs along the border of the masks,
and a few pixels hold no class: both become background.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imos.datasets.published import (
    DataSet,
    LabelledImage,
    Listing,
    PublishedCase,
    check_same_shape,
    folder_with,
    read_picture,
)
from imos.errors import UserError
from imos.imaging.image import Image, ImageKind

CLASSES = {
    1: "abdominal wall",
    2: "liver",
    3: "gastrointestinal tract",
    4: "fat",
    5: "grasper",
    6: "connective tissue",
    7: "blood",
    8: "cystic duct",
    9: "L-hook electrocautery",
    10: "gallbladder",
    11: "hepatic vein",
    12: "liver ligament",
}

GRAY_VALUES = {11: 1, 21: 2, 13: 3, 12: 4, 31: 5, 23: 6, 24: 7, 25: 8, 32: 9, 22: 10, 33: 11, 5: 12}
"""Class of each gray value of a watershed mask."""

BACKGROUND = (0, 50, 255)
"""Gray values of what was not segmented, of the black around the picture, and of the line along the border."""

UNKNOWN_SHARE = 0.1
"""With more pixels than this of other gray values a file is no watershed mask."""

_VIDEO = re.compile(r"video\d+")
_CLIP = re.compile(r"video\d+_\d+")
_FRAME = re.compile(r"frame_(\d+)_endo\.png")


def find(root: Path) -> Listing:
    """All clips.

    Raises:
        UserError: There are no clips, one has no frames, or a frame has no mask.
    """
    folder = folder_with(root, ("CholecSeg8k", "cholecseg8k", "archive"), lambda place: bool(_clips(place)))
    if folder is None:
        raise UserError(f"{root} has no clip (video01/video01_00080). Name the folder that holds CholecSeg8k's videos.")
    cases: list[PublishedCase] = []
    for clip in _clips(folder):
        numbered = [(int(match[1]), path) for path in clip.iterdir() if (match := _FRAME.fullmatch(path.name))]
        frames = tuple(path for _, path in sorted(numbered))
        if len(frames) < 2:
            raise UserError(f"{clip} has {len(frames)} frames (frame_80_endo.png, …). Unpack it again.")
        masks = tuple(path.with_name(f"{path.stem}_watershed_mask.png") for path in frames)
        for frame, mask in zip(frames, masks, strict=True):
            if not mask.is_file():
                raise UserError(f"{mask} is missing: {frame.name} has no labels. Unpack it, or delete the frame.")
        cases.append(PublishedCase(clip.parent.name, clip.name, "laparoscopic cholecystectomy, RGB", frames, masks))
    return Listing(tuple(cases))


def read(case: PublishedCase) -> LabelledImage:
    """Read a clip.

    Raises:
        UserError: A picture is broken, sizes differ, or masks hold something else than classes.
    """
    pictures = [read_picture(path, "RGB") for path in case.images]
    masks = [read_picture(path, "RGB")[..., 0] for path in case.labels]
    for path, picture in zip(case.images, pictures, strict=True):
        check_same_shape(path, picture.shape[:2], case.images[0], pictures[0].shape[:2])
    for path, frame, mask in zip(case.labels, case.images, masks, strict=True):
        check_same_shape(path, mask.shape, frame, pictures[0].shape[:2])
    labels, unknown = classes_of(np.stack(masks, axis=2))
    if unknown > UNKNOWN_SHARE:
        raise UserError(f"{case.labels[0]} and the masks beside it are no watershed masks: {unknown:.0%} has no class.")
    video = Image(np.stack(pictures, axis=2), np.eye(4), ImageKind.VIDEO, case.name, case.images[0])
    said = f"{unknown:.2%} of the pixels without a known class: background" if unknown else "as published"
    return LabelledImage(video, labels, CLASSES, preprocessing=said)


def classes_of(gray: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
    """Classes of watershed masks.

    Args:
        gray: Any shape.

    Returns:
        Labels of the same shape, 0 for background and unknown values; and the share of unknown values.
    """
    table = np.zeros(256, np.uint8)
    for value, label in GRAY_VALUES.items():
        table[value] = label
    known = np.zeros(256, np.bool_)
    known[[*GRAY_VALUES, *BACKGROUND]] = True
    return table[gray], float(1 - known[gray].mean())


def _clips(folder: Path) -> list[Path]:
    videos = sorted(path for path in folder.iterdir() if _VIDEO.fullmatch(path.name) and path.is_dir())
    return [
        clip for video in videos for clip in sorted(video.iterdir()) if _CLIP.fullmatch(clip.name) and clip.is_dir()
    ]


DATA_SET = DataSet(
    name="cholecseg8k",
    title="CholecSeg8k",
    body_part="abdomen (laparoscopy)",
    licence="CC BY-NC-SA 4.0",
    licence_read_at="arxiv.org/abs/2012.12453",
    source="kaggle.com/datasets/newslab/cholecseg8k",
    label_origin="manual, with watershed",
    find=find,
    read=read,
)
