"""Series of a real archive, there and back."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import numpy as np
import pytest

from imos import cli
from imos.batch.archive import fetch_series
from imos.errors import UserError
from imos.imaging import read_image, read_label_map
from imos.server import local_archive
from tests.conftest import Scan
from tests.orthanc import free_port, needs_orthanc

pytestmark = pytest.mark.xdist_group("ray")


@pytest.mark.server
@pytest.mark.slow
@needs_orthanc
def test_a_series_comes_from_the_archive_and_its_segmentation_goes_there_once(
    scan: Scan, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    scan.write(images / "scan.nii.gz", scan.voxels)
    archive = local_archive.start(tmp_path / "archive", images, free_port())
    try:
        study = archive.studies["scan"]
        (series,) = httpx.get(f"{archive.url}/studies/{study}/series").json()
        address = f"{archive.url}/studies/{study}/series/{series['0020000E']['Value'][0]}"
        listed = tmp_path / "list.csv"
        listed.write_text(f"id,image,prompt\nscan,{address},{scan.prompt}\n")
        command = ["batch", str(listed), "-o", str(tmp_path / "out"), "--workers", "1", "--store"]

        def segmentations() -> list[str]:
            found = httpx.get(f"{archive.url}/studies/{study}/instances?Modality=SEG").json()
            return [one["00080018"]["Value"][0] for one in found]

        assert cli.main(command) == 0
        (stored,) = segmentations()
        (tmp_path / "series").mkdir()
        fetch_series(address, tmp_path / "series")
        image = read_image(tmp_path / "series")
        labels = read_label_map(tmp_path / "out" / "scan.dcm", image)
        assert set(np.unique(labels)) == {0, 1, 2}

        record = tmp_path / "out" / ".batch" / "records" / "scan.json"
        content = json.loads(record.read_text())
        assert content["stored"]
        record.write_text(json.dumps(content | {"stored": False}))  # as if killed before it was noted
        assert cli.main(command) == 0
        assert segmentations() == [stored]
        assert json.loads(record.read_text())["stored"]

        listed.write_text(f"id,image,prompt\nother,{address[:-1]},{scan.prompt}\n")
        assert cli.main(command) == 2
        assert "the archive" in capfd.readouterr().err
    finally:
        archive.stop()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://127.0.0.1:9/dicom-web/studies/1.2/series/1.2.3", "the archive cannot be reached"),
        ("http://127.0.0.1:9/dicom-web/studies/1.2", "is no series"),
        ("http://127.0.0.1:9/dicom-web/studies/1.2/series/../../x", "is no series"),
    ],
)
def test_what_is_no_series_is_said(tmp_path: Path, address: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        fetch_series(address, tmp_path)
