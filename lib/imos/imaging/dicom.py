"""DICOM images in: a folder with the slices of one series, or one multi-frame file.

Slices are ordered by where they lie, whatever the files are called. Images sent twice are dropped. What cannot become
one volume (several series, missing slices, a tilted gantry, several images at one place) is refused with what was
found, because a volume with a wrong geometry looks right and measures wrong. Frames without positions, such as
ultrasound, are a video.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from imos.errors import UserError
from imos.imaging.geometry import RAS_FROM_LPS, check_affine
from imos.imaging.image import Image, ImageKind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_SEGMENTATION_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_SPATIAL_MODALITIES = ("CT", "MR", "NM", "PT", "RTDOSE")  # never a video without being asked
# What pydicom raises on damaged files and on compression that it does not know.
DAMAGE = (AttributeError, EOFError, KeyError, NotImplementedError, OSError, RuntimeError, TypeError, ValueError)
_SAME_PLACE = 0.01  # mm
_SAME_DIRECTION = 1e-3


@dataclass(frozen=True)
class Placement:
    """Where one slice lies.

    Attributes:
        position: `(3,)` mm in LPS, centre of the first pixel.
        orientation: `(2, 3)` unit vectors in LPS, along a row and along a column.
        pixel_spacing: mm between rows and between columns.
    """

    position: NDArray[np.float64]
    orientation: NDArray[np.float64]
    pixel_spacing: tuple[float, float]


@dataclass(frozen=True)
class Stack:
    """Slices in order, and the affine of the volume that they make.

    Attributes:
        order: Index of the slice in the list given, for each slice of the volume.
        affine: `(4, 4)`, (column, row, slice) to mm in RAS+.
    """

    order: tuple[int, ...]
    affine: NDArray[np.float64]


def read_dicom(path: Path, *, time: bool = False) -> Image:
    """Read a series as a volume, or frames without positions as a video.

    Args:
        path: A folder, searched with its subfolders, or one multi-frame file.
        time: Whether images at one place are a video.

    Returns:
        A volume `(columns, rows, slices)`, ordered along the normal of its slices, rescaled to Hounsfield units where
        the file says how; or a video `(rows, columns, time)`.

    Raises:
        UserError: There is no image, more than one series, or no single volume in it; or a file cannot be read.
    """
    try:
        return _read(path, time=time)
    except UserError:
        raise
    except DAMAGE as error:  # attributes that are there but hold what their kind of value cannot be
        raise _unreadable(path) from error


def _read(path: Path, *, time: bool) -> Image:
    headers = _headers(path)
    images = [(file, header) for file, header in headers if "Rows" in header and not is_segmentation(header)]
    if not images:
        if headers and is_segmentation(headers[0][1]):
            msg = (
                f"{path.name} is a DICOM segmentation, not an image."
                " Give it as the prompt, and the series as the image."
            )
        elif headers:
            msg = f"{path.name} holds DICOM files but no images. Give the folder of an image series."
        else:
            msg = (
                f"{path.name} cannot be read as DICOM: it is damaged or another kind of file. Export or copy it again."
            )
        raise UserError(msg)
    _check_one_series(path, images)
    if len(images) == 1:
        file, header = images[0]
        if int(header.get("NumberOfFrames", 1) or 1) > 1:
            return _read_multi_frame(file, path, time=time)
        msg = f"{path.name} is a single DICOM image. Give the folder with all slices of the series."
        raise UserError(msg)
    if any(int(header.get("NumberOfFrames", 1) or 1) > 1 for _, header in images):
        msg = f"{path.name} holds {len(images)} multi-frame files of one series. Give one of the files."
        raise UserError(msg)
    return _read_series(path, images, time=time)


def is_segmentation(header: Any) -> bool:
    """Whether a DICOM header is one of a segmentation object."""
    return str(header.get("SOPClassUID", "")) in _SEGMENTATION_CLASSES


def read_header(file: Path) -> Any | None:
    """Everything before the pixels, or None if the file is not DICOM."""
    import pydicom

    try:
        # Some archives write files without the preamble; the suffix must say so then.
        header = pydicom.dcmread(file, stop_before_pixels=True, force=file.suffix.lower() == ".dcm")
    except (pydicom.errors.InvalidDicomError, *DAMAGE):
        return None
    known = "SOPClassUID" in header or "Rows" in header or "MediaStorageSOPClassUID" in header.file_meta
    return header if known else None


def multi_frame_stack(header: Any, name: str) -> Stack | None:
    """Order and affine of the frames of a multi-frame image, or None where the file does not say where they lie."""
    frames = list(header.get("PerFrameFunctionalGroupsSequence", []))
    shared = next(iter(header.get("SharedFunctionalGroupsSequence", [])), None)
    places: list[Placement] = []
    for frame in frames:
        place = frame_placement(frame, shared)
        if place is None:
            return None
        places.append(place)
    if not places:
        return None
    return stack(places, [f"frame {number}" for number in range(1, len(places) + 1)], name)


def functional_group(frame: Any, shared: Any, keyword: str) -> Any | None:
    """First item of a frame's functional group, from the frame itself or from what all frames share."""
    for groups in (frame, shared):
        if groups is not None:
            items = groups.get(keyword)
            if items:
                return items[0]
    return None


def frame_placement(frame: Any, shared: Any) -> Placement | None:
    """Where a frame of a multi-frame object lies, or None where it does not say."""
    position = functional_group(frame, shared, "PlanePositionSequence")
    orientation = functional_group(frame, shared, "PlaneOrientationSequence")
    measures = functional_group(frame, shared, "PixelMeasuresSequence")
    if position is None or orientation is None or measures is None:
        return None
    return placement(
        position.get("ImagePositionPatient"), orientation.get("ImageOrientationPatient"), measures.get("PixelSpacing")
    )


def placement(position: Any, orientation: Any, pixel_spacing: Any) -> Placement | None:
    """Placement from DICOM's attributes, or None where one is missing or makes no plane."""
    if not position or not orientation or not pixel_spacing:
        return None
    try:
        where = np.array(position, dtype=np.float64)
        directions = np.array(orientation, dtype=np.float64).reshape(2, 3)
        rows, columns = (float(value) for value in pixel_spacing)
    except (TypeError, ValueError):
        return None
    lengths = np.linalg.norm(directions, axis=1)
    if where.shape != (3,) or not np.isfinite(where).all() or min(*lengths, rows, columns) <= 0:
        return None
    return Placement(where, directions / lengths[:, None], (rows, columns))


def stack(places: Sequence[Placement], names: Sequence[str], name: str) -> Stack:
    """Put slices in order and make sure that they form a regular volume.

    Args:
        places: Where the slices lie, no two at one place.
        names: What to call each in messages.
        name: What to call the series in messages.

    Raises:
        UserError: Slices are not parallel, missing, unevenly spaced, or shifted against each other (tilted gantry).
    """
    first = places[0]
    for place, where in zip(places, names, strict=True):
        if np.abs(place.orientation - first.orientation).max() > _SAME_DIRECTION:
            msg = (
                f"{name}: {where} is not parallel to {names[0]}. Remove localizer images, and give one stack of slices."
            )
            raise UserError(msg)
        if not np.allclose(place.pixel_spacing, first.pixel_spacing, rtol=1e-3):
            msg = f"{name}: {where} has other pixel spacing than {names[0]}. Give one stack of equal slices."
            raise UserError(msg)
    normal = np.cross(first.orientation[0], first.orientation[1])
    positions = np.array([place.position for place in places])
    heights = positions @ normal
    order = np.argsort(heights, kind="stable")
    heights, positions = heights[order], positions[order]
    if len(order) == 1:
        return Stack((0,), plane_affine(first, positions[0], normal))
    _check_even(heights, [names[index] for index in order], name)
    step = (heights[-1] - heights[0]) / (len(order) - 1)
    shifts = positions - positions[0] - np.outer(heights - heights[0], normal)
    shift = float(np.linalg.norm(shifts, axis=1).max())
    if shift > 0.5 * min(first.pixel_spacing):
        angle = float(np.degrees(np.arctan2(np.linalg.norm(shifts[-1]), heights[-1] - heights[0])))
        if angle > 0.1:
            what = f"its slices are sheared by {angle:.1f}° (gantry tilt)"
        else:
            what = f"its slices are shifted against each other by up to {shift:.1f} mm"
        msg = f"{name} is no upright stack: {what}. Resample it to one, for example with dcm2niix, and give the result."
        raise UserError(msg)
    return Stack(tuple(int(index) for index in order), plane_affine(first, positions[0], normal * step))


def plane_affine(place: Placement, origin: NDArray[np.float64], step: NDArray[np.float64]) -> NDArray[np.float64]:
    """Affine of slices that follow one another by `step` mm (LPS): (column, row, slice) to mm in RAS+."""
    affine = np.eye(4)
    affine[:3, 0] = place.orientation[0] * place.pixel_spacing[1]
    affine[:3, 1] = place.orientation[1] * place.pixel_spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = origin
    return RAS_FROM_LPS @ affine


def _headers(path: Path) -> list[tuple[Path, Any]]:
    from pydicom.uid import UID

    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    else:
        files = [path]
    headers: list[tuple[Path, Any]] = []
    for file in files:
        if file.name.upper() == "DICOMDIR":
            continue  # the table of contents of a CD
        header = read_header(file)
        if header is None:
            if file.suffix.lower() == ".dcm":
                raise _unreadable(file)
            continue
        storage = str(header.file_meta.get("MediaStorageSOPClassUID", "")) or str(header.get("SOPClassUID", ""))
        if "Rows" not in header and UID(storage).name.endswith("Image Storage"):
            raise _unreadable(file)  # cut short within its header
        headers.append((file, header))
    return headers


def _unreadable(file: Path) -> UserError:
    return UserError(
        f"{file.name} cannot be read as DICOM: it is damaged, cut short or another kind of file."
        " Export or copy it again."
    )


def _check_one_series(path: Path, images: list[tuple[Path, Any]]) -> None:
    series: dict[str, list[Any]] = {}
    for _, header in images:
        series.setdefault(str(header.get("SeriesInstanceUID", "")), []).append(header)
    if len(series) == 1:
        return
    listed = "; ".join(
        f"{str(group[0].get('SeriesDescription', '')).strip() or 'series ' + str(group[0].get('SeriesNumber', '?'))}"
        f" ({group[0].get('Modality', '?')}, {len(group)} image{'s' if len(group) > 1 else ''})"
        for group in sorted(series.values(), key=len, reverse=True)[:5]
    )
    more = "" if len(series) <= 5 else f"; and {len(series) - 5} more"
    msg = f"{path.name} holds {len(series)} series: {listed}{more}. Give a folder with one of them."
    raise UserError(msg)


def _read_series(path: Path, images: list[tuple[Path, Any]], *, time: bool) -> Image:
    known: dict[str, tuple[Path, Any]] = {}
    for file, header in images:
        known.setdefault(str(header.get("SOPInstanceUID", file)), (file, header))
    images = list(known.values())
    size = images[0][1].Rows, images[0][1].Columns
    for file, header in images:
        if (header.Rows, header.Columns) != size:
            msg = (
                f"{path.name}: {file.name} is {header.Columns}×{header.Rows} pixels and {images[0][0].name} is"
                f" {size[1]}×{size[0]}. Give one stack of equal slices."
            )
            raise UserError(msg)
    places = [
        placement(header.get("ImagePositionPatient"), header.get("ImageOrientationPatient"), header.get("PixelSpacing"))
        for _, header in images
    ]
    located = [place for place in places if place is not None]
    if len(located) < len(images):
        if located or (not time and images[0][1].get("Modality", "") in _SPATIAL_MODALITIES):
            file = images[places.index(None)][0]
            msg = (
                f"{path.name}: {file.name} does not say where its slice lies."
                " Export the series from the scanner or archive."
            )
            raise UserError(msg)
        return _read_cine(path, images)
    normal = np.cross(*located[0].orientation)
    heights = np.array([place.position @ normal for place in located])
    if len(images) > 1 and np.ptp(heights) < _SAME_PLACE:
        if time:
            return _read_cine(path, images)
        msg = f"{path.name} holds {len(images)} images of one slice. Add --time to take them as a video."
        raise UserError(msg)
    keep = _without_repeats(path, images, located)
    images, located = [images[index] for index in keep], [located[index] for index in keep]
    ordered = stack(located, [file.name for file, _ in images], path.name)
    files = [images[index][0] for index in ordered.order]
    voxels = _stacked([_slice_values(file) for file in files])
    return Image(
        voxels=voxels.transpose((2, 1, 0) if voxels.ndim == 3 else (2, 1, 0, 3)),
        affine=check_affine(ordered.affine, path.name),
        kind=ImageKind.VOLUME,
        name=path.resolve().name,
        source=path,
        modality=str(images[0][1].get("Modality", "")),
        dicom_files=tuple(files),
    )


def _without_repeats(path: Path, images: list[tuple[Path, Any]], places: list[Placement]) -> list[int]:
    """Indices of the images that remain when those sent twice are dropped."""
    at: dict[tuple[int, ...], list[int]] = {}
    for index, place in enumerate(places):
        key = (
            *(int(value) for value in np.rint(place.position / _SAME_PLACE)),
            *(int(value) for value in np.rint(place.orientation.ravel() * 100)),
        )
        at.setdefault(key, []).append(index)
    for group in at.values():
        if len(group) == 1:
            continue
        values = _slice_values(images[group[0]][0])
        if any(not np.array_equal(values, _slice_values(images[other][0])) for other in group[1:]):
            raise _several_at_one_place(path.name, images[group[0]][0].name, images[group[1]][0].name)
    return [group[0] for group in at.values()]


def _several_at_one_place(name: str, one: str, other: str) -> UserError:
    return UserError(
        f"{name} holds different images at one place ({one} and {other}): time points, echoes or b-values."
        " Give a series with one image a slice."
    )


def _check_even(heights: NDArray[np.float64], names: list[str], name: str) -> None:
    gaps = np.diff(heights)
    closest = int(np.argmin(gaps))
    if gaps[closest] < _SAME_PLACE:
        raise _several_at_one_place(name, names[closest], names[closest + 1])
    usual = float(np.median(gaps))
    widest = int(np.argmax(gaps))
    if gaps[widest] > 1.5 * usual:
        missing = round(float(gaps[widest]) / usual) - 1
        number = f"{missing} slice{'s' if missing > 1 else ''} missing" if missing > 0 else "a gap"
        msg = (
            f"{name} has {number} between {names[widest]} and {names[widest + 1]}: they are {gaps[widest]:.2f}"
            " mm apart,"
            f" the others {usual:.2f} mm. Export the whole series."
        )
        raise UserError(msg)
    even = np.linspace(heights[0], heights[-1], len(heights))
    if np.abs(heights - even).max() > max(0.1 * usual, 2 * _SAME_PLACE):
        msg = (
            f"{name} has unevenly spaced slices ({gaps.min():.2f} to {gaps.max():.2f} mm)."
            " Resample it to even slices, for example with dcm2niix, and give the result."
        )
        raise UserError(msg)


def _read_cine(path: Path, images: list[tuple[Path, Any]]) -> Image:
    images = sorted(images, key=lambda item: (int(item[1].get("InstanceNumber", 0) or 0), item[0].name))
    voxels = _stacked([_slice_values(file) for file, _ in images])
    return _video(path, voxels, images[0][1])


def _read_multi_frame(file: Path, path: Path, *, time: bool) -> Image:
    dataset = _dataset(file)
    if not time and _is_one_place(dataset):
        msg = f"{path.name} holds {dataset.NumberOfFrames} frames of one slice. Add --time to take them as a video."
        raise UserError(msg)
    ordered = None if time else multi_frame_stack(dataset, path.name)
    if ordered is None and not time and dataset.get("Modality", "") in _SPATIAL_MODALITIES:
        msg = (
            f"{path.name} does not say where its frames lie. Convert it to NIfTI, or add --time to take it as a video."
        )
        raise UserError(msg)
    values, rescaled = _decoded(dataset, file)
    if ordered is not None and len(ordered.order) != len(values):
        msg = (
            f"{path.name} holds {len(values)} frames and says of {len(ordered.order)} where they lie."
            " Export the series again."
        )
        raise UserError(msg)
    if not rescaled:
        values = _rescaled_frames(values, dataset)
    voxels = _stacked(list(values))
    if ordered is None:
        return _video(path, voxels, dataset)
    voxels = voxels[list(ordered.order)]
    return Image(
        voxels=voxels.transpose((2, 1, 0) if voxels.ndim == 3 else (2, 1, 0, 3)),
        affine=check_affine(ordered.affine, path.name),
        kind=ImageKind.VOLUME,
        name=path.resolve().name.removesuffix(".dcm"),
        source=path,
        modality=str(dataset.get("Modality", "")),
        dicom_files=(file,),
    )


def _is_one_place(dataset: Any) -> bool:
    """Whether the frames have positions that are all the same."""
    frames = dataset.get("PerFrameFunctionalGroupsSequence", [])
    groups = [functional_group(frame, None, "PlanePositionSequence") for frame in frames]
    positions = {tuple(group.get("ImagePositionPatient") or ()) for group in groups if group is not None}
    return len(frames) > 1 and len(positions) == 1 and positions != {()}


def _video(path: Path, voxels: NDArray[Any], header: Any) -> Image:
    """A video from `(T, rows, columns[, 3])`; its frames get names, so that a folder of label maps can be written."""
    return Image(
        voxels=np.moveaxis(voxels, 0, 2),
        affine=np.eye(4),
        kind=ImageKind.VIDEO,
        name=path.resolve().name.removesuffix(".dcm"),
        source=path,
        frame_names=tuple(f"frame{number:04d}" for number in range(len(voxels))),
        modality=str(header.get("Modality", "")),
    )


def _stacked(slices: list[NDArray[Any]]) -> NDArray[Any]:
    """`(K, rows, columns[, 3])` in the type that holds all slices. Colours that are all gray become gray."""
    values: NDArray[Any] = np.stack(slices)
    if values.ndim == 4 and (values[..., 0] == values[..., 1]).all() and (values[..., 0] == values[..., 2]).all():
        return np.ascontiguousarray(values[..., 0])
    return values


def _dataset(file: Path) -> Any:
    import pydicom

    try:
        return pydicom.dcmread(file, force=file.suffix.lower() == ".dcm")
    except (pydicom.errors.InvalidDicomError, *DAMAGE) as error:
        raise _unreadable(file) from error


def _slice_values(file: Path) -> NDArray[Any]:
    """`(rows, columns)` in the unit of the modality, or `(rows, columns, 3)` uint8."""
    dataset = _dataset(file)
    values, rescaled = _decoded(dataset, file)
    if not rescaled:
        values = _rescaled(values, dataset.get("RescaleSlope", 1), dataset.get("RescaleIntercept", 0))
    return values


def _rescaled_frames(values: NDArray[Any], dataset: Any) -> NDArray[Any]:
    frames = dataset.get("PerFrameFunctionalGroupsSequence")
    shared = next(iter(dataset.get("SharedFunctionalGroupsSequence", [])), None)
    if not frames or values.ndim == 4:
        return _rescaled(values, dataset.get("RescaleSlope", 1), dataset.get("RescaleIntercept", 0))
    result: list[NDArray[Any]] = []
    for frame, frame_values in zip(frames, values, strict=False):
        group = functional_group(frame, shared, "PixelValueTransformationSequence")
        slope, intercept = (1, 0) if group is None else (group.get("RescaleSlope", 1), group.get("RescaleIntercept", 0))
        result.append(_rescaled(frame_values, slope, intercept))
    return np.stack(result)


def _rescaled(values: NDArray[Any], slope: Any, intercept: Any) -> NDArray[Any]:
    slope, intercept = float(1 if slope in (None, "") else slope), float(intercept or 0)
    if values.dtype == np.uint8 and values.ndim >= 3 and values.shape[-1] == 3:
        return values
    if slope == 1 and intercept == 0:
        return values
    if slope == 1 and intercept == int(intercept) and values.dtype.itemsize <= 2:
        moved = values.astype(np.int32) + int(intercept)
        # Hounsfield units fit 16 bits: half the memory of float32 for the most common case.
        fits = moved.min() >= -32768 and moved.max() <= 32767
        return moved.astype(np.int16) if fits else moved
    return values.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def _decoded(dataset: Any, file: Path) -> tuple[NDArray[Any], bool]:
    """Pixels, and whether they are rescaled already."""
    if not any(keyword in dataset for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise _unreadable(file)
    try:
        if not hasattr(dataset, "file_meta") or "TransferSyntaxUID" not in dataset.file_meta:
            import pydicom

            dataset.ensure_file_meta()
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        values: NDArray[Any] = dataset.pixel_array
        return _plain_colours(values, dataset), False
    except DAMAGE as error:
        if dataset.file_meta.get("TransferSyntaxUID") is None or not dataset.file_meta.TransferSyntaxUID.is_compressed:
            raise _unreadable(file) from error
        return _decoded_by_gdcm(dataset, file), True


def _decoded_by_gdcm(dataset: Any, file: Path) -> NDArray[Any]:
    """Pixels of a compressed file through SimpleITK, which knows more ways of compression than pydicom alone."""
    import SimpleITK as sitk  # noqa: N813  its own documentation's name

    try:
        values: NDArray[Any] = sitk.GetArrayFromImage(sitk.ReadImage(str(file), imageIO="GDCMImageIO"))
    except RuntimeError as error:
        syntax = dataset.file_meta.TransferSyntaxUID.name
        msg = f"{file.name} is compressed in a way that cannot be read here ({syntax}). Export it uncompressed."
        raise UserError(msg) from error
    return values if int(dataset.get("NumberOfFrames", 1) or 1) > 1 else values[0]


def _plain_colours(values: NDArray[Any], dataset: Any) -> NDArray[Any]:
    from pydicom.pixel_data_handlers.util import apply_color_lut, convert_color_space

    kind = str(dataset.get("PhotometricInterpretation", ""))
    if kind == "PALETTE COLOR":
        values = apply_color_lut(values, dataset)
        return np.asarray(values if values.dtype == np.uint8 else values >> 8, dtype=np.uint8)
    if kind in ("YBR_FULL", "YBR_FULL_422"):
        values = np.asarray(convert_color_space(values, kind, "RGB"))
    if int(dataset.get("SamplesPerPixel", 1)) == 3 and values.dtype != np.uint8:
        return np.asarray(values >> max(int(dataset.BitsStored) - 8, 0), dtype=np.uint8)
    if kind == "MONOCHROME1":
        # Shown inverted: small stored values are bright.
        bits = int(dataset.BitsStored)
        return (2**bits - 1 if not dataset.PixelRepresentation else -1) - values
    return values
