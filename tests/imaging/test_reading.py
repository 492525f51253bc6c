"""Bad input: one line that names the file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from imos.errors import UserError
from imos.imaging import Image, ImageKind, read_image, read_label_map, write_label_map

SUFFIXES = [".nii", ".nii.gz", ".nrrd", ".mha"]


def saved(path: Path, voxels: np.ndarray) -> Path:
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
    return path


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".dcm", ".mhd", ".nhdr"])
@pytest.mark.parametrize("content", [b"", b"\x00" * 600, b"not an image at all\n" * 40], ids=["empty", "zeros", "text"])
def test_file_that_is_no_image_is_refused_in_one_line(
    tmp_path: Path, suffix: str, content: bytes, make_image: Any
) -> None:
    path = tmp_path / f"scan{suffix}"
    path.write_bytes(content)
    for read in (read_image, lambda path: read_label_map(path, make_image())):
        with pytest.raises(UserError, match=r"^scan\.") as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_truncated_file_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    image = Image(np.zeros((30, 30, 30), np.int16), np.eye(4), ImageKind.VOLUME, "image")
    labels = np.random.default_rng(0).integers(0, 60000, image.shape).astype(np.uint16)
    path = tmp_path / f"scan{suffix}"
    write_label_map(path, labels, image)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match=r"scan.* cannot be read as .*cut short"):
        read_image(path)


def test_uncompressed_meta_image_cut_short_is_refused(tmp_path: Path) -> None:
    import SimpleITK as sitk  # noqa: N813

    path = tmp_path / "scan.mha"
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((9, 9, 9), np.float32)), str(path), False)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="cut short"):
        read_image(path)


@pytest.mark.parametrize(
    ("real", "named"), [(".nrrd", ".nii.gz"), (".nii", ".nrrd"), (".nii.gz", ".mha"), (".mha", ".dcm")]
)
def test_wrong_suffix_is_refused(tmp_path: Path, real: str, named: str, make_image: Any) -> None:
    image = make_image()
    write_label_map(tmp_path / f"a{real}", np.ones(image.shape, np.uint8), image)
    (tmp_path / f"a{real}").rename(tmp_path / f"b{named}")
    with pytest.raises(UserError, match=f"b{named} cannot be read"):
        read_image(tmp_path / f"b{named}")


def test_unknown_suffix_missing_file_and_folders_without_images(tmp_path: Path) -> None:
    (tmp_path / "notes.docx").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "volumes").mkdir()
    saved(tmp_path / "volumes" / "a.nii.gz", np.zeros((3, 3, 3), np.uint8))
    for name, message in {
        "notes.docx": "in no format that is read here",
        "nowhere.nii.gz": "There is no file or folder",
        "empty": "holds no images",
        "volumes": r"Name one of its files, such as a\.nii\.gz",
    }.items():
        with pytest.raises(UserError, match=message):
            read_image(tmp_path / name)


@pytest.mark.parametrize(
    ("voxels", "message"),
    [
        (np.full((4, 5, 6), 7, np.int16), "all its voxels have the value 7"),
        (np.full((4, 5, 6), np.nan, np.float32), "none of its voxels is a number"),
        (np.ones((4, 5, 6), np.complex64), "complex64"),
        (np.ones((4, 5, 1), np.int16), "only one slice"),
    ],
)
def test_image_that_shows_nothing_is_refused(tmp_path: Path, voxels: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_image(saved(tmp_path / "scan.nii.gz", voxels))


def test_voxels_that_are_no_number_become_the_smallest_value(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).uniform(-3, 8, (4, 5, 6))
    voxels[0, 0, :3] = [np.nan, np.inf, -np.inf]
    low, high = voxels[np.isfinite(voxels)].min(), voxels[np.isfinite(voxels)].max()
    image = read_image(saved(tmp_path / "scan.nii.gz", voxels))
    assert image.voxels.dtype == np.float32
    np.testing.assert_allclose(image.voxels[0, 0, :3], [low, high, low], rtol=1e-6)


def test_reading_needs_no_torch_and_importing_nothing_heavy() -> None:
    code = (
        "import sys, imos.imaging as imaging; imaging.Plane, imaging.read_image, imaging.write_label_map;"
        "heavy = {'torch', 'SimpleITK', 'pydicom', 'highdicom', 'nrrd', 'nibabel', 'scipy', 'PIL', 'cv2'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
def test_one_changed_byte_of_packed_voxels_is_noticed(tmp_path: Path, suffix: str) -> None:
    """The checksum comes last: whoever stops reading when all voxels are there does not see it."""
    voxels = np.random.default_rng(0).integers(0, 4000, (24, 20, 16)).astype(np.uint16)
    image = Image(voxels, np.eye(4), ImageKind.VOLUME, "noise")
    path = tmp_path / f"volume{suffix}"
    write_label_map(path, voxels, image)
    assert np.array_equal(read_image(path).voxels, voxels)
    whole = path.read_bytes()
    for place in (0.5, 0.9):
        changed = bytearray(whole)
        changed[int(len(whole) * place)] ^= 0x10
        path.write_bytes(bytes(changed))
        with pytest.raises(UserError, match="cannot be read"):
            read_image(path)
