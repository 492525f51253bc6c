"""Series of an archive: all that are images are listed, and what is no volume is refused when it is opened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import nibabel
import numpy as np
import pytest
from monailabel.datastore.dicom import DICOMwebClientX
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from imos.errors import UserError
from imos.imaging import read_image
from imos.server.archive import ArchiveDatastore
from tests.orthanc import SHAPE, Orthanc, needs_orthanc, running_orthanc, small_series

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("archive")]

PRESENTATION = "1.2.840.10008.5.1.4.1.1.11.1"
IMAGES = ("CT", "MR", "PT", "US", "OT", "XC", "ES", "MG", "DX", "CR", "XA", "OPT", "RTIMAGE", "NEW")
OTHERS = ("SEG", "SR", "RTSTRUCT", "RTPLAN", "PR", "KO", "REG", "FID", "DOC", "ECG")


def tilted(instance: Dataset, index: int) -> None:
    x, y, z = instance.ImagePositionPatient
    instance.ImagePositionPatient = [x, float(y) + 0.8 * index, z]


def uneven(instance: Dataset, index: int) -> None:
    x, y, z = instance.ImagePositionPatient
    instance.ImagePositionPatient = [x, y, float(z) + (0.6 if index % 2 else 0)]


def placeless(instance: Dataset, _index: int) -> None:
    del instance.ImagePositionPatient, instance.ImageOrientationPatient


BAD: dict[str, tuple[list[Dataset], str]] = {
    "tilted": (small_series("tilted", edit=tilted), "This series is no upright stack: its slices are sheared by 17.7°"),
    "uneven": (small_series("uneven", "MR", uneven), "This series has unevenly spaced slices (1.90 to 3.10 mm)"),
    "missing": ([one for k, one in enumerate(small_series("missing")) if k != 4], "This series has 1 slice missing"),
    "single": (small_series("single")[:1], "This series is a single DICOM image"),
}
PLACELESS = small_series("placeless", "US", placeless)


def series_of(instances: list[Dataset]) -> str:
    return str(instances[0].SeriesInstanceUID)


def store_of(archive: Orthanc, cache: Path) -> ArchiveDatastore:
    """The datastore of a server that was started without a filter."""
    return ArchiveDatastore(client=DICOMwebClientX(url=archive.web), search_filter={}, cache_path=str(cache))


def state(url: str, image: str) -> httpx.Response:
    return httpx.get(f"{url}/imos/v1/images/{image}/state", params={"client": "reader"}, timeout=60)


def without_pixels(modality: str) -> Dataset:
    """An object that is no image, in a study of its own."""
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = PRESENTATION, generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
    made.Modality, made.PatientID, made.PatientName = modality, "other", "other"
    made.file_meta = small_series("meta")[0].file_meta
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.is_little_endian, made.is_implicit_VR = True, False
    return made


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as orthanc:
        yield orthanc


@needs_orthanc
def test_what_is_no_volume_is_refused_when_it_is_opened(archive, launch, tmp_path):
    for instances, _said in BAD.values():
        archive.store(*instances)
    archive.store(*PLACELESS, *small_series("good"))
    _process, url = launch(archive.web, MONAI_LABEL_DICOMWEB_CACHE_PATH=str(tmp_path / "cache"))

    for instances, said in [*BAD.values(), (PLACELESS, "This series does not say where its frames lie")]:
        answers = [
            state(url, series_of(instances)),
            httpx.get(f"{url}/datastore/image", params={"image": series_of(instances)}, timeout=60),
            httpx.post(f"{url}/infer/imos", params={"image": series_of(instances)}, data={"params": "{}"}, timeout=60),
        ]
        assert [one.status_code for one in answers] == [422, 422, 422], answers[0].text
        assert all(one.json()["detail"].startswith(said) for one in answers), answers[0].text
        assert series_of(instances) not in answers[0].json()["detail"].split(".dcm")[0]
    good = state(url, series_of(small_series("good")))
    assert good.status_code == 200, good.text
    assert good.json()["grid"]["size"] == list(SHAPE)
    assert state(url, "1.2.3.4").status_code == 404


@needs_orthanc
def test_volume_that_was_converted_without_looking_is_looked_at_again(archive, tmp_path):
    """MONAI Label's own conversion takes everything; its cache may lie there from before."""
    instances, said = BAD["tilted"]
    archive.store(*instances)
    series = series_of(instances)
    folder = Path(store_of(archive, tmp_path)._datastore_path)
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 6), np.int16), np.eye(4)), folder / f"{series}.nii.gz")
    store = store_of(archive, tmp_path)

    assert series in store._datastore.objects
    with pytest.raises(UserError) as refused:
        store.get_image_uri(series)
    assert str(refused.value).startswith(said)


def test_what_is_no_volume_is_refused_in_a_folder_too(launch, tmp_path):
    for name, (instances, _said) in BAD.items():
        (tmp_path / "studies" / name).mkdir(parents=True)
        for number, instance in enumerate(instances):
            instance.save_as(tmp_path / "studies" / name / f"{number}.dcm", write_like_original=False)
    _process, url = launch(tmp_path / "studies")

    for name in ("tilted", "uneven", "missing"):
        instances, said = BAD[name]
        answers = [
            state(url, series_of(instances)),
            httpx.get(f"{url}/datastore/image", params={"image": series_of(instances)}, timeout=60),
        ]
        assert [one.status_code for one in answers] == [422, 422], answers[0].text
        assert all(one.json()["detail"].startswith(said) for one in answers), answers[0].text
    assert state(url, series_of(BAD["single"][0])).status_code == 404, "one image is no volume and is not listed"


@pytest.fixture(scope="module")
def full(archive: Orthanc) -> dict[str, str]:
    """Series of every kind in the archive, three slices each: modality → UID."""
    found: dict[str, str] = {}
    for modality in IMAGES:
        instances = small_series(f"kind {modality}", modality)[:3]
        archive.store(*instances)
        found[modality] = series_of(instances)
    for modality in OTHERS:
        one = without_pixels(modality)
        archive.store(one)
        found[modality] = str(one.SeriesInstanceUID)
    return found


LIST = """
import json, os, sys
from imos.server.datastores import open_datastore
found = open_datastore(sys.argv[1])
print(json.dumps([found.list_images(), os.environ.get("MONAI_LABEL_DICOMWEB_SEARCH_FILTER")]))
"""


@pytest.fixture
def listed(archive: Orthanc, full: dict[str, str], tmp_path: Path) -> Callable[..., tuple[set[str], str | None]]:
    """Modalities listed by a server with that setting, and what it hands to processes that it starts."""

    def ask(setting: str | None) -> tuple[set[str], str | None]:
        own = {} if setting is None else {"MONAI_LABEL_DICOMWEB_SEARCH_FILTER": setting}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MONAI_LABEL_")}
        environment = inherited | own | {"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(tmp_path)}
        command = [sys.executable, "-c", LIST, archive.web]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, env=environment, cwd=tmp_path, check=True
        )
        images, handed = json.loads(done.stdout.splitlines()[-1])
        return {modality for modality, series in full.items() if series in images}, handed

    return ask


@needs_orthanc
def test_every_image_is_listed_and_nothing_else(listed, archive, full, tmp_path):
    found, handed = listed(None)

    assert found == set(IMAGES)
    assert handed == "{}", "what a process for training is told"
    images = store_of(archive, tmp_path).list_images()
    assert {modality for modality, series in full.items() if series in images} == set(IMAGES)


@needs_orthanc
def test_filter_that_was_given_is_kept_also_where_it_is_that_of_monai_label(listed):
    assert listed('{"Modality": "CT"}') == ({"CT"}, '{"Modality": "CT"}')


@needs_orthanc
def test_colours_of_an_archive_are_opened_as_colours(archive, full, tmp_path):
    store = store_of(archive, tmp_path)
    threads = []
    paths: list[str] = []
    for _ in range(4):  # as several users who open one study at once
        threads.append(threading.Thread(target=lambda: paths.append(store.get_image_uri(full["XC"]))))
        threads[-1].start()
    for thread in threads:
        thread.join(60)

    assert len(paths) == 4
    assert len(set(paths)) == 1
    image = read_image(Path(paths[0]))
    assert image.is_rgb
    assert image.shape == (*SHAPE[:2], 3)
    assert not [file for file in Path(paths[0]).parent.iterdir() if file.name.startswith(".partial-")]
