"""DICOM segmentation objects in (through pydicom) and out (through highdicom), as label maps.

DICOM numbers segments 1, 2, 3 …; a user's label values may have holes. The value is therefore written into each
segment's tracking identifier, "Label 7", and read from there; objects from elsewhere without it have their segment
numbers as labels. What a label map cannot hold, overlaps and segments without a voxel, is in `dicom_segments`.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from imos.errors import UserError
from imos.imaging.dicom import (
    DAMAGE,
    Placement,
    frame_placement,
    functional_group,
    is_segmentation,
    multi_frame_stack,
    plane_affine,
    read_header,
)
from imos.imaging.dicom_colors import Color, cielab, color_of_cielab

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from imos.imaging.image import Image

_logger = logging.getLogger(__name__)
_VALUE = re.compile(r"Label (\d{1,5})")
_MAX_SLICES = 20_000


@dataclass(frozen=True, slots=True)
class Described:
    """What a file says of a segment, beside its voxels.

    Attributes:
        value: The user's label value, 1…65535.
        name: What it is called; "Label N" where nobody said.
        color: To show it in, or None.
    """

    value: int
    name: str
    color: Color | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Frames:
    """A segmentation as its file holds it: frames of single segments, or of several (a label map), on its own grid.

    Attributes:
        pixels: `(N, rows, columns)`; not 0: belongs to the frame's segment. Label maps: number of the segment.
        indices: Slice of each frame.
        numbers: Number of each frame's segment; None for label maps.
        described: By the segments' numbers, in the order of the file.
        depth: Number of slices.
        affine: `(4, 4)`, (column, row, slice) to mm in RAS+.
        name: For messages.
    """

    pixels: NDArray[Any]
    indices: list[int]
    numbers: list[int | None]
    described: dict[int, Described]
    depth: int
    affine: NDArray[np.float64]
    name: str

    def flat(self) -> tuple[NDArray[np.uint16], dict[tuple[int, int], int]]:
        """All segments in one label map; where they overlap, the later one wins.

        Returns:
            `(columns, rows, slices)` label values; and in how many voxels the first value of a pair is hidden by the
            second.
        """
        labels = np.zeros((self.depth, *self.pixels.shape[1:]), dtype=np.uint16)
        hidden: dict[tuple[int, int], int] = {}
        for frame, index, number in zip(self.pixels, self.indices, self.numbers, strict=True):
            if number is None:
                for one in np.unique(frame[frame != 0]):
                    labels[index][frame == one] = self.value_of(int(one))
                continue
            mask, value = frame != 0, self.value_of(number)
            before = labels[index][mask]
            covered, counts = np.unique(before[(before != 0) & (before != value)], return_counts=True)
            for one, count in zip(covered.tolist(), counts.tolist(), strict=True):
                hidden[one, value] = hidden.get((one, value), 0) + count
            labels[index][mask] = value
        return labels.transpose(2, 1, 0), hidden

    def mask(self, number: int) -> NDArray[np.bool_]:
        """`(columns, rows, slices)`, one segment, whatever lies over it."""
        found = np.zeros((self.depth, *self.pixels.shape[1:]), dtype=bool)
        for frame, index, segment in zip(self.pixels, self.indices, self.numbers, strict=True):
            if segment in (None, number):
                found[index] |= frame == number if segment is None else frame != 0
        return found.transpose(2, 1, 0)

    def value_of(self, number: int) -> int:
        """The label value of a segment; its number where the file does not describe it."""
        return self.described[number].value if number in self.described else number


def read_frames_of(path: Path, image: Image) -> Frames:
    """Read a segmentation.

    Args:
        path: The file, or a folder that holds one segmentation.
        image: What it was painted on; tells the slice spacing where the file does not.

    Raises:
        UserError: It cannot be read, is no segmentation, or does not say where its frames lie.
    """
    import pydicom

    if path.is_dir():
        path = _only_segmentation(path)
    header = read_header(path)
    if header is not None and not is_segmentation(header):
        msg = f"{path.name} is a DICOM image, not a segmentation. Give a DICOM SEG or another label map as the prompt."
        raise UserError(msg)
    try:
        dataset = pydicom.dcmread(path, force=True)
        pixels = np.asarray(dataset.pixel_array).reshape(-1, dataset.Rows, dataset.Columns)
        described = _described(dataset)
        places, numbers = _frames(dataset, path)
    except UserError:
        raise
    except (pydicom.errors.InvalidDicomError, *DAMAGE) as error:
        msg = f"{path.name} cannot be read as DICOM SEG: it is damaged, cut short or compressed. Export it again."
        raise UserError(msg) from error
    if len(pixels) != len(places):
        msg = f"{path.name} holds {len(pixels)} frames but describes {len(places)}. Export it again."
        raise UserError(msg)
    if str(dataset.get("SegmentationType", "")) == "FRACTIONAL":
        pixels = pixels >= 0.5 * float(dataset.get("MaximumFractionalValue", 255))
    indices, affine, depth = _grid(places, path, dataset, image)
    return Frames(pixels, indices, numbers, described, depth, affine, path.name)


def read_dicom_seg(path: Path, image: Image) -> tuple[NDArray[np.uint16], NDArray[np.float64]]:
    """Read a segmentation as a label map.

    Args:
        path: The file, or a folder that holds one segmentation.
        image: What it was painted on; tells the slice spacing where the file does not.

    Returns:
        Labels `(columns, rows, slices)` on a grid of their own, and its affine (mm in RAS+). Where segments overlap,
        the later one wins.

    Raises:
        UserError: It cannot be read, is no segmentation, or does not say where its frames lie.
    """
    frames = read_frames_of(path, image)
    labels, hidden = frames.flat()
    if hidden:
        _logger.warning(
            "%s: segments overlap in %d voxels; the later segment was kept there", frames.name, sum(hidden.values())
        )
    return labels, frames.affine


def write_dicom_seg(
    path: Path,
    labels: NDArray[Any],
    image: Image,
    names: Mapping[int, str],
    colors: Mapping[int, Color] | None = None,
    empty: Sequence[int] = (),
) -> None:
    """Write a label map as a binary segmentation of the series it was made on.

    Args:
        path: `.dcm`.
        labels: `(I, J, K)` whole numbers on the image's grid, which is that of its DICOM files.
        image: The series.
        names: What each label is called; "Label N" otherwise.
        colors: To show labels in.
        empty: Labels without a voxel that get a segment all the same: looked for, and not there.

    Raises:
        UserError: No voxel is labelled: a label map without labels names no segment.
    """
    values = np.unique(labels)
    values = values[values != 0]
    if values.size == 0:
        msg = (
            f"{path.name} was not written: no voxel is labelled, and a DICOM SEG needs one."
            " Use .nii.gz, or paint again."
        )
        raise UserError(msg)
    named = sorted({*map(int, values.tolist()), *empty})
    numbers = np.zeros(named[-1] + 1, dtype=np.uint8 if len(named) < 256 else np.uint16)
    numbers[named] = np.arange(1, len(named) + 1)
    described = [Described(value, str(names.get(value, "")), (colors or {}).get(value)) for value in named]
    write_numbered(path, numbers[labels], described, image)


def write_numbered(path: Path, pixels: NDArray[Any], described: Sequence[Described], image: Image) -> None:
    """Write segments as a binary segmentation.

    Args:
        path: `.dcm`.
        pixels: On the image's grid: `(I, J, K)` numbers 1, 2, 3 … in the order of `described`, 0 for none; or, where
            they overlap, `(I, J, K, segments)` 0 and 1.
        described: At least one.
        image: The series.
    """
    import highdicom
    import pydicom
    from pydicom.sr.codedict import codes

    sources = [pydicom.dcmread(file, stop_before_pixels=True, force=True) for file in image.dicom_files]
    for source in sources:
        _fill_required(source, image)
    frames = pixels.transpose(2, 1, 0, *range(3, pixels.ndim))
    if len(sources) == 1:
        ordered = multi_frame_stack(sources[0], image.name)
        order = ordered.order if ordered is not None else tuple(range(len(frames)))
        frames = frames[np.argsort(order)]
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="iMOS", version=_version(), family=codes.DCM.ArtificialIntelligence
    )
    descriptions = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=_written_name(one.name) or f"Label {one.value}",
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=codes.SCT.Tissue,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
            algorithm_identification=algorithm,
            tracking_uid=highdicom.UID(),
            tracking_id=f"Label {one.value}",
        )
        for number, one in enumerate(described, start=1)
    ]
    for description, one in zip(descriptions, described, strict=True):
        if one.color is not None:
            description.RecommendedDisplayCIELabValue = cielab(one.color)
    segmentation = highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=np.ascontiguousarray(frames),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        series_instance_uid=highdicom.UID(),
        series_number=1000 + int(sources[0].get("SeriesNumber", 0) or 0) % 1_000_000,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="iMOS",
        manufacturer_model_name="iMOS",
        software_versions=_version(),
        device_serial_number="1",
        series_description="iMOS segmentation",
        content_label="SEGMENTATION",
    )
    # UTF-8, whatever the series has: names of segments come in any script.
    segmentation.SpecificCharacterSet = "ISO_IR 192"
    with path.open("wb") as file:
        pydicom.dcmwrite(file, segmentation, write_like_original=False)


def _written_name(name: str) -> str:
    """A name as DICOM can hold it: one line of 64 characters at most, without the backslash that parts values."""
    plain = "".join(letter if letter.isprintable() and letter != "\\" else " " for letter in name)
    return " ".join(plain.split())[:64].strip()


def _only_segmentation(folder: Path) -> Path:
    found = [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and (header := read_header(file)) is not None and is_segmentation(header)
    ]
    if len(found) != 1:
        msg = f"{folder.name} holds {len(found) or 'no'} DICOM segmentations. Give one DICOM SEG file as the prompt."
        raise UserError(msg)
    return found[0]


def _described(dataset: Any) -> dict[int, Described]:
    """What the file says of each segment, by its number."""
    values = _label_values(dataset)
    found: dict[int, Described] = {}
    for segment in dataset.SegmentSequence:
        value = values[int(segment.SegmentNumber)]
        name = str(segment.get("SegmentLabel", "") or "").strip() or f"Label {value}"
        color = color_of_cielab(segment.get("RecommendedDisplayCIELabValue"))
        found[int(segment.SegmentNumber)] = Described(value, name, color)
    return found


def _label_values(dataset: Any) -> dict[int, int]:
    """Label value of each segment number."""
    segments = list(dataset.SegmentSequence)
    for keyword in ("TrackingID", "SegmentLabel"):
        matches = [_VALUE.fullmatch(str(segment.get(keyword, ""))) for segment in segments]
        values = [int(match[1]) for match in matches if match is not None]
        if len(values) == len(segments) == len(set(values)) and all(1 <= value <= 65535 for value in values):
            return {int(segment.SegmentNumber): value for segment, value in zip(segments, values, strict=True)}
    return {int(segment.SegmentNumber): int(segment.SegmentNumber) for segment in segments}


def _frames(dataset: Any, path: Path) -> tuple[list[Placement], list[int | None]]:
    """Where each frame lies and which segment it shows; no segment for label maps."""
    shared = next(iter(dataset.get("SharedFunctionalGroupsSequence", [])), None)
    places: list[Placement] = []
    segments: list[int | None] = []
    is_label_map = str(dataset.get("SegmentationType", "")) == "LABELMAP"
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        place = frame_placement(frame, shared)
        if place is None:
            msg = f"{path.name} does not say where its frames lie. Export it with positions, or as NIfTI."
            raise UserError(msg)
        places.append(place)
        if is_label_map:
            segments.append(None)
        else:
            group = functional_group(frame, shared, "SegmentIdentificationSequence")
            segments.append(int(group.ReferencedSegmentNumber))  # type: ignore[union-attr]
    return places, segments


def _grid(
    places: list[Placement], path: Path, dataset: Any, image: Image
) -> tuple[list[int], NDArray[np.float64], int]:
    """Slice index of each frame on the smallest even grid that holds all, its affine, and its number of slices."""
    first = places[0]
    normal = np.cross(first.orientation[0], first.orientation[1])
    offsets = np.array([place.position for place in places]) - first.position
    heights = offsets @ normal
    aside = offsets - np.outer(heights, normal)
    if any(np.abs(place.orientation - first.orientation).max() > 1e-3 for place in places) or (
        np.linalg.norm(aside, axis=1).max() > 0.5 * min(first.pixel_spacing)
    ):
        msg = f"{path.name} has frames that are not one upright stack. Export it as NIfTI."
        raise UserError(msg)
    heights = heights - heights.min()
    for spacing in _possible_spacings(heights, normal, dataset, image):
        indices = heights / spacing
        if np.abs(indices - np.rint(indices)).max() < 0.05 and indices.max() < _MAX_SLICES:
            break
    else:
        msg = f"{path.name} has unevenly spaced frames. Export it as NIfTI."
        raise UserError(msg)
    lowest = places[int(np.argmin(heights))]
    affine = plane_affine(lowest, lowest.position, normal * spacing)
    whole = [int(index) for index in np.rint(indices)]
    return whole, affine, max(whole) + 1


def _possible_spacings(
    heights: NDArray[np.float64], normal: NDArray[np.float64], dataset: Any, image: Image
) -> list[float]:
    """Slice spacings to try: the image's along the frames' normal, the file's own, the least distance of two frames."""
    along = np.abs((np.array([-1.0, -1.0, 1.0]) * normal) @ (image.affine[:3, :3] / np.array(image.spacing)))
    spacings = [image.spacing[int(np.argmax(along))]] if along.max() > 0.999 else []
    shared = next(iter(dataset.get("SharedFunctionalGroupsSequence", [])), None)
    for frame in list(dataset.PerFrameFunctionalGroupsSequence)[:1]:
        measures = functional_group(frame, shared, "PixelMeasuresSequence")
        for keyword in ("SpacingBetweenSlices", "SliceThickness"):
            value = measures.get(keyword) if measures is not None else None
            if value:
                spacings.append(abs(float(value)))
    gaps = np.diff(np.unique(np.round(heights, 3)))
    if gaps.size:
        spacings.append(float(gaps.min()))
    return [spacing for spacing in spacings if spacing > 0] or [1.0]


def _fill_required(source: Any, image: Image) -> None:
    """Attributes that every image must have, empty if unknown, and that de-identified files often lack."""
    from pydicom.uid import generate_uid

    for keyword in (
        "AccessionNumber",
        "PatientBirthDate",
        "PatientID",
        "PatientName",
        "PatientSex",
        "ReferringPhysicianName",
        "StudyDate",
        "StudyID",
        "StudyTime",
    ):
        if keyword not in source:
            setattr(source, keyword, "")
    if "PixelSpacing" in source and not source.get("SliceThickness"):
        source.SliceThickness = round(image.spacing[2], 6)
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID"):
        if not source.get(keyword):
            # The same for all files of a series: made from what they share.
            setattr(source, keyword, generate_uid(entropy_srcs=[keyword, str(source.get("SeriesInstanceUID", ""))]))


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("imos")
    except PackageNotFoundError:
        return "0"
