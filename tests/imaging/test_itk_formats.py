"""NRRD and MetaImage, against SimpleITK: what other programs write is read, and what we write they read."""

from __future__ import annotations

from pathlib import Path

import nrrd
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from imos.errors import UserError
from imos.imaging import Image, ImageKind, read_image, read_label_map, write_label_map

DIRECTION = np.array([[0.0, 0.6, -0.8], [1.0, 0.0, 0.0], [0.0, -0.8, -0.6]])
RAS = np.diag([-1.0, -1.0, 1.0])


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-900, 900, shape).astype(np.int16)


def written_by_itk(path: Path, voxels: np.ndarray, *, compress: bool = True) -> Path:
    file = sitk.GetImageFromArray(np.ascontiguousarray(voxels.T))
    file.SetDirection(DIRECTION.ravel().tolist())
    file.SetSpacing((0.7, 0.8, 2.5))
    file.SetOrigin((-12.0, 30.0, 101.5))
    sitk.WriteImage(file, str(path), compress)
    return path


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".mha", ".mhd", ".nii.gz"])
@pytest.mark.parametrize("compress", [True, False])
def test_volume_written_by_itk_lies_where_itk_says(tmp_path: Path, suffix: str, compress: bool) -> None:
    voxels = noise(5, 6, 7)
    image = read_image(written_by_itk(tmp_path / f"mr{suffix}", voxels, compress=compress))
    np.testing.assert_array_equal(image.voxels, voxels)
    np.testing.assert_allclose(image.affine[:3, :3], RAS @ DIRECTION * [0.7, 0.8, 2.5], atol=1e-6)
    np.testing.assert_allclose(image.affine[:3, 3], [12.0, -30.0, 101.5], atol=1e-5)
    assert (image.name, image.kind) == ("mr", ImageKind.VOLUME)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".nii.gz"])
def test_label_map_written_here_lies_for_itk_where_the_image_lies(tmp_path: Path, suffix: str) -> None:
    image = read_image(written_by_itk(tmp_path / "mr.mha", noise(5, 6, 7)))
    labels = np.zeros(image.shape, np.uint16)
    labels[1, 2, 3] = 300
    write_label_map(tmp_path / f"labels{suffix}", labels, image)
    file = sitk.ReadImage(str(tmp_path / f"labels{suffix}"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(file).T, labels)
    np.testing.assert_allclose(np.reshape(file.GetDirection(), (3, 3)), DIRECTION, atol=1e-6)
    np.testing.assert_allclose(file.GetSpacing(), (0.7, 0.8, 2.5), rtol=1e-6)
    np.testing.assert_allclose(file.GetOrigin(), (-12.0, 30.0, 101.5), rtol=1e-6)


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("right-anterior-superior", (1, 1, 1)),
        ("left-anterior-superior", (-1, 1, 1)),
        ("left-posterior-superior", (-1, -1, 1)),
    ],
)
def test_nrrd_spaces_are_understood(tmp_path: Path, space: str, signs: tuple[int, ...]) -> None:
    header = {"space": space, "space directions": np.diag([1.0, 2.0, 3.0]), "space origin": [4.0, 5.0, 6.0]}
    nrrd.write(str(tmp_path / "a.nrrd"), noise(4, 5, 6), header)
    expected = np.diag([*signs, 1]) @ np.array([[1.0, 0, 0, 4], [0, 2, 0, 5], [0, 0, 3, 6], [0, 0, 0, 1]])
    np.testing.assert_allclose(read_image(tmp_path / "a.nrrd").affine, expected)


def test_nrrd_with_spacings_only_is_read_as_itk_does(tmp_path: Path) -> None:
    nrrd.write(str(tmp_path / "a.nrrd"), noise(4, 5, 6), {"spacings": [1.0, 2.0, 3.0]})
    np.testing.assert_allclose(read_image(tmp_path / "a.nrrd").affine, np.diag([-1.0, -2.0, 3.0, 1.0]))


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_colours_are_read_as_rgb(tmp_path: Path, suffix: str) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (7, 6, 5, 3)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(colours, isVector=True), str(tmp_path / f"rgb{suffix}"))
    image = read_image(tmp_path / f"rgb{suffix}")
    np.testing.assert_array_equal(image.voxels, colours.transpose(2, 1, 0, 3))


def segmentation_header(layers: int) -> dict[str, object]:
    """What 3D Slicer writes into a `.seg.nrrd`."""
    directions = np.diag([-1.0, -1.0, 2.0])
    if layers > 1:
        directions = np.vstack([[np.nan] * 3, directions])
    return {
        "space": "left-posterior-superior",
        "space directions": directions,
        "space origin": [0.0, 0.0, 0.0],
        "kinds": (["list"] if layers > 1 else []) + ["domain"] * 3,
        "Segment0_ID": "Segment_1",
        "Segment0_LabelValue": "1",
        "Segment0_Layer": "0",
    }


def test_slicer_segmentation_is_a_label_map(tmp_path: Path) -> None:
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1:3, 2, 3] = 1
    nrrd.write(str(tmp_path / "a.seg.nrrd"), labels, segmentation_header(1))
    image = Image(noise(4, 5, 6), np.diag([1.0, 1.0, 2.0, 1.0]), ImageKind.VOLUME, "mr")
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.seg.nrrd", image), labels)


def test_slicer_segmentation_with_overlapping_segments_is_refused(tmp_path: Path) -> None:
    nrrd.write(str(tmp_path / "a.seg.nrrd"), np.ones((2, 4, 5, 6), np.uint8), segmentation_header(2))
    image = Image(noise(4, 5, 6), np.diag([1.0, 1.0, 2.0, 1.0]), ImageKind.VOLUME, "mr")
    with pytest.raises(UserError, match="several layers"):
        read_label_map(tmp_path / "a.seg.nrrd", image)


def test_four_dimensional_nrrd_is_refused(tmp_path: Path) -> None:
    nrrd.write(str(tmp_path / "a.nrrd"), np.ones((5, 4, 5, 6), np.float32))
    with pytest.raises(UserError, match="four-dimensional"):
        read_image(tmp_path / "a.nrrd")


@pytest.mark.parametrize(
    "place",
    [
        "space: left-posterior-superior-time\nspace directions: (1,0,0,0) (0,1,0,0) (0,0,1,0)",
        "space dimension: 2\nspace directions: (1,0) (0,1) (1,1)",
        "space: left-posterior-superior\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0)",
    ],
)
def test_nrrd_that_does_not_lie_in_three_dimensions_is_refused(tmp_path: Path, place: str) -> None:
    path = tmp_path / "odd.nrrd"
    header = f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 3 4 5\nencoding: raw\n{place}\n\n"
    path.write_bytes(header.encode() + bytes(range(60)))
    with pytest.raises(UserError, match=r"three dimensions|cannot be read"):
        read_image(path)
