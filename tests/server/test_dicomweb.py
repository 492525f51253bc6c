"""DICOMweb over a folder, read with dicomweb_client and pydicom; and an archive, which is another of our servers."""

from __future__ import annotations

import importlib.util
import json
import shutil
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import httpx
import nibabel
import numpy as np
import pydicom
import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from imos.imaging import read_image, read_label_map, write_label_map
from imos.imaging.dicom_segments import Segment, write_segments
from imos.server.dicomweb.synthesis import Synthesis

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("server")]

KIDNEY, LIVER = 2, 4
PAINTED = 96
NEAR = {"first": PAINTED - 2, "last": PAINTED + 2}


@pytest.fixture(scope="session")
def web(server):
    return DICOMwebClient(f"{server.url}/imos/dicomweb")


@pytest.fixture(scope="session")
def found(web):
    """Study and series of the CT sample, found as a viewer finds them."""
    (study,) = [Dataset.from_json(one) for one in web.search_for_studies(search_filters={"PatientID": "sample_ct"})]
    (series,) = [Dataset.from_json(one) for one in web.search_for_series(study.StudyInstanceUID)]
    return study, series


@pytest.fixture(scope="session")
def downloaded(web, found, tmp_path_factory):
    """The whole CT sample as files."""
    folder = tmp_path_factory.mktemp("downloaded")
    study, series = found
    for instance in web.retrieve_series(study.StudyInstanceUID, series.SeriesInstanceUID):
        instance.save_as(folder / f"{instance.InstanceNumber:04}.dcm", write_like_original=False)
    return folder


@pytest.fixture(scope="session")
def patient(server, samples):
    """A real DICOM series, put into the folder while the server runs, under names that say nothing."""
    image = read_image(samples / "mr" / "image.nii.gz")
    made = Synthesis.of("a patient", image, datetime(2021, 5, 4))
    folder = server.studies / "patient" / "exam 1"
    folder.mkdir(parents=True)
    for index in range(40, 60):
        made.instance(image, index).save_as(folder / f"IM{made.count - index}", write_like_original=False)
    return folder


def test_every_volume_is_a_study(server, web):
    studies = [Dataset.from_json(one) for one in web.search_for_studies()]

    assert {"sample_ct", "sample_mr"} <= {str(study.PatientID) for study in studies}
    assert {str(study.ModalitiesInStudy) for study in studies if study.PatientID == "sample_mr"} == {"MR"}
    assert len(web.search_for_studies(limit=1)) == 1
    assert len(web.search_for_studies(search_filters={"PatientID": "sample_*"})) == 2
    assert not web.search_for_studies(search_filters={"PatientID": "nobody"})


def test_uids_are_valid_and_stay(found, web):
    study, series = found
    assert study.StudyInstanceUID.is_valid
    again = web.search_for_series(search_filters={"SeriesInstanceUID": series.SeriesInstanceUID})
    assert len(again) == 1
    assert series.SeriesInstanceUID == "1.2.826.0.1.3680043.8.498.11178289121098808624832865163936155801"


def test_series_has_the_images_geometry_and_values(downloaded, samples):
    read, image = read_image(downloaded), read_image(samples / "ct" / "image.nii.gz")

    assert read.modality == "CT"
    assert read.voxels.dtype == np.int16
    relation = np.linalg.inv(image.affine) @ read.affine
    assert np.allclose(np.abs(relation[:3, :3]), np.eye(3), atol=1e-9)
    voxels = read.voxels
    for axis in range(3):
        if relation[axis, axis] < 0:
            voxels = np.flip(voxels, axis)
    assert np.array_equal(voxels, image.voxels)
    corner = relation @ [0, 0, 0, 1]
    assert np.allclose(corner[:3], np.where(np.diag(relation)[:3] < 0, np.array(image.shape) - 1, 0), atol=1e-6)


def test_slices_stand_upright(downloaded):
    first = pydicom.dcmread(downloaded / "0001.dcm")

    assert [float(value) for value in first.ImageOrientationPatient] == [1, 0, 0, 0, 1, 0]
    assert first.SOPClassUID.name == "CT Image Storage"
    assert float(first.RescaleSlope) == 1


def test_metadata_and_frames_are_those_of_the_files(web, found, downloaded):
    study, series = found
    headers = [
        Dataset.from_json(one) for one in web.retrieve_series_metadata(study.StudyInstanceUID, series.SeriesInstanceUID)
    ]
    assert len(headers) == len(list(downloaded.iterdir()))
    assert all("PixelData" not in header for header in headers)
    header = next(one for one in headers if one.InstanceNumber == 50)
    file = pydicom.dcmread(downloaded / "0050.dcm")
    assert header.SOPInstanceUID == file.SOPInstanceUID
    assert np.allclose(header.ImagePositionPatient, file.ImagePositionPatient, atol=1e-9)
    (frame,) = web.retrieve_instance_frames(
        study.StudyInstanceUID, series.SeriesInstanceUID, header.SOPInstanceUID, [1]
    )
    assert np.array_equal(np.frombuffer(frame, "<i2").reshape(header.Rows, header.Columns), file.pixel_array)


def test_ohif_is_told_where_the_studies_are_and_loads_the_plugin(server):
    config = httpx.get(f"{server.url}/ohif/app-config.js").text
    assert "/imos/viewer/imos.js" in config
    assert '"qidoRoot": "/imos/dicomweb"' in config
    page = httpx.get(f"{server.url}/ohif/viewer")
    assert page.text.lstrip().startswith("<!doctype html>")
    stock = httpx.get(f"{server.url}/proxy/dicom/qido/studies", params={"PatientID": "sample_ct"})
    assert len(stock.json()) == 1


def test_files_of_the_viewer_in_subfolders_are_served(server):
    package = Path(importlib.util.find_spec("monailabel").origin).parent
    folder = package / "endpoints" / "static" / "ohif" / "assets"
    one = next(file for file in sorted(folder.rglob("*.svg")) if file.is_file())
    answer = httpx.get(f"{server.url}/ohif/assets/{one.relative_to(folder)}")

    assert answer.content == one.read_bytes()
    assert answer.headers["content-type"].startswith("image/svg")


def test_series_names_the_image_in_a_run(server, painter, found, painted):
    _study, series = found
    kidney = np.where(painted == KIDNEY, painted, 0).astype(np.uint8)
    painter.run(kidney, [PAINTED], **NEAR)
    by_series = replace(painter, image=str(series.SeriesInstanceUID))

    assert by_series.state() == painter.state()
    assert by_series.state()["image"] == "sample_ct"


def test_painting_on_what_the_viewer_sees(painter, downloaded, painted, samples):
    seen, image = read_image(downloaded), read_image(samples / "ct" / "image.nii.gz")
    kidney = np.where(painted == KIDNEY, painted, 0).astype(np.uint8)
    painter.run(kidney, [PAINTED], **NEAR)
    viewer = replace(painter, client=f"{painter.client[:40]}-viewer", affine=seen.affine)
    turned = np.flip(kidney, (0, 1))
    told = viewer.run(turned, [PAINTED], **NEAR)

    assert seen.shape == image.shape
    assert np.array_equal(told.shown, np.flip(painter.labels(), (0, 1)))


def test_dicom_series_of_the_folder_is_an_image(server, web, patient, painter):
    series = str(pydicom.dcmread(next(iter(patient.iterdir())), stop_before_pixels=True).SeriesInstanceUID)
    for _ in range(50):
        listed = web.search_for_series(search_filters={"SeriesInstanceUID": series})
        if listed:
            break
        time.sleep(0.2)
    study = str(Dataset.from_json(listed[0]).StudyInstanceUID)
    read = read_image(patient)

    assert series in httpx.get(f"{server.url}/datastore/?output=all").json()["objects"]
    instances = web.retrieve_series(study, series)
    assert len(instances) == read.shape[2] == 20
    (frame,) = web.retrieve_instance_frames(study, series, instances[3].SOPInstanceUID, [1])
    assert frame == instances[3].PixelData
    painted = np.zeros(read.shape, np.uint8)
    painted[60:90, 80:110, 9] = 1
    viewer = replace(painter, image=series, affine=read.affine)
    told = viewer.run(painted, [9], first=7, last=11)
    assert np.array_equal(told.shown, viewer.labels())
    accepted = viewer.post("accept", viewer.labels())
    assert accepted.status_code == 200, accepted.text
    file = nibabel.load(server.studies / "labels" / "final" / f"{series}.nii.gz")
    assert np.array_equal(np.asarray(file.dataobj), told.shown)
    assert np.allclose(file.affine, read.affine, atol=1e-4)


@pytest.mark.filterwarnings("ignore:The string .* is unlikely to represent:UserWarning")
def test_segmentation_that_a_viewer_stores_in_the_folder_is_the_label_of_its_series(
    server, web, patient, painter, tmp_path
):
    image = read_image(patient)
    spleen, nothing = np.zeros(image.shape, bool), np.zeros(image.shape, bool)
    spleen[20:40, 30:60, 4:9] = True
    write_segments(tmp_path / "seg.dcm", [Segment(3, "Milz", spleen), Segment(6, "Zyste", nothing)], image)
    web.store_instances([pydicom.dcmread(tmp_path / "seg.dcm")])
    series = str(pydicom.dcmread(next(patient.iterdir()), stop_before_pixels=True).SeriesInstanceUID)
    time.sleep(3.2)  # the folder is looked at every three seconds
    viewer = replace(painter, image=series, client="somebody-new", affine=image.affine)
    state = viewer.state()

    assert np.array_equal(viewer.labels(), np.where(spleen, 3, 0))
    assert [(one["value"], one["name"]) for one in state["objects"]] == [(3, "Milz"), (6, "Zyste")]
    assert state["accepted"]
    assert httpx.get(f"{server.url}/imos/v1/next", params={"client": "x"}).json()["image"] != series
    # What is accepted next is newer, and still says that there is no cyst.
    larger = np.where(spleen, 3, 0).astype(np.uint16)
    larger[20:40, 30:60, 9] = 3
    objects = [{"value": 3, "name": "Milz"}, {"value": 6, "name": "Zyste"}]
    assert viewer.post("accept", larger, objects=objects).status_code == 200
    later = replace(viewer, client="somebody-later")
    assert np.array_equal(later.labels(), larger)
    assert [one["name"] for one in later.state()["objects"]] == ["Milz", "Zyste"]


# highdicom doubts that a patient is called sample_ct.
@pytest.mark.filterwarnings("ignore:The string .* is unlikely to represent:UserWarning")
def test_stored_segmentation_is_found_again(server, web, found, downloaded, tmp_path):
    study, _series = found
    image = read_image(downloaded)
    labels = np.zeros(image.shape, np.uint8)
    labels[10:20, 10:20, 5] = 3
    write_label_map(tmp_path / "seg.dcm", labels, image, {3: "Milz"})
    segmentation = pydicom.dcmread(tmp_path / "seg.dcm")
    answer = web.store_instances([segmentation])

    assert len(answer.ReferencedSOPSequence) == 1
    series = [Dataset.from_json(one) for one in web.search_for_series(study.StudyInstanceUID)]
    assert sorted(str(one.Modality) for one in series) == ["CT", "SEG"]
    back = web.retrieve_instance(study.StudyInstanceUID, segmentation.SeriesInstanceUID, segmentation.SOPInstanceUID)
    back.save_as(tmp_path / "back.dcm", write_like_original=False)
    assert np.array_equal(read_label_map(tmp_path / "back.dcm", image), labels)
    shutil.rmtree(server.studies / "segmentations")


@pytest.mark.filterwarnings("ignore:The string .* is unlikely to represent:UserWarning")
def test_segmentation_that_is_deflated_as_a_whole_is_not_stored(server, downloaded, tmp_path):
    image = read_image(downloaded)
    labels = np.ones(image.shape, np.uint8)
    write_label_map(tmp_path / "seg.dcm", labels, image, {1: "Milz"})
    segmentation = pydicom.dcmread(tmp_path / "seg.dcm")
    segmentation.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    web = DICOMwebClient(f"{server.url}/imos/dicomweb")
    with pytest.raises(requests.HTTPError, match="409"):
        web.store_instances([segmentation])

    assert not list(server.studies.rglob(f"{segmentation.SOPInstanceUID}*"))


def test_only_segmentations_of_known_studies_are_stored(server, downloaded):
    image = pydicom.dcmread(downloaded / "0001.dcm")
    web = DICOMwebClient(f"{server.url}/imos/dicomweb")
    before = set(server.studies.rglob("*"))
    with pytest.raises(requests.HTTPError, match="409"):
        web.store_instances([image])
    answer = httpx.post(f"{server.url}/imos/dicomweb/studies", content=b"x", headers={"content-type": "text/plain"})

    assert answer.status_code == 415
    assert set(server.studies.rglob("*")) == before


@pytest.mark.parametrize(
    "path", ["studies/1.2.3/series", "studies/1.2.3/metadata", "studies/x/series", "studies/1.2.3"]
)
def test_unknown_studies_are_not_found(server, path):
    answer = httpx.get(f"{server.url}/imos/dicomweb/{path}")

    assert answer.status_code in (404, 422)
    assert isinstance(answer.json()["detail"], str)


def test_archive_gets_what_is_accepted_as_a_segmentation(server, launch, tmp_path, painter, found, painted):
    study, series = (str(one) for one in (found[0].StudyInstanceUID, found[1].SeriesInstanceUID))
    _process, url = launch(f"{server.url}/imos/dicomweb", MONAI_LABEL_DICOMWEB_CACHE_PATH=str(tmp_path / "cache"))
    objects = [{"value": KIDNEY, "name": "Ren dexter"}, {"value": LIVER, "name": "Leber", "color": [200, 10, 10]}]
    organs = np.where(np.isin(painted, [KIDNEY, LIVER]), painted, 0).astype(np.uint8)
    viewer = replace(painter, url=url, image=series)
    unlabelled = httpx.get(f"{url}/imos/v1/next", params={"client": "x"}, timeout=60).json()
    assert unlabelled["study"]

    told = viewer.run(organs, [PAINTED], **NEAR, objects=objects)
    assert np.array_equal(told.shown, viewer.labels())
    answer = viewer.post("accept", viewer.labels(), objects=objects)
    assert answer.status_code == 200, answer.text

    web = DICOMwebClient(f"{server.url}/imos/dicomweb")
    listed = [Dataset.from_json(one) for one in web.search_for_series(study)]
    (segmentation,) = [one for one in listed if one.Modality == "SEG"]
    (instance,) = web.retrieve_series(study, segmentation.SeriesInstanceUID)
    assert [str(one.SegmentLabel) for one in instance.SegmentSequence] == ["Ren dexter", "Leber"]
    assert "RecommendedDisplayCIELabValue" in instance.SegmentSequence[1]
    instance.save_as(tmp_path / "seg.dcm", write_like_original=False)
    image = read_image(server.studies / "sample_ct.nii.gz")
    assert np.array_equal(read_label_map(tmp_path / "seg.dcm", image), told.shown)

    # The proxy searches what it is asked for, and does not climb out of DICOMweb.
    proxy = f"{url}/proxy/dicom/qido"
    assert len(httpx.get(f"{proxy}/studies", params={"PatientID": "sample_ct"}, timeout=30).json()) == 1
    for path in ("..%2F..%2Finfo/", "../../info/", "info/", "studies/..%2f..%2f..%2finfo"):
        assert httpx.get(f"{proxy}/{path}", timeout=30).status_code == 404
    assert httpx.post(f"{url}/proxy/dicom/wado/series", timeout=30).status_code == 404
    assert series not in json.dumps(
        httpx.get(f"{url}/imos/v1/next", params={"client": "x", "after": series}, timeout=30).json()
    )
    shutil.rmtree(server.studies / "segmentations")
