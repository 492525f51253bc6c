"""A collection of labelled volumes and frame sequences, described by two tables.

`volumes.tsv` has one row a volume (`FILE.nii.gz` with labels in `FILE.seg.nii.gz`), `frames.tsv` one row a sequence
(`SPLIT/frames/SET/SEQUENCE/images/*.jpg` or `*.png` with `masks/*.png`). A column `split` says what each is for.

Volumes of more than 8 bits, such as Hounsfield values, are windowed when they are read: for the labelled tissue, as a
session chooses the window by what was painted.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from imos.errors import UserError

STILLS = "-"
"""What frames.tsv says instead of a sequence's name where a row is a set of single pictures."""

UNLABELLED = "-"
"""What volumes.tsv says instead of labels where a volume has none, and no file of them."""


_COLUMNS = {
    "volumes.tsv": ("split", "set", "case", "file", "modality", "slice_axis"),
    "frames.tsv": ("split", "set", "sequence", "modality"),
}
_AXES = ("0", "1", "2")


class Modality(StrEnum):
    """Groups of the result tables."""

    MRI = "MRI"
    CT = "CT"
    EM = "EM"
    ENDOSCOPY = "endoscopy"
    MICROSCOPY = "microscopy"
    ULTRASOUND = "ultrasound"
    NATURAL = "natural"


_BEGINNINGS = (("MR", Modality.MRI), ("CT", Modality.CT), ("micro-CT", Modality.CT), ("EM", Modality.EM))
_WORDS = (
    ("laryng", Modality.ENDOSCOPY),
    ("colono", Modality.ENDOSCOPY),
    ("laparo", Modality.ENDOSCOPY),
    ("ultrasound", Modality.ULTRASOUND),
    ("microscopy", Modality.MICROSCOPY),
)


def modality_of(description: str) -> Modality:
    """The group of a table's free text, e.g. `MR T1` or `colonoscopy, RGB`."""
    for beginning, modality in _BEGINNINGS:
        if description.startswith(beginning):
            return modality
    for word, modality in _WORDS:
        if word in description:
            return modality
    return Modality.NATURAL


@dataclass(frozen=True, slots=True)
class Case:
    """One volume or frame sequence.

    Attributes:
        group: Data set it belongs to.
        name: Volume or sequence.
        modality: Group of the result tables.
        path: NIfTI file, or folder with `images` and `masks`.
        axis: Array axis to walk along; for frames 0.
        is_video: Frames instead of a volume.
        path_of_labels: Label map, or folder of masks; None where nothing is labelled.
    """

    group: str
    name: str
    modality: Modality
    path: Path
    axis: int
    is_video: bool
    path_of_labels: Path | None

    def load(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Slices and labels.

        Returns:
            `(D, H, W)` gray or `(D, H, W, 3)` RGB uint8, and `(D, H, W)` uint8, walked along the first axis; labels
            are 0 throughout where there are none.

        Raises:
            UserError: A file is missing or unreadable, image and labels differ in shape, or a label is above 255.
        """
        try:
            return self._load_frames(self.path / "masks") if self.is_video else self._load_volume()
        except (OSError, EOFError) as error:
            raise UserError(f"Cannot read {self.path} or its labels: {error}") from error

    def _load_volume(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        import nibabel  # here: training from a pack needs no reader of medical formats

        try:
            image = np.asarray(nibabel.load(self.path).dataobj)
            if self.path_of_labels is None:
                pair = [image, np.zeros(image.shape, np.uint8)]
            else:
                pair = [image, np.asarray(nibabel.load(self.path_of_labels).dataobj)]
        except nibabel.filebasedimages.ImageFileError as error:
            raise OSError(error) from error
        if pair[0].shape != pair[1].shape:
            raise UserError(f"{self.path} and its labels differ in shape: {pair[0].shape} and {pair[1].shape}.")
        if pair[0].ndim != 3:
            raise UserError(f"{self.path} has {pair[0].ndim} dimensions; a volume of a collection has three.")
        if pair[1].dtype != np.uint8:
            from imos.imaging.geometry import check_labels

            pair[1] = check_labels(pair[1], str(self.path_of_labels))
            if pair[1].max() > 255:
                raise UserError(f"{self.path_of_labels} holds the label {pair[1].max()}; collections go up to 255.")
        slices, labels = (np.ascontiguousarray(np.moveaxis(array, self.axis, 0)) for array in pair)
        return self._windowed(slices, labels), labels.astype(np.uint8, copy=False)

    def _windowed(self, slices: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.uint8]:
        if slices.dtype == np.uint8:
            return slices
        from imos.imaging import Image, ImageKind, apply_window, choose_window

        modality = "CT" if self.modality is Modality.CT else "OT"  # DICOM's word for others: no Hounsfield values
        image = Image(slices, np.eye(4), ImageKind.VOLUME, self.path.name, modality=modality)
        return apply_window(slices, choose_window(image, slices[labels > 0] if labels.any() else None))

    def _load_frames(self, folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        frames: list[NDArray[np.uint8]] = []
        masks: list[NDArray[np.uint8]] = []
        for path in sorted(path for path in (self.path / "images").glob("*") if path.suffix in (".jpg", ".png")):
            frame, mask = cv2.imread(str(path)), cv2.imread(str(folder / f"{path.stem}.png"), -1)
            if frame is None or mask is None:
                raise UserError(f"Cannot read {path} or its mask {path.stem}.png.")
            frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
            masks.append(mask)
        if not frames:
            raise UserError(f"There are no frames in {self.path / 'images'}.")
        stack = np.stack(frames)
        if (stack.max(-1) == stack.min(-1)).all():
            stack = np.ascontiguousarray(stack[..., 0])
        return stack, np.stack(masks)


def read_collection(root: Path, split: str) -> list[Case]:
    """All labelled sequences of one split.

    Args:
        root: Folder with `volumes.tsv` and `frames.tsv` (one of them is enough).
        split: E.g. `train` or `val`.

    Raises:
        UserError: There are no tables, or none of their rows is of this split and labelled.
    """
    tables = [root / name for name in ("volumes.tsv", "frames.tsv")]
    if not any(table.is_file() for table in tables):
        raise UserError(f"{root} has neither volumes.tsv nor frames.tsv. Give the folder of a collection.")
    cases = [case for case in _volumes(root, split) if case.path_of_labels is not None]
    for row in _rows(tables[1]):
        if row["split"] == split and row["sequence"] != STILLS:
            path = root / split / "frames" / row["set"] / row["sequence"]
            modality = modality_of(row["modality"])
            cases.append(Case(row["set"], row["sequence"], modality, path, 0, True, path / "masks"))
    if not cases:
        known = sorted({row["split"] for table in tables for row in _rows(table)})
        raise UserError(f"{root} has no case of split '{split}'. Its splits: {', '.join(known) or 'none'}.")
    return cases


def unlabelled_volumes(root: Path, split: str) -> list[Case]:
    """The volumes of one split that nobody labelled; perhaps none."""
    return [case for case in _volumes(root, split) if case.path_of_labels is None]


def _volumes(root: Path, split: str) -> Iterator[Case]:
    for row in _rows(root / "volumes.tsv"):
        if row["split"] == split:
            path = root / row["file"]
            labels = path.with_name(path.name.replace(".nii.gz", ".seg.nii.gz"))
            has_labels = row.get("labels", "").strip() != UNLABELLED
            if row["slice_axis"] not in _AXES:
                raise UserError(
                    f"{root / 'volumes.tsv'}: slice_axis of {row['file']} is 0, 1 or 2, not '{row['slice_axis']}'."
                )
            modality, axis = modality_of(row["modality"]), int(row["slice_axis"])
            yield Case(row["set"], row["case"], modality, path, axis, False, labels if has_labels else None)


def stills(root: Path, split: str) -> list[tuple[Path, Path]]:
    """Single pictures with masks: pairs of files in `SPLIT/stills/SET/{images,masks}`."""
    pairs: list[tuple[Path, Path]] = []
    for image in sorted((root / split / "stills").glob("*/images/*")):
        mask = image.parents[1] / "masks" / f"{image.stem}.png"
        if mask.is_file():
            pairs.append((image, mask))
    return pairs


def _rows(table: Path) -> list[dict[str, str]]:
    """The rows of a table; none where it is not there."""
    if not table.is_file():
        return []
    try:
        with table.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, delimiter="\t")
            rows, columns = list(reader), reader.fieldnames or ()
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"Cannot read {table}: {error}. It is text with columns parted by tabs.") from error
    missing = [name for name in _COLUMNS[table.name] if name not in columns]
    if missing:
        raise UserError(f"{table} has no column {', '.join(missing)}. Its columns are parted by tabs.")
    for line, row in enumerate(rows, 2):
        if any(row[name] is None for name in _COLUMNS[table.name]):
            raise UserError(f"{table} has too few columns in line {line}. Its columns are parted by tabs.")
    return rows
