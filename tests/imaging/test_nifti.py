from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from imos.errors import UserError
from imos.imaging import ImageKind, read_image, read_label_map, write_label_map

AFFINE = np.array([[0.0, -2.0, 0.0, 3.0], [0.5, 0.0, 3.0, 4.0], [1.0, 0.0, 0.5, 5.0], [0.0, 0.0, 0.0, 1.0]])


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-900, 900, shape).astype(np.int16)


def save(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return path


def test_volume_is_read_as_stored(tmp_path: Path) -> None:
    voxels = noise(6, 7, 8)
    image = read_image(save(tmp_path / "ct.1.nii.gz", voxels))
    np.testing.assert_array_equal(image.voxels, voxels)
    np.testing.assert_array_equal(image.affine, AFFINE)
    assert (image.voxels.dtype, image.kind, image.name, image.shape) == (np.int16, "volume", "ct.1", (6, 7, 8))
    assert image.spacing == pytest.approx((1.25**0.5, 2.0, 9.25**0.5))


def test_scaling_in_the_header_is_applied(tmp_path: Path) -> None:
    file = nibabel.Nifti1Image(noise(4, 5, 6).astype(np.float32) / 4, AFFINE)
    file.set_data_dtype(np.int16)
    nibabel.save(file, tmp_path / "scaled.nii")
    image = read_image(tmp_path / "scaled.nii")
    assert image.voxels.dtype == np.float32
    np.testing.assert_allclose(image.voxels, noise(4, 5, 6) / 4, atol=0.01)


def test_big_endian_volume_is_read_natively(tmp_path: Path) -> None:
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    nibabel.save(nibabel.Nifti1Image(noise(4, 5, 6).astype(">i2"), AFFINE, header), tmp_path / "big.nii")
    image = read_image(tmp_path / "big.nii")
    assert image.voxels.dtype.isnative
    np.testing.assert_array_equal(image.voxels, noise(4, 5, 6))


def test_colours_are_read_as_rgb(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (4, 5, 6, 3)).astype(np.uint8)
    stored = np.ascontiguousarray(colours).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    image = read_image(save(tmp_path / "rgb.nii.gz", stored))
    assert image.is_rgb
    np.testing.assert_array_equal(image.voxels, colours)


@pytest.mark.parametrize("flat", [0, 1, 2])
def test_flat_series_is_a_video_and_its_label_map_has_the_files_shape(tmp_path: Path, flat: int) -> None:
    shape = [5, 6]
    shape.insert(flat, 1)
    voxels = noise(*shape, 7)
    image = read_image(save(tmp_path / "echo.nii.gz", voxels), time=True)
    assert (image.kind, image.shape) == (ImageKind.VIDEO, (5, 6, 7))
    np.testing.assert_array_equal(image.voxels, voxels.squeeze(flat))
    labels = np.zeros(image.shape, np.uint8)
    labels[1:3, 2:4, 5] = 2
    write_label_map(tmp_path / "labels.nii.gz", labels, image)
    written = nibabel.load(tmp_path / "labels.nii.gz")
    assert written.shape == voxels.shape
    np.testing.assert_allclose(written.affine, AFFINE)
    np.testing.assert_array_equal(read_label_map(tmp_path / "labels.nii.gz", image), labels)


def test_volume_is_a_video_if_asked_for(tmp_path: Path) -> None:
    image = read_image(save(tmp_path / "echo.nii.gz", noise(5, 6, 7)), time=True)
    assert (image.kind, image.shape) == ("video", (5, 6, 7))


def test_prompt_of_one_frame_lies_on_the_first_frame(tmp_path: Path) -> None:
    image = read_image(save(tmp_path / "echo.nii.gz", noise(5, 6, 1, 7)), time=True)
    painted = np.zeros((5, 6, 1), np.uint8)
    painted[2, 3] = 1
    labels = read_label_map(save(tmp_path / "prompt.nii.gz", painted), image)
    assert np.argwhere(labels).tolist() == [[2, 3, 0]]


@pytest.mark.parametrize(
    ("shape", "time", "message"),
    [
        ((5, 6, 7, 3), False, "3 volumes over time"),
        ((5, 6, 7, 3), True, "3 volumes over time"),
        ((5, 6, 1, 7), False, "Add --time"),
        ((5, 6), False, "2 dimensions"),
        ((5, 6, 7, 1, 2), False, "5 dimensions"),
        ((5, 6, 1), False, "only one slice"),
        ((5, 6, 1), True, "only one frame"),
    ],
)
def test_what_is_neither_volume_nor_video_is_refused(
    tmp_path: Path, shape: tuple[int, ...], time: bool, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read_image(save(tmp_path / "odd.nii.gz", noise(*shape)), time=time)


def test_single_volume_with_a_time_axis_is_a_volume(tmp_path: Path) -> None:
    assert read_image(save(tmp_path / "ct.nii.gz", noise(5, 6, 7, 1))).shape == (5, 6, 7)


def test_label_map_has_both_orientations_and_small_type(tmp_path: Path) -> None:
    rotation = np.diag([-1.5, -1.5, 3.0, 1.0])
    image = read_image(save(tmp_path / "ct.nii.gz", noise(5, 6, 7), rotation))
    labels = np.zeros(image.shape, np.int64)
    labels[0, 0, 0] = 255
    write_label_map(tmp_path / "a.nii.gz", labels, image)
    labels[0, 0, 0] = 256
    write_label_map(tmp_path / "b.nii.gz", labels, image)
    a, b = nibabel.load(tmp_path / "a.nii.gz"), nibabel.load(tmp_path / "b.nii.gz")
    assert (a.get_data_dtype(), b.get_data_dtype()) == (np.uint8, np.uint16)
    np.testing.assert_allclose(a.get_sform(), rotation)
    np.testing.assert_allclose(a.get_qform(), rotation)
    assert (int(a.header["sform_code"]), int(a.header["qform_code"])) == (1, 1)
