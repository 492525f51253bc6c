"""The list of studies: a table with one row a study."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from imos.batch.archive import is_address
from imos.errors import UserError
from imos.imaging.formats import Format, format_of_input

COLUMNS = ("id", "image", "prompt", "output", "plane", "first", "last", "time")
REQUIRED = ("image", "prompt")
PLANES = ("auto", "axial", "coronal", "sagittal", "time")
_NAME = re.compile(r"[\w][\w.-]{0,99}")


@dataclass(frozen=True, slots=True)
class Study:
    """One row.

    Attributes:
        id: Its name, unlike all others; names its record.
        image: Path, or the DICOMweb address of a series.
        prompt: Label map with the painted slices: path, or the DICOMweb address of a segmentation's series.
        output: File name of the label map, in the output folder.
        plane: Of the painted slices.
        first: First slice to fill; None for all.
        last: Last slice to fill; None for all.
        time: Whether the image's fourth dimension is time.
        written: The row as it stands in the list.
    """

    id: str
    image: str
    prompt: str
    output: str
    plane: str = "auto"
    first: int | None = None
    last: int | None = None
    time: bool = False
    written: str = ""


def read_manifest(path: Path) -> list[Study]:
    """Read a list of studies, `.csv` or `.tsv`, with names of columns in its first line.

    Relative paths are relative to the list's folder. Without `id` a study is called by its image's name, without
    `output` its label map is `ID.nii.gz`, `ID.dcm` for a series in an archive, a folder `ID` for a folder of pictures.

    Raises:
        UserError: It cannot be read, or a row is wrong; the line is named.
    """
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}. Name a .csv or .tsv file.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8. Export it as .csv or .tsv.") from error
    reader = csv.DictReader(text.splitlines(), dialect="excel-tab" if path.suffix.lower() == ".tsv" else "excel")
    columns = [column.strip() for column in reader.fieldnames or ()]
    reader.fieldnames = columns
    for column in REQUIRED:
        if column not in columns:
            raise UserError(f"{path} has no column {column!r}. Its first line must name {', '.join(COLUMNS)}.")
    if unknown := [column for column in columns if column not in COLUMNS]:
        raise UserError(f"{path} has a column {unknown[0]!r}; known are {', '.join(COLUMNS)}.")
    studies: list[Study] = []
    ids: dict[str, int] = {}
    outputs: dict[str, int] = {}
    for row in _rows(reader, path):
        place = f"{path}:{reader.line_num}"
        if None in row or None in row.values():
            raise UserError(f"{place}: {len(columns)} columns are named, this line has another number.")
        study = _study({column: value.strip() for column, value in row.items()}, path.parent, place)
        for seen, value in ((ids, study.id), (outputs, study.output)):
            if value in seen:
                raise UserError(
                    f"{place}: {value} is there already, in line {seen[value]}. Give the row an id of its own."
                )
            seen[value] = reader.line_num
        studies.append(study)
    if not studies:
        raise UserError(f"{path} lists no study.")
    return studies


def _rows(reader: csv.DictReader[str], path: Path) -> Iterator[dict[str, str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: {error}. Export the list again.") from error


def _study(row: dict[str, str], folder: Path, place: str) -> Study:
    for column in REQUIRED:
        if not row[column]:
            raise UserError(f"{place}: {column} is empty.")
    image = row["image"]
    name = row.get("id") or _stem(image)
    if not _NAME.fullmatch(name):
        raise UserError(f"{place}: the id {name!r} is no name of letters, digits, '-', '_', '.' (100 at most).")
    where = _place(image, folder)
    output = row.get("output") or name + _suffix(where)
    if not _NAME.fullmatch(output):
        raise UserError(f"{place}: the output {output!r} must be a file's name alone; --output names its folder.")
    plane = row.get("plane") or "auto"
    if plane not in PLANES:
        raise UserError(f"{place}: there is no plane {plane!r}; known are {', '.join(PLANES)}.")
    time = (row.get("time") or "no").lower()
    if time not in ("yes", "no"):
        raise UserError(f"{place}: time must be yes or no, not {time!r}.")
    first, last = (_index(row.get(column, ""), column, place) for column in ("first", "last"))
    if first is not None and last is not None and first > last:
        raise UserError(f"{place}: first {first} lies behind last {last}. Swap them.")
    written = json.dumps({column: value for column, value in sorted(row.items()) if value})
    return Study(name, where, _place(row["prompt"], folder), output, plane, first, last, time == "yes", written)


def _stem(image: str) -> str:
    name = image.rstrip("/").rsplit("/", 1)[-1]
    return re.sub(r"\.(nii\.gz|nii|nrrd|mha|mhd|dcm)$", "", name, flags=re.IGNORECASE)


def _suffix(image: str) -> str:
    if is_address(image):
        return ".dcm"
    try:
        is_folder_of_pictures = format_of_input(Path(image)) is Format.FRAMES
    except (UserError, OSError):  # told when it is its turn
        is_folder_of_pictures = False
    return "" if is_folder_of_pictures else ".nii.gz"


def _place(written: str, folder: Path) -> str:
    return written if is_address(written) else str((folder / written).absolute())


def _index(text: str, column: str, place: str) -> int | None:
    if not text:
        return None
    if not text.isdecimal():
        raise UserError(f"{place}: {column} is no slice number: {text!r}. Slices are counted from 0.")
    return int(text)
