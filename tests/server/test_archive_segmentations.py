"""DICOM SEG that only the archive has is the label of its series, whichever program made it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
from monailabel.datastore.dicom import DICOMwebClientX
from numpy.typing import NDArray

from imos.imaging import Image, read_image
from imos.imaging.dicom_segments import Segment, write_segments
from imos.server import stored
from imos.server.archive import ArchiveDatastore
from imos.server.snapshots import show
from tests.imaging.test_dicom_seg_series import by_dcmqi
from tests.orthanc import AFFINE, SHAPE, Orthanc, needs_orthanc, running_orthanc, small_series

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("archive"), needs_orthanc]

FRESH = 3.2
"""Seconds after which an archive is asked again."""


@dataclass(frozen=True)
class Case:
    """A series in the archive.

    Attributes:
        uid: Of the series.
        image: As it was stored.
        folder: Its files, and room for others beside it.
    """

    uid: str
    image: Image
    folder: Path

    def box(self, start: int, stop: int) -> NDArray[np.bool_]:
        """`(I, J, K)`, a cube between two indices along each axis."""
        mask = np.zeros(self.image.shape, bool)
        mask[start:stop, start:stop, start:stop] = True
        return mask

    def segmentation(self, *segments: Segment, made: str = "") -> pydicom.Dataset:
        """A DICOM SEG, at a date where one is given."""
        file = self.folder / "seg.dcm"
        write_segments(file, segments, self.image)
        dataset = pydicom.dcmread(file)
        if made:
            dataset.ContentDate, dataset.ContentTime = made, "120000"
        return dataset


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as orthanc:
        yield orthanc


def new_case(archive: Orthanc, folder: Path, name: str, affine: NDArray[np.float64] = AFFINE) -> Case:
    instances = small_series(name, affine=affine)
    archive.store(*instances)
    (folder / "series").mkdir()
    for number, instance in enumerate(instances):
        instance.save_as(folder / "series" / f"{number}.dcm", write_like_original=False)
    return Case(str(instances[0].SeriesInstanceUID), read_image(folder / "series"), folder)


@pytest.fixture
def case(archive: Orthanc, tmp_path: Path, request: pytest.FixtureRequest) -> Case:
    """A series of this test alone, with its slices from head to foot."""
    return new_case(archive, tmp_path, request.node.name[:50])


@dataclass(frozen=True)
class Seen:
    """What somebody sees who opens a series for the first time.

    Attributes:
        objects: Value → name and colour.
        labels: `(I, J, K)`.
        is_final: Whether it counts as accepted.
        notices: What is said about it.
    """

    objects: dict[int, tuple[str, tuple[int, int, int] | None]]
    labels: NDArray[np.uint16]
    is_final: bool
    notices: list[str]


def opened(store: ArchiveDatastore, case: Case) -> Seen:
    path = Path(store.get_image_uri(case.uid))
    label = stored.label_of(store, case.uid)
    notices = stored.notices_of(store, case.uid, label)
    if label is None:
        return Seen({}, np.zeros(SHAPE, np.uint16), False, notices)
    snapshot, objects = stored.read(label, read_image(path))
    names = {one.value: (one.name, one.color) for one in objects}
    return Seen(names, show(snapshot, SHAPE).labels, label.is_final, notices)


def store_of(archive: Orthanc, cache: Path) -> ArchiveDatastore:
    return ArchiveDatastore(client=DICOMwebClientX(url=archive.web), search_filter={}, cache_path=str(cache))


def fresh_store(archive: Orthanc, tmp_path: Path) -> ArchiveDatastore:
    """That of a server whose cache was lost."""
    return store_of(archive, tmp_path / f"cache {time.monotonic_ns()}")


def test_segmentation_of_another_program_is_shown_and_counts_as_accepted(archive, launch, painter_of, tmp_path):
    case = new_case(archive, tmp_path, "foreign over http")
    masks = {1: case.box(2, 6), 2: case.box(7, 10)}
    archive.store(pydicom.dcmread(by_dcmqi(tmp_path, case.image, masks)))
    _process, url = launch(archive.web, MONAI_LABEL_DICOMWEB_CACHE_PATH=str(tmp_path / "cache"))
    reader = painter_of(url, case.uid, "reader", case.image.affine)
    expected = np.select(list(masks.values()), list(masks)).astype(np.uint16)
    state = reader.state()

    assert [(one["value"], one["name"]) for one in state["objects"]] == [(1, "part 1"), (2, "part 2")]
    assert np.array_equal(reader.labels(), expected)
    assert state["accepted"]
    assert not state["unsaved"]
    assert state["revision"] == 0
    assert state["slices"]["1"]["accepted"] == [2, 3, 4, 5]

    # What is accepted here goes on from it, and a server that lost its cache finds it in the archive, names and all.
    labels = expected.copy()
    labels[case.box(2, 4)] = 300
    objects = [
        {"value": 1, "name": "Wątroba", "color": [200, 10, 10]},
        {"value": 2, "name": "part 2"},
        {"value": 300, "name": "肝臓", "color": [0, 120, 240]},
        {"value": 7, "name": "Cyst", "color": [250, 0, 0]},
    ]
    answer = reader.post("accept", labels, objects=objects)
    assert answer.status_code == 200, answer.text
    seen = opened(fresh_store(archive, tmp_path), case)
    assert np.array_equal(seen.labels, labels)
    assert seen.is_final
    names = {value: name for value, (name, _color) in seen.objects.items()}
    assert names == {1: "Wątroba", 2: "part 2", 300: "肝臓", 7: "Cyst"}, "what was looked for and is not there, too"
    assert np.abs(np.subtract(seen.objects[300][1], (0, 120, 240))).max() <= 1
    assert seen.objects[2][1] is None
    assert any(
        "2 segmentations" in one and "The newest one (iMOS segmentation) is shown" in one for one in seen.notices
    )
    second = painter_of(url, case.uid, "second", case.image.affine)
    assert np.array_equal(second.labels(), labels)

    # Another program stores a newer one meanwhile.
    other = case.box(3, 9)
    archive.store(case.segmentation(Segment(5, "Tumour", other)))
    time.sleep(FRESH)
    third = painter_of(url, case.uid, "third", case.image.affine)
    assert np.array_equal(third.labels(), np.where(other, 5, 0))
    assert [one["name"] for one in third.state()["objects"]] == ["Tumour"]
    (notice,) = third.state()["notices"]
    assert "The archive has 3 segmentations of this series" in notice
    assert not reader.state()["notices"]
    assert np.array_equal(reader.labels(), labels), "who has worked keeps the own work"
    replaced = [file for file in (tmp_path / "cache").rglob("*.nii.gz") if "replaced" in file.parts]
    assert len(replaced) == 2, "the labels that were shown before are kept"


@pytest.mark.parametrize("direction", ["up", "down"])
def test_segmentation_lies_right_whichever_way_the_series_runs(archive, tmp_path, direction):
    affine = AFFINE @ (np.diag([1, 1, -1, 1]) if direction == "down" else np.array(np.eye(4)[[2, 0, 1, 3]]))
    case = new_case(archive, tmp_path, f"turned {direction}", affine)
    mask = case.box(3, 7)
    archive.store(case.segmentation(Segment(9, "Spleen", mask)))
    store = fresh_store(archive, tmp_path)
    image = read_image(Path(store.get_image_uri(case.uid)))
    label = stored.label_of(store, case.uid)

    assert label is not None
    snapshot, _objects = stored.read(label, image)
    assert image.shape == case.image.shape
    assert np.allclose(image.affine, case.image.affine, atol=1e-4)
    assert np.array_equal(show(snapshot, image.shape).labels, np.where(mask, 9, 0))


def test_overlap_is_said_and_empty_segments_keep_their_names(archive, case, tmp_path):
    liver, tumour = case.box(1, 9), case.box(4, 6)
    nothing, hidden = np.zeros(SHAPE, bool), case.box(4, 5)
    archive.store(
        case.segmentation(
            Segment(3, "Hidden", hidden),
            Segment(7, "Liver", liver, (221, 130, 101)),
            Segment(2, "Cyst", nothing, (0, 0, 255)),
            Segment(8, "Tumour", tumour),
        )
    )
    seen = opened(fresh_store(archive, tmp_path), case)

    assert np.array_equal(seen.labels, np.where(tumour, 8, np.where(liver, 7, 0)))
    assert {value: name for value, (name, _color) in seen.objects.items()} == {2: "Cyst", 7: "Liver", 8: "Tumour"}
    assert len(seen.notices) == 2
    assert "Tumour over Liver" in seen.notices[0]
    assert "Liver over Hidden" in seen.notices[0]
    assert f"overlap in {int(tumour.sum() + hidden.sum())} voxels" in seen.notices[0]
    assert "Nothing is to be seen of Hidden" in seen.notices[1]


def test_segments_that_do_not_overlap_need_no_notice(archive, case, tmp_path):
    archive.store(case.segmentation(Segment(1, "a", case.box(1, 4)), Segment(2, "b", case.box(5, 8))))

    assert not opened(fresh_store(archive, tmp_path), case).notices


def test_newest_segmentation_is_shown_whatever_the_order_of_storing(archive, case, tmp_path):
    store = fresh_store(archive, tmp_path)
    assert not opened(store, case).objects
    archive.store(case.segmentation(Segment(1, "new", case.box(1, 4)), made="20240101"))
    time.sleep(FRESH)
    assert opened(store, case).objects == {1: ("new", None)}
    archive.store(case.segmentation(Segment(1, "old", case.box(5, 8)), made="20230101"))
    time.sleep(FRESH)

    assert opened(store, case).objects == {1: ("new", None)}
    seen = opened(fresh_store(archive, tmp_path), case)
    assert seen.objects == {1: ("new", None)}
    assert np.array_equal(seen.labels, case.box(1, 4))


def test_segmentation_of_another_series_of_the_study_is_not_shown(archive, case, tmp_path):
    other = small_series("beside")
    for instance in other:
        instance.StudyInstanceUID = pydicom.dcmread(case.image.dicom_files[0]).StudyInstanceUID
    archive.store(*other)
    archive.store(case.segmentation(Segment(1, "mine", case.box(1, 4))))
    store = fresh_store(archive, tmp_path)
    store.get_image_uri(str(other[0].SeriesInstanceUID))

    assert stored.label_of(store, str(other[0].SeriesInstanceUID)) is None
    assert opened(store, case).objects == {1: ("mine", None)}


def test_segmentation_that_cannot_be_shown_is_said_and_the_one_before_is_shown(archive, case, tmp_path):
    archive.store(case.segmentation(Segment(1, "before", case.box(1, 4)), made="20230101"))
    astray = case.segmentation(Segment(2, "astray", case.box(1, 4)), made="20240101")
    for frame in astray.PerFrameFunctionalGroupsSequence:
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        place[0] = float(place[0]) + 4000
    archive.store(astray)
    seen = opened(fresh_store(archive, tmp_path), case)

    assert seen.objects == {1: ("before", None)}
    (said,) = [one for one in seen.notices if "not shown" in one]
    assert "lies outside" in said


def test_opening_asks_the_archive_once_and_takes_a_segmentation_once(archive, case, tmp_path):
    archive.store(case.segmentation(Segment(1, "a", case.box(1, 4))))
    store = fresh_store(archive, tmp_path)
    asked: list[str] = []
    store._client._session.hooks["response"].append(lambda answer, *_a, **_b: asked.append(answer.url))
    assert opened(store, case).objects
    first = len(asked)
    assert opened(store, case).objects

    assert len(asked) == first, "asked a moment ago"
    time.sleep(FRESH)
    assert opened(store, case).objects
    assert len(asked) == first + 1
    assert "Modality=SEG" in asked[-1]
    assert sum("Modality=SEG" in one for one in asked[:first]) == 1


def test_study_that_was_opened_once_is_opened_without_the_archive(tmp_path):
    (tmp_path / "orthanc").mkdir()
    with running_orthanc(tmp_path / "orthanc") as archive:
        case = new_case(archive, tmp_path, "alone")
        archive.store(case.segmentation(Segment(1, "a", case.box(1, 4))))
        store = store_of(archive, tmp_path / "cache")
        assert opened(store, case).objects
    time.sleep(FRESH)

    assert opened(store, case).objects == {1: ("a", None)}
    assert opened(store_of(archive, tmp_path / "cache"), case).objects == {1: ("a", None)}
