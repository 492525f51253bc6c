"""Images made for the tests: affines of every kind, and DICOM series as scanners write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from imos.imaging import Image, ImageKind

MakeImage = Callable[..., Image]
MakeSeries = Callable[..., list[Path]]


@pytest.fixture(scope="session")
def make_image() -> MakeImage:
    """`make_image(shape, affine)` → a volume of noise."""

    def make(shape: Sequence[int] = (8, 9, 10), affine: NDArray[np.float64] | None = None) -> Image:
        voxels = np.random.default_rng(0).integers(-1000, 1000, tuple(shape)).astype(np.int16)
        return Image(voxels, np.eye(4) if affine is None else affine, ImageKind.VOLUME, "image")

    return make


@pytest.fixture(scope="session")
def make_series() -> MakeSeries:
    """`make_series(folder, slices, …)` → the files of a CT series in the order of `slices`, under shuffled names."""

    def make(
        folder: Path,
        slices: NDArray[Any],
        *,
        orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
        origin: Sequence[float] = (-10.0, 20.0, 30.0),
        step: Sequence[float] = (0.0, 0.0, 2.5),
        pixel_spacing: Sequence[float] = (0.7, 0.9),
        shuffle: bool = True,
        edit: Callable[[Dataset, int], None] | None = None,
    ) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        study, series, reference = generate_uid(), generate_uid(), generate_uid()
        numbers = np.random.default_rng(1).permutation(len(slices)) if shuffle else np.arange(len(slices))
        files = []
        for index, pixels in enumerate(slices):
            dataset = make_slice(pixels)
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = study, series, reference
            dataset.SeriesDescription = "Abdomen"
            dataset.ImagePositionPatient = [float(a + index * b) for a, b in zip(origin, step, strict=True)]
            dataset.ImageOrientationPatient = list(orientation)
            dataset.PixelSpacing = list(pixel_spacing)
            dataset.InstanceNumber = int(numbers[index]) + 1
            if edit is not None:
                edit(dataset, index)
            files.append(folder / f"{numbers[index]:03d}.dcm")
            dataset.save_as(files[-1], write_like_original=False)
        return files

    return make


def make_slice(pixels: NDArray[Any]) -> FileDataset:
    """A CT image, or a video with `(T, rows, columns)` bytes or `(rows, columns, 3)` colours, without its place."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.is_little_endian, dataset.is_implicit_VR = True, False
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.Modality = "CT"
    colour = pixels.shape[-1] == 3
    dataset.Rows, dataset.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    if pixels.ndim == (4 if colour else 3):
        dataset.NumberOfFrames = len(pixels)
    bits = 8 * pixels.dtype.itemsize
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    if not colour and bits == 16:
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    return dataset


@pytest.fixture(scope="session")
def make_dicom() -> Callable[[NDArray[Any]], FileDataset]:
    """`make_dicom(pixels)` → a DICOM data set without a place."""
    return make_slice


@pytest.fixture
def slices() -> NDArray[np.int16]:
    """`(K, rows, columns)` stored values of a CT."""
    return np.random.default_rng(2).integers(0, 2000, (7, 12, 10)).astype(np.int16)


@pytest.fixture
def multi_frame(tmp_path: Path, slices: NDArray[np.int16], make_dicom: Callable[..., FileDataset]) -> Path:
    """An enhanced CT whose frames are stored in shuffled order."""
    order = [3, 0, 6, 2, 5, 1, 4]
    dataset = make_dicom(slices[order])
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.EnhancedCTImageStorage
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.FrameOfReferenceUID = generate_uid()
    del dataset.RescaleSlope, dataset.RescaleIntercept
    shared = Dataset()
    orientation, measures, values = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing, measures.SliceThickness = [0.7, 0.9], 2.5
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 1, -1024, "HU"
    shared.PlaneOrientationSequence = [orientation]
    shared.PixelMeasuresSequence = [measures]
    shared.PixelValueTransformationSequence = [values]
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for index in order:
        position, frame = Dataset(), Dataset()
        position.ImagePositionPatient = [-10.0, 20.0, 30.0 + 2.5 * index]
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames
    path = tmp_path / "enhanced.dcm"
    dataset.save_as(path, write_like_original=False)
    return path
