from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from imos.errors import UserError
from imos.imaging import Image, ImageKind, read_image, read_label_map, write_label_map

TILT = np.radians(20)
ORIENTATIONS = [
    ((1, 0, 0, 0, 1, 0), (0, 0, 2.5)),
    ((1, 0, 0, 0, 1, 0), (0, 0, -2.5)),
    ((0, 1, 0, 0, 0, -1), (3.0, 0, 0)),
    ((1, 0, 0, 0, np.cos(TILT), np.sin(TILT)), (0, -2.0 * np.sin(TILT), 2.0 * np.cos(TILT))),
]


@pytest.fixture(params=ORIENTATIONS, ids=["axial", "axial reversed", "sagittal", "oblique"])
def series(request: pytest.FixtureRequest, tmp_path: Path, make_series: Any, slices: NDArray[np.int16]) -> Image:
    orientation, step = request.param
    make_series(tmp_path / "series", slices, orientation=orientation, step=step)
    return read_image(tmp_path / "series")


def objects(image: Image) -> NDArray[np.uint16]:
    labels = np.zeros(image.shape, np.uint16)
    labels[2:6, 3:8, 1:4] = 7
    labels[6:9, 1:4, 2:6] = 300
    labels[0, 0, 6] = 2
    return labels


def test_segmentation_is_read_back_voxel_for_voxel(series: Image, tmp_path: Path) -> None:
    labels = objects(series)
    write_label_map(tmp_path / "seg.dcm", labels, series)
    np.testing.assert_array_equal(read_label_map(tmp_path / "seg.dcm", series), labels)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1000), used=st.sets(st.integers(0, 6), min_size=1))
def test_sparse_slices_keep_their_places(multi_frame: Path, tmp_path: Path, seed: int, used: set[int]) -> None:
    image = read_image(multi_frame)
    labels = np.zeros(image.shape, np.uint16)
    for k in used:
        labels[:, :, k] = np.random.default_rng(seed + k).choice([0, 1, 5], labels.shape[:2])
        labels[0, 0, k] = 5
    write_label_map(tmp_path / "seg.dcm", labels, image)
    np.testing.assert_array_equal(read_label_map(tmp_path / "seg.dcm", image), labels)


def test_segmentation_refers_to_its_series_and_names_its_segments(
    tmp_path: Path, make_series: Any, slices: NDArray[np.int16]
) -> None:
    make_series(tmp_path / "series", slices)
    image = read_image(tmp_path / "series")
    write_label_map(tmp_path / "seg.dcm", objects(image), image, names={7: "Liver"})
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    source = pydicom.dcmread(image.dicom_files[0])
    assert seg.Modality == "SEG"
    assert seg.StudyInstanceUID == source.StudyInstanceUID
    assert seg.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
    assert [segment.SegmentLabel for segment in seg.SegmentSequence] == ["Label 2", "Liver", "Label 300"]
    np.testing.assert_array_equal(read_label_map(tmp_path / "seg.dcm", image), objects(image))


def test_segmentation_in_the_series_folder_is_no_second_series(
    tmp_path: Path, make_series: Any, slices: NDArray[np.int16]
) -> None:
    make_series(tmp_path, slices)
    image = read_image(tmp_path)
    write_label_map(tmp_path / "seg.dcm", objects(image), image)
    assert read_image(tmp_path).shape == image.shape
    np.testing.assert_array_equal(read_label_map(tmp_path, image), objects(image))


def test_segmentation_of_a_dicom_series_lands_on_a_converted_image(
    tmp_path: Path, make_series: Any, slices: NDArray[np.int16]
) -> None:
    make_series(tmp_path / "series", slices)
    image = read_image(tmp_path / "series")
    write_label_map(tmp_path / "seg.dcm", objects(image), image)
    affine = image.affine @ np.array([[-1.0, 0, 0, 9], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    voxels = np.flip(image.voxels, 0).transpose(0, 2, 1)
    converted = Image(voxels, affine, ImageKind.VOLUME, "converted")
    expected = np.flip(objects(image), 0).transpose(0, 2, 1)
    np.testing.assert_array_equal(read_label_map(tmp_path / "seg.dcm", converted), expected)


def test_deidentified_series_can_be_segmented(tmp_path: Path, make_series: Any, slices: NDArray[np.int16]) -> None:
    def forget(dataset: Dataset, index: int) -> None:
        del dataset.FrameOfReferenceUID, dataset.StudyInstanceUID, dataset.InstanceNumber

    make_series(tmp_path / "series", slices, edit=forget)
    image = read_image(tmp_path / "series")
    write_label_map(tmp_path / "seg.dcm", objects(image), image)
    np.testing.assert_array_equal(read_label_map(tmp_path / "seg.dcm", image), objects(image))


def test_segment_numbers_are_the_labels_of_foreign_segmentations(
    tmp_path: Path, make_series: Any, slices: NDArray[np.int16]
) -> None:
    make_series(tmp_path / "series", slices)
    image = read_image(tmp_path / "series")
    write_label_map(tmp_path / "seg.dcm", objects(image), image)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    for segment in seg.SegmentSequence:
        del segment.TrackingID
        segment.SegmentLabel = "Organ"
    seg.save_as(tmp_path / "foreign.dcm")
    labels = read_label_map(tmp_path / "foreign.dcm", image)
    expected = np.select([objects(image) == value for value in (2, 7, 300)], [1, 2, 3])
    np.testing.assert_array_equal(labels, expected)


def test_fractional_segmentation_is_cut_at_one_half(
    tmp_path: Path, make_series: Any, slices: NDArray[np.int16]
) -> None:
    make_series(tmp_path / "series", slices)
    image = read_image(tmp_path / "series")
    labels = np.zeros(image.shape, np.uint8)
    labels[2:6, 3:8, 3] = 1
    write_label_map(tmp_path / "seg.dcm", labels, image)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    fractions = np.where(labels[:, :, 3].T, 128, 127).astype(np.uint8)
    seg.SegmentationType, seg.MaximumFractionalValue = "FRACTIONAL", 255
    seg.BitsAllocated, seg.BitsStored, seg.HighBit, seg.PixelData = 8, 8, 7, fractions.tobytes()
    seg.save_as(tmp_path / "fractional.dcm")
    np.testing.assert_array_equal(read_label_map(tmp_path / "fractional.dcm", image), labels)


def test_segmentation_needs_a_dicom_image(tmp_path: Path, make_image: Any) -> None:
    with pytest.raises(UserError, match="refers to DICOM images"):
        write_label_map(tmp_path / "seg.dcm", np.ones((8, 9, 10), np.uint8), make_image())


def test_empty_segmentation_is_refused(series: Image, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no voxel is labelled"):
        write_label_map(tmp_path / "seg.dcm", np.zeros(series.shape, np.uint8), series)
    assert [file.name for file in tmp_path.iterdir()] == ["series"]


def test_image_given_as_a_prompt_is_refused(series: Image) -> None:
    with pytest.raises(UserError, match="not a segmentation"):
        read_label_map(series.dicom_files[0], series)


def test_segmentation_given_as_an_image_is_refused(series: Image, tmp_path: Path) -> None:
    write_label_map(tmp_path / "seg.dcm", objects(series), series)
    with pytest.raises(UserError, match="is a DICOM segmentation"):
        read_image(tmp_path / "seg.dcm")


@pytest.mark.parametrize("keep", [100, 1500, -20])
def test_truncated_segmentation_is_refused(series: Image, tmp_path: Path, keep: int) -> None:
    write_label_map(tmp_path / "seg.dcm", objects(series), series)
    (tmp_path / "seg.dcm").write_bytes((tmp_path / "seg.dcm").read_bytes()[:keep])
    with pytest.raises(UserError, match=r"seg.dcm"):
        read_label_map(tmp_path / "seg.dcm", series)
