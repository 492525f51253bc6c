"""`make pacs`: an Orthanc of our own, filled with the images of a folder."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import nibabel
import numpy as np
import pytest

from imos.errors import UserError
from imos.server import local_archive
from tests.orthanc import free_port, needs_orthanc


def volume(path: Path) -> None:
    voxels = np.arange(8 * 9 * 5, dtype=np.int16).reshape(8, 9, 5)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1, 1, 3, 1])), path)


@pytest.mark.server
@needs_orthanc
def test_every_volume_is_a_series_in_the_archive_and_starting_again_adds_nothing(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    volume(images / "one.nii.gz")
    volume(images / "two.nii")
    (images / "notes.txt").write_text("no volume")
    archive = local_archive.start(tmp_path / "archive", images, free_port())
    try:
        assert set(archive.studies) == {"one", "two"}
        for study in archive.studies.values():
            found = httpx.get(f"{archive.url}/studies/{study}/series", timeout=30).json()
            assert len(found) == 1
            assert found[0]["00201209"]["Value"] == [5]
            assert study in local_archive.announce(archive.studies, "http://127.0.0.1:8000")
        assert local_archive.fill(archive.url.removesuffix("/dicom-web"), images) == archive.studies
        assert len(httpx.get(f"{archive.url}/series", timeout=30).json()) == 2
    finally:
        archive.stop()


@pytest.mark.server
@needs_orthanc
def test_a_port_in_use_and_a_folder_without_volumes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_archive, "START_SECONDS", 5.0)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="does not start"):
        local_archive.start(tmp_path / "archive", tmp_path, int(taken.getsockname()[1]))
    with pytest.raises(UserError, match="holds no volume"):
        local_archive.start(tmp_path / "other", tmp_path, free_port())
