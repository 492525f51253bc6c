from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from imos.errors import UserError
from imos.imaging import Image, ImageKind, check_writable, read_image, write_label_map

SUFFIXES = [".nii", ".nii.gz", ".nrrd", ".mha"]

# A real limit on file size stands for a full disk: the write fails part-way, at the system's own boundary.
FULL_DISK = """
import resource, signal, sys
import numpy as np
from pathlib import Path
from imos.errors import UserError
from imos.imaging import Image, ImageKind, read_image, write_label_map

suffix, source = sys.argv[2], sys.argv[3]
if suffix == "folder":
    shape = (300, 300, 2)
    image = Image(np.zeros(shape, np.uint8), np.eye(4), ImageKind.VIDEO, "clip", frame_names=("a", "b"))
elif suffix == ".dcm":
    image = read_image(source)
    shape = image.shape
else:
    shape = (60, 60, 40)
    image = Image(np.zeros(shape, np.uint8), np.eye(4), ImageKind.VOLUME, "scan")
labels = np.random.default_rng(0).integers(1, 60000 if suffix != ".dcm" else 3, shape).astype(np.uint16)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_label_map(Path(sys.argv[1]) / ("labels" + suffix.replace("folder", "")), labels, image)
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".dcm", "folder"])
def test_full_disk_leaves_no_partial_file(tmp_path: Path, suffix: str, make_series: Any, slices: np.ndarray) -> None:
    make_series(tmp_path / "series", slices)
    out = tmp_path / "out"
    out.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(out), suffix, str(tmp_path / "series")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "the disk is full" in done.stdout, done.stderr
    assert done.returncode == 0, done.stderr
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_interruption_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_image: Any, suffix: str, error: type[BaseException]
) -> None:
    path = tmp_path / f"labels{suffix}"
    path.write_text("of an earlier run")

    def interrupt(handle: int) -> None:
        raise error

    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(error):
        write_label_map(path, np.ones((8, 9, 10), np.uint8), make_image())
    assert path.read_text() == "of an earlier run"
    assert list(tmp_path.iterdir()) == [path]


def test_earlier_file_is_replaced_and_nothing_else_is_left(tmp_path: Path, make_image: Any) -> None:
    path = tmp_path / "labels.nii.gz"
    path.write_text("of an earlier run")
    write_label_map(path, np.ones((8, 9, 10), np.uint8), make_image())
    assert path.read_bytes()[:2] == b"\x1f\x8b"
    assert list(tmp_path.iterdir()) == [path]


def test_link_to_a_file_stays_a_link(tmp_path: Path, make_image: Any) -> None:
    (tmp_path / "store").mkdir()
    link = tmp_path / "labels.nrrd"
    link.symlink_to(tmp_path / "store" / "real.nrrd")
    write_label_map(link, np.ones((8, 9, 10), np.uint8), make_image())
    assert link.is_symlink()
    assert (tmp_path / "store" / "real.nrrd").is_file()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing/labels.nii.gz", "there is no folder"),
        ("labels.tif", r"names no format to write. Use .nii.gz, .nii, .nrrd or .mha\."),
        ("labels", "names no format"),
        ("labels.mhd", "written as one file"),
        ("labels.dcm", "refers to DICOM images"),
        ("folder.nrrd", "is a folder. Name a file"),
        ("file.txt/labels.nii.gz", "there is no folder"),
    ],
)
def test_place_that_cannot_be_written_is_refused_early(
    tmp_path: Path, make_image: Any, name: str, message: str
) -> None:
    (tmp_path / "folder.nrrd").mkdir()
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(UserError, match=message):
        check_writable(tmp_path / name, make_image())


def test_read_only_place_is_refused_early(make_image: Any) -> None:
    # /proc refuses new files to everyone, root included.
    with pytest.raises(UserError, match="/proc cannot be written to"):
        check_writable("/proc/labels.nii.gz", make_image())


def test_frames_go_to_a_folder_not_over_a_file(tmp_path: Path) -> None:
    image = Image(np.zeros((4, 5, 2), np.uint8), np.eye(4), ImageKind.VIDEO, "clip", frame_names=("a", "b"))
    (tmp_path / "labels").write_text("a file")
    with pytest.raises(UserError, match="is a file"):
        check_writable(tmp_path / "labels", image)


@pytest.mark.parametrize("name", ["ct.nii.gz", "again.nii.gz"])
def test_the_image_is_never_overwritten(tmp_path: Path, name: str) -> None:
    voxels = np.random.default_rng(0).integers(0, 99, (4, 5, 6)).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "ct.nii.gz")
    (tmp_path / "again.nii.gz").symlink_to(tmp_path / "ct.nii.gz")
    image = read_image(tmp_path / "ct.nii.gz")
    with pytest.raises(UserError, match="is the image itself"):
        write_label_map(tmp_path / name, np.ones(image.shape, np.uint8), image)
    np.testing.assert_array_equal(read_image(tmp_path / "ct.nii.gz").voxels, voxels)


def test_checking_leaves_nothing_behind(tmp_path: Path, make_image: Any) -> None:
    check_writable(tmp_path / "labels.nii.gz", make_image())
    assert list(tmp_path.iterdir()) == []


def test_label_above_65535_is_refused(tmp_path: Path, make_image: Any) -> None:
    with pytest.raises(UserError, match="label 65536"):
        write_label_map(tmp_path / "labels.nii.gz", np.full((8, 9, 10), 65536), make_image())
