"""Datastores of folders: what is known of images and labels outlives moves, odd names and a damaged table."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel
import numpy as np
import pytest

from imos.server.datastores import FINAL, FolderDatastore

INFO = {"label_info": [{"idx": 1, "name": "Wątroba", "color": [200, 0, 0]}], "slices": {"1": {"axis": 2}}}


def volume(path: Path, value: int = 1) -> Path:
    """A small volume on disk."""
    voxels = np.zeros((4, 4, 4), np.uint8)
    voxels[1:3, 1:3, 1:3] = value
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images, one of them with an accepted label."""
    studies = tmp_path / "studies"
    studies.mkdir()
    for name in ("one", "two"):
        volume(studies / f"{name}.nii.gz", 9)
    store = FolderDatastore(str(studies))
    store.save_label("one", str(volume(tmp_path / "label.nii.gz")), FINAL, INFO)
    store.update_image_info("one", {"PatientID": "P1"})
    return studies


def test_what_was_stored_with_a_label_is_there_again_with_the_image(folder: Path, tmp_path: Path) -> None:
    store = FolderDatastore(str(folder))
    (folder / "one.nii.gz").rename(tmp_path / "one.nii.gz")
    store.refresh()
    assert store.list_images() == ["two"]
    store = FolderDatastore(str(folder))  # also after a restart
    (tmp_path / "one.nii.gz").rename(folder / "one.nii.gz")
    store.refresh()
    assert store.get_label_info("one", FINAL)["label_info"] == INFO["label_info"]
    assert store.get_label_info("one", FINAL)["slices"] == INFO["slices"]
    assert store.get_image_info("one")["PatientID"] == "P1"


def test_another_label_than_before_has_nothing_of_the_old_one(folder: Path, tmp_path: Path) -> None:
    store = FolderDatastore(str(folder))
    (folder / "one.nii.gz").rename(tmp_path / "one.nii.gz")
    store.refresh()
    volume(folder / "labels" / "final" / "one.nii.gz", 2)
    (tmp_path / "one.nii.gz").rename(folder / "one.nii.gz")
    store.refresh()
    assert "slices" not in store.get_label_info("one", FINAL)


def test_an_image_that_was_removed_is_forgotten(folder: Path, tmp_path: Path) -> None:
    store = FolderDatastore(str(folder))
    store.remove_image("one")
    volume(folder / "one.nii.gz", 9)
    volume(folder / "labels" / "final" / "one.nii.gz")
    store.refresh()
    assert "slices" not in store.get_label_info("one", FINAL)


def test_a_file_name_in_another_encoding_is_left_out(folder: Path) -> None:
    os.rename(folder / "two.nii.gz", os.fsencode(folder) + b"/gr\xf6\xdfe.nii.gz")
    assert FolderDatastore(str(folder)).list_images() == ["one"]
    assert FolderDatastore(str(folder)).list_images() == ["one"]


@pytest.mark.parametrize("content", [b"{", b'{"objects": {"a": 5}}', b'{"name": "\\ud800"}', b"\xff\xfe"])
def test_a_table_that_cannot_be_read_is_put_aside(folder: Path, content: bytes) -> None:
    table = folder / "datastore_v2.json"
    table.write_bytes(content)
    store = FolderDatastore(str(folder))
    assert sorted(store.list_images()) == ["one", "two"]
    assert store.get_labeled_images() == ["one"]
    (aside,) = folder.glob("datastore_v2.unreadable-*.json")
    assert aside.read_bytes() == content
