from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import RLELossless, generate_uid

from imos.errors import UserError
from imos.imaging import ImageKind, plane_axis, read_image

TILT = np.radians(20)
ORIENTATIONS = {
    "axial": ((1, 0, 0, 0, 1, 0), (0, 0, 2.5)),
    "axial, head first": ((1, 0, 0, 0, 1, 0), (0, 0, -2.5)),
    "sagittal": ((0, 1, 0, 0, 0, -1), (3.0, 0, 0)),
    "coronal": ((1, 0, 0, 0, 0, -1), (0, -3.0, 0)),
    "oblique": (
        (1, 0, 0, 0, np.cos(TILT), np.sin(TILT)),
        (0, -2.0 * np.sin(TILT), 2.0 * np.cos(TILT)),
    ),
}


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_every_voxel_lies_where_its_file_says(
    tmp_path: Path, make_series: Any, slices: NDArray[np.int16], name: str
) -> None:
    orientation, step = ORIENTATIONS[name]
    files = make_series(tmp_path / "series", slices, orientation=orientation, step=step)
    image = read_image(tmp_path / "series")
    assert (image.kind, image.modality, image.name, image.voxels.dtype) == ("volume", "CT", "series", np.int16)
    assert image.shape == (10, 12, 7)
    for k, file in enumerate(image.dicom_files):
        header = pydicom.dcmread(file)
        stored = slices[files.index(file)]
        np.testing.assert_array_equal(image.voxels[:, :, k].T, stored - 1024)
        row, column = 4, 7
        along_row, along_column = np.reshape(header.ImageOrientationPatient, (2, 3))
        place = header.ImagePositionPatient + along_row * 0.9 * column + along_column * 0.7 * row
        expected = np.array(place) * [-1, -1, 1]
        np.testing.assert_allclose((image.affine @ [column, row, k, 1])[:3], expected, atol=1e-4)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_series_lies_where_itk_reads_it(tmp_path: Path, make_series: Any, slices: NDArray[np.int16], name: str) -> None:
    orientation, step = ORIENTATIONS[name]
    make_series(tmp_path, slices, orientation=orientation, step=step)
    image = read_image(tmp_path)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    itk = reader.Execute()
    np.testing.assert_array_equal(image.voxels, sitk.GetArrayFromImage(itk).T)
    corner = (image.affine @ [3, 4, 5, 1])[:3] * [-1, -1, 1]
    np.testing.assert_allclose(itk.TransformIndexToPhysicalPoint((3, 4, 5)), corner, atol=1e-3)


def test_planes_of_a_sagittal_series(tmp_path: Path, make_series: Any, slices: NDArray[np.int16]) -> None:
    orientation, step = ORIENTATIONS["sagittal"]
    make_series(tmp_path, slices, orientation=orientation, step=step)
    image = read_image(tmp_path)
    assert [plane_axis(image, plane) for plane in ("sagittal", "coronal", "axial")] == [2, 0, 1]


def test_images_sent_twice_are_dropped(tmp_path: Path, make_series: Any, slices: NDArray[np.int16]) -> None:
    files = make_series(tmp_path, slices)
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "copy.dcm").write_bytes(files[2].read_bytes())
    renumbered = pydicom.dcmread(files[4])
    renumbered.SOPInstanceUID = renumbered.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    renumbered.save_as(tmp_path / "renumbered.dcm")
    image = read_image(tmp_path)
    np.testing.assert_array_equal(image.voxels.transpose(2, 1, 0), slices - 1024)


def test_files_without_suffix_and_other_files_beside_them(
    tmp_path: Path, make_series: Any, slices: NDArray[np.int16]
) -> None:
    for number, file in enumerate(make_series(tmp_path, slices)):
        file.rename(tmp_path / f"IM{number:04d}")
    (tmp_path / "README.txt").write_text("exported on a CD")
    assert read_image(tmp_path).shape == (10, 12, 7)


def test_exported_cd_is_read(tmp_path: Path, make_series: Any, slices: NDArray[np.int16]) -> None:
    files = make_series(tmp_path / "DICOM" / "ST000" / "SE000", slices)
    contents = pydicom.dcmread(files[0], stop_before_pixels=True)
    contents.file_meta.MediaStorageSOPClassUID = pydicom.uid.MediaStorageDirectoryStorage
    contents.save_as(tmp_path / "DICOMDIR")
    np.testing.assert_array_equal(read_image(tmp_path).voxels.transpose(2, 1, 0), slices - 1024)


@pytest.mark.parametrize(("missing", "message"), [((3,), "1 slice missing"), ((2, 3), "2 slices missing")])
def test_missing_slices_are_named(
    tmp_path: Path, make_series: Any, slices: NDArray[np.int16], missing: tuple[int, ...], message: str
) -> None:
    files = make_series(tmp_path, slices)
    for index in missing:
        files[index].unlink()
    before, after = files[missing[0] - 1].name, files[missing[-1] + 1].name
    gap = 2.5 * (len(missing) + 1)
    with pytest.raises(
        UserError, match=f"{message} between {before} and {after}: they are {gap:.2f} mm apart, the others 2.50"
    ):
        read_image(tmp_path)


def test_unevenly_spaced_slices_are_refused(tmp_path: Path, make_series: Any, slices: NDArray[np.int16]) -> None:
    def move(dataset: Dataset, index: int) -> None:
        dataset.ImagePositionPatient[2] = [0, 2, 4.9, 7, 9, 11.8, 14][index]

    make_series(tmp_path, slices, edit=move)
    with pytest.raises(UserError, match="unevenly spaced"):
        read_image(tmp_path)


def test_positions_rounded_by_the_scanner_are_even(tmp_path: Path, make_series: Any, slices: NDArray[np.int16]) -> None:
    def rounded(dataset: Dataset, index: int) -> None:
        dataset.ImagePositionPatient = [-10.0, 20.0, round(30 + 1.25 * index, 1)]

    make_series(tmp_path, slices, edit=rounded)
    assert read_image(tmp_path).spacing[2] == pytest.approx(1.25, abs=0.02)


def test_gantry_tilt_is_refused_with_its_angle(tmp_path: Path, make_series: Any, slices: NDArray[np.int16]) -> None:
    make_series(tmp_path, slices, step=(0.0, 2.5 * np.tan(np.radians(15)), 2.5))
    with pytest.raises(UserError, match=r"sheared by 15.0° \(gantry tilt\)"):
        read_image(tmp_path)


def test_localizer_in_the_series_is_refused(tmp_path: Path, make_series: Any, slices: NDArray[np.int16]) -> None:
    def turn(dataset: Dataset, index: int) -> None:
        if index == 0:
            dataset.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]

    make_series(tmp_path, slices, edit=turn)
    with pytest.raises(UserError, match="not parallel"):
        read_image(tmp_path)


def test_several_series_are_listed(tmp_path: Path, make_series: Any, slices: NDArray[np.int16]) -> None:
    def describe(dataset: Dataset, index: int) -> None:
        dataset.SeriesDescription = "Scout"

    make_series(tmp_path / "a", slices)
    make_series(tmp_path / "b", slices[:2], edit=describe)
    with pytest.raises(UserError, match=r"2 series: Abdomen \(CT, 7 images\); Scout \(CT, 2 images\)"):
        read_image(tmp_path)


def test_different_images_at_one_place_are_refused(tmp_path: Path, make_series: Any, slices: NDArray[np.int16]) -> None:
    def fold(dataset: Dataset, index: int) -> None:
        dataset.ImagePositionPatient[2] = float(index // 2)

    make_series(tmp_path, slices[:6], edit=fold)
    with pytest.raises(UserError, match="different images at one place"):
        read_image(tmp_path)


def test_images_of_one_slice_are_a_video_if_asked_for(
    tmp_path: Path, make_series: Any, slices: NDArray[np.int16]
) -> None:
    make_series(tmp_path, slices, step=(0, 0, 0), shuffle=False)
    with pytest.raises(UserError, match="Add --time"):
        read_image(tmp_path)
    image = read_image(tmp_path, time=True)
    assert (image.kind, image.shape, len(image.frame_names)) == ("video", (12, 10, 7), 7)
    np.testing.assert_array_equal(image.voxels, np.moveaxis(slices, 0, 2) - 1024)


def test_slices_without_a_place_are_refused(tmp_path: Path, make_series: Any, slices: NDArray[np.int16]) -> None:
    def forget(dataset: Dataset, index: int) -> None:
        del dataset.ImagePositionPatient

    make_series(tmp_path, slices, edit=forget)
    with pytest.raises(UserError, match="does not say where its slice lies"):
        read_image(tmp_path)


def test_slope_of_each_slice_is_applied(tmp_path: Path, make_series: Any, slices: NDArray[np.int16]) -> None:
    def scale(dataset: Dataset, index: int) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.Modality = 0.5 * (index + 1), 0, "PT"

    make_series(tmp_path, slices, edit=scale)
    image = read_image(tmp_path)
    expected = slices * (0.5 * np.arange(1, 8))[:, None, None]
    np.testing.assert_allclose(image.voxels.transpose(2, 1, 0), expected, rtol=1e-6)


def test_inverted_gray_is_turned(tmp_path: Path, make_series: Any, slices: NDArray[np.int16]) -> None:
    def invert(dataset: Dataset, index: int) -> None:
        dataset.PhotometricInterpretation, dataset.Modality, dataset.RescaleIntercept = "MONOCHROME1", "MR", 0
        dataset.PixelRepresentation = 0

    make_series(tmp_path, slices, edit=invert)
    np.testing.assert_array_equal(read_image(tmp_path).voxels.transpose(2, 1, 0), 65535 - slices.astype(np.int32))


def test_series_without_pixels_is_refused(tmp_path: Path, make_series: Any, slices: NDArray[np.int16]) -> None:
    def forget(dataset: Dataset, index: int) -> None:
        del dataset.PixelData

    make_series(tmp_path, slices, edit=forget)
    with pytest.raises(UserError, match="damaged, cut short"):
        read_image(tmp_path)


def test_compressed_series_is_read(tmp_path: Path, make_series: Any, slices: NDArray[np.int16]) -> None:
    def compress(dataset: Any, index: int) -> None:
        dataset.compress(RLELossless, slices[index], encoding_plugin="pydicom")

    make_series(tmp_path, slices, edit=compress)
    np.testing.assert_array_equal(read_image(tmp_path).voxels.transpose(2, 1, 0), slices - 1024)


def test_compression_that_only_gdcm_knows_is_read(
    tmp_path: Path, make_series: Any, slices: NDArray[np.int16], monkeypatch: pytest.MonkeyPatch
) -> None:
    test_compressed_series_is_read(tmp_path, make_series, slices)

    def refuse(dataset: Any) -> None:
        raise NotImplementedError("no handler")

    monkeypatch.setattr(pydicom.dataset.Dataset, "pixel_array", property(refuse))
    np.testing.assert_array_equal(read_image(tmp_path).voxels.transpose(2, 1, 0), slices - 1024)


def test_compression_that_nobody_knows_is_refused(tmp_path: Path, make_series: Any, slices: NDArray[np.int16]) -> None:
    def disguise(dataset: Any, index: int) -> None:
        dataset.compress(RLELossless, slices[index], encoding_plugin="pydicom")
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML

    make_series(tmp_path, slices, edit=disguise)
    with pytest.raises(UserError, match=r"compressed in a way that cannot be read here \(MPEG2"):
        read_image(tmp_path)


def test_multi_frame_file_is_a_volume_in_order(multi_frame: Path, slices: NDArray[np.int16]) -> None:
    image = read_image(multi_frame)
    assert (image.kind, image.name, image.dicom_files) == ("volume", "enhanced", (multi_frame,))
    np.testing.assert_array_equal(image.voxels.transpose(2, 1, 0), slices - 1024)
    np.testing.assert_allclose(image.affine[:3, 3], [10, -20, 30])
    assert image.spacing == pytest.approx((0.9, 0.7, 2.5))


@pytest.mark.parametrize("colour", [True, False])
def test_ultrasound_loop_is_a_video(
    tmp_path: Path, make_dicom: Callable[[NDArray[Any]], FileDataset], colour: bool
) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (5, 8, 10, 3)).astype(np.uint8)
    if not colour:
        frames[:] = frames[..., :1]
    dataset = make_dicom(frames)
    dataset.Modality = "US"
    dataset.save_as(tmp_path / "loop.dcm", write_like_original=False)
    image = read_image(tmp_path / "loop.dcm")
    assert (image.kind, image.is_rgb, image.shape, image.dicom_files) == (ImageKind.VIDEO, colour, (8, 10, 5), ())
    np.testing.assert_array_equal(image.voxels, np.moveaxis(frames if colour else frames[..., 0], 0, 2))


def test_single_image_is_refused(tmp_path: Path, make_series: Any, slices: NDArray[np.int16]) -> None:
    files = make_series(tmp_path, slices)
    with pytest.raises(UserError, match="Give the folder with all slices"):
        read_image(files[0])


@pytest.mark.parametrize("keep", [60, 500, -50])
def test_truncated_file_is_named(tmp_path: Path, make_series: Any, slices: NDArray[np.int16], keep: int) -> None:
    files = make_series(tmp_path, slices)
    files[3].write_bytes(files[3].read_bytes()[:keep])
    with pytest.raises(UserError, match=files[3].name):
        read_image(tmp_path)


@pytest.mark.parametrize("more", [-2, 2])
def test_multi_frame_file_that_places_other_frames_than_it_has_is_refused(multi_frame: Path, more: int) -> None:
    dataset = pydicom.dcmread(multi_frame)
    one = len(dataset.PixelData) // dataset.NumberOfFrames
    pixels = dataset.PixelData * 2
    dataset.NumberOfFrames += more
    dataset.PixelData = pixels[: one * dataset.NumberOfFrames]
    dataset.save_as(multi_frame)
    with pytest.raises(UserError, match="frames and says of"):
        read_image(multi_frame)
