"""Synthesis: a volume of any format as a DICOM series.

The same voxels at the same place, in the order in which a viewer expects them: upright, slices along the plane in which
the image was acquired. UIDs are made from the image's id and are the same at every start.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import DSfloat

from imos.imaging import Image, ImageKind, choose_window, is_hounsfield
from imos.imaging.geometry import RAS_FROM_LPS
from imos.imaging.planes import array_axes
from imos.server.grids import Grid

_CT, _MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def uid(kind: str, image_id: str, *more: object) -> str:
    """A UID that is the same whenever it is made.

    Args:
        kind: `study`, `series`, `frame` of reference or `instance`.
        image_id: Of the image.
        more: What tells several of a kind apart.
    """
    return str(generate_uid(entropy_srcs=["iMOS", kind, image_id, *(str(part) for part in more)]))


@dataclass(frozen=True, slots=True)
class Stack:
    """How an image's array becomes slices.

    Attributes:
        order: Image axes that become slices, rows and columns.
        flipped: Which of them run the other way.
        origin: `(3,)` mm in LPS, centre of the first pixel of the first slice.
        steps: `(3, 3)` mm in LPS from one slice, row and column to the next; a row each.
    """

    order: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    origin: NDArray[np.float64]
    steps: NDArray[np.float64]

    def slices(self, image: Image) -> NDArray[Any]:
        """`(slices, rows, columns[, 3])`, without copying."""
        rest = (3,) if image.is_rgb else ()
        turned: NDArray[Any] = image.voxels.transpose(*self.order, *rest)
        back = tuple(slice(None, None, -1) if flipped else slice(None) for flipped in self.flipped)
        upright: NDArray[Any] = turned[back]
        return upright


def stack_of(image: Image) -> Stack | None:
    """How an image is presented; None where DICOM cannot hold it: a video, or axes that are not at right angles."""
    if image.kind is not ImageKind.VOLUME:
        return None
    affine = RAS_FROM_LPS @ image.affine
    vectors = affine[:3, :3].T
    spacing = np.linalg.norm(vectors, axis=1)
    units = vectors / spacing[:, None]
    if np.abs(units @ units.T - np.eye(3)).max() > 1e-3:
        return None
    across = array_axes(image.affine)  # image axis for each world axis
    widest = int(np.argmax(spacing))
    slices = widest if spacing[widest] > 1.01 * np.sort(spacing)[1] else across[2]
    world = {axis: number for number, axis in enumerate(across)}
    columns, rows = sorted((axis for axis in range(3) if axis != slices), key=lambda axis: world[axis])
    # Columns run to the patient's left or back, rows to the back or down, as on any workstation.
    wanted = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, -1]])
    flip = {axis: bool(units[axis] @ wanted[world[axis]] < 0) for axis in (rows, columns)}
    signs = {axis: -1.0 if flip[axis] else 1.0 for axis in (rows, columns)}
    normal = np.cross(signs[columns] * units[columns], signs[rows] * units[rows])
    flip[slices] = bool(units[slices] @ normal < 0)
    order = (slices, rows, columns)
    start = [image.shape[axis] - 1 if flip[axis] else 0 for axis in range(3)]
    steps = np.array([-vectors[axis] if flip[axis] else vectors[axis] for axis in order])
    origin = affine[:3, 3] + np.array(start, dtype=np.float64) @ vectors
    return Stack(order, (flip[slices], flip[rows], flip[columns]), origin, steps)


def series_grid(image: Image) -> Grid | None:
    """The grid on which a viewer sees the series made of an image: columns, rows, slices. None where there is none."""
    stack = stack_of(image)
    if stack is None:
        return None
    slices, rows, columns = stack.order
    affine = np.eye(4)
    affine[:3, :3] = stack.steps[::-1].T
    affine[:3, 3] = stack.origin
    return Grid((image.shape[columns], image.shape[rows], image.shape[slices]), RAS_FROM_LPS @ affine)


@dataclass(frozen=True, slots=True)
class Scale:
    """How grey values become stored ones: `value = stored · slope + intercept`.

    Attributes:
        kind: `int16`, `uint16`, or `uint8` for colours.
        slope: Greater than 0.
        intercept: Any.
    """

    kind: str
    slope: float
    intercept: float

    @classmethod
    def of(cls, image: Image) -> Scale:
        """The one that loses nothing where that is possible in 16 bits."""
        voxels = image.voxels
        if image.is_rgb:
            return cls("uint8", 1.0, 0.0)
        low, high = float(voxels.min()), float(voxels.max())
        is_whole = voxels.dtype.kind in "iu" or is_hounsfield(image)
        if is_whole and low >= 0 and high <= 65535:
            return cls("uint16", 1.0, 0.0)
        if is_whole and low >= -32768 and high <= 32767:
            return cls("int16", 1.0, 0.0)
        return cls("uint16", max((high - low) / 65535, 1e-12), low)

    def store(self, values: NDArray[Any]) -> NDArray[Any]:
        """Stored values of any shape."""
        if self.kind == "uint8" or (self.slope == 1 and self.intercept == 0 and values.dtype.kind in "iu"):
            return values.astype(self.kind)
        limits = np.iinfo(self.kind)
        stored = np.rint((values.astype(np.float64) - self.intercept) / self.slope)
        clipped: NDArray[Any] = np.clip(stored, limits.min, limits.max).astype(self.kind)
        return clipped


@dataclass(frozen=True, eq=False)
class Synthesis:
    """How one image is presented as a series; the voxels stay with the image.

    Attributes:
        image_id: Its id.
        when: The date that its file has.
        size: Slices, rows, columns.
        stack: Where they lie.
        scale: How values are stored.
        modality: DICOM Modality.
        window: Lowest and highest value to show.
    """

    image_id: str
    when: datetime
    size: tuple[int, int, int]
    stack: Stack
    scale: Scale
    modality: str
    window: tuple[float, float]

    @classmethod
    def of(cls, image_id: str, image: Image, when: datetime) -> Synthesis | None:
        """Present an image; None where DICOM cannot hold it."""
        stack = stack_of(image)
        if stack is None:
            return None
        size = (image.shape[stack.order[0]], image.shape[stack.order[1]], image.shape[stack.order[2]])
        if image.is_rgb:
            return cls(image_id, when, size, stack, Scale.of(image), "OT", (0.0, 255.0))
        modality = "CT" if image.modality == "CT" or is_hounsfield(image) else "MR"
        window = choose_window(image)
        return cls(image_id, when, size, stack, Scale.of(image), modality, (window.low, window.high))

    @property
    def count(self) -> int:
        """Number of slices."""
        return self.size[0]

    def instance_uid(self, index: int) -> str:
        """UID of a slice."""
        return uid("instance", self.image_id, index)

    def frame(self, image: Image, index: int) -> bytes:
        """The pixels of a slice, little endian, row by row."""
        stored = self.scale.store(self.stack.slices(image)[index])
        return np.ascontiguousarray(stored).astype(stored.dtype.newbyteorder("<")).tobytes()

    def instance(self, image: Image, index: int) -> Dataset:
        """A slice with its pixels, as a file."""
        dataset = self.header(index)
        pixels = self.frame(image, index)
        dataset.PixelData = pixels + b"\0" * (len(pixels) % 2)
        dataset["PixelData"].VR = "OW" if self.scale.kind != "uint8" else "OB"
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.is_little_endian, dataset.is_implicit_VR = True, False
        return dataset

    def header(self, index: int) -> Dataset:
        """Everything about a slice but its pixels."""
        stack, modality, is_rgb = self.stack, self.modality, self.scale.kind == "uint8"
        spacing = np.linalg.norm(stack.steps, axis=1)
        _slices, rows, columns = self.size
        dataset = Dataset()
        dataset.SpecificCharacterSet = "ISO_IR 192"
        dataset.ImageType = ["DERIVED", "PRIMARY", "AXIAL"] if modality == "CT" else ["DERIVED", "PRIMARY"]
        dataset.SOPClassUID = {"CT": _CT, "MR": _MR}.get(modality, _CAPTURE)
        dataset.SOPInstanceUID = self.instance_uid(index)
        dataset.StudyDate = dataset.SeriesDate = self.when.strftime("%Y%m%d")
        dataset.StudyTime = dataset.SeriesTime = self.when.strftime("%H%M%S")
        dataset.AccessionNumber = ""
        dataset.Modality = modality
        dataset.Manufacturer = ""
        dataset.ReferringPhysicianName = ""
        dataset.StudyDescription = dataset.SeriesDescription = self.image_id[:64]
        dataset.PatientName = dataset.PatientID = self.image_id[:64]
        dataset.PatientBirthDate = dataset.PatientSex = ""
        dataset.StudyInstanceUID = uid("study", self.image_id)
        dataset.SeriesInstanceUID = uid("series", self.image_id)
        dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = "1", 1, index + 1
        dataset.FrameOfReferenceUID = uid("frame", self.image_id)
        dataset.PositionReferenceIndicator = ""
        dataset.ImagePositionPatient = _numbers(stack.origin + index * stack.steps[0])
        # Rows first: the direction in which columns are counted.
        directions = [*(stack.steps[2] / spacing[2]), *(stack.steps[1] / spacing[1])]
        dataset.ImageOrientationPatient = _numbers(np.array(directions))
        dataset.PixelSpacing = _numbers(spacing[1:])
        (dataset.SliceThickness,) = _numbers(spacing[:1])
        (dataset.SpacingBetweenSlices,) = _numbers(spacing[:1])
        dataset.Rows, dataset.Columns = rows, columns
        bits = 8 if is_rgb else 16
        dataset.SamplesPerPixel = 3 if is_rgb else 1
        dataset.PhotometricInterpretation = "RGB" if is_rgb else "MONOCHROME2"
        if is_rgb:
            dataset.PlanarConfiguration = 0
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
        dataset.PixelRepresentation = int(self.scale.kind == "int16")
        if not is_rgb:
            dataset.RescaleSlope, dataset.RescaleIntercept = _numbers(
                np.array([self.scale.slope, self.scale.intercept])
            )
            dataset.RescaleType = "HU" if modality == "CT" else "US"
            low, high = self.window
            dataset.WindowCenter, dataset.WindowWidth = _numbers(np.array([(low + high) / 2, high - low]))
        return dataset


def _numbers(values: NDArray[np.float64]) -> list[DSfloat]:
    """Decimal strings, with as many digits as DICOM's sixteen characters hold."""
    return [DSfloat(float(value) + 0.0, auto_format=True) for value in values]
