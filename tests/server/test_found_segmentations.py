"""DICOM SEG in a folder are the labels of its images, whichever program put them there."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from imos.imaging import Image, read_image, write_label_map
from imos.imaging.dicom_segments import Segment, write_segments
from imos.server import stored
from imos.server.datastores import FINAL, FolderDatastore
from imos.server.dicomweb.synthesis import uid
from imos.server.snapshots import show
from tests.orthanc import SHAPE, small_series


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    folder = tmp_path / "studies"
    folder.mkdir()
    return folder


@pytest.fixture
def series(studies: Path) -> Path:
    (studies / "exam").mkdir()
    for number, instance in enumerate(small_series("folder")):
        instance.save_as(studies / "exam" / f"IM{number}", write_like_original=False)
    return studies / "exam"


def box(start: int, stop: int) -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, bool)
    mask[start:stop, start:stop, start:stop] = True
    return mask


def put(file: Path, image: Image, *segments: Segment, made: str = "20300101", of: str | None = None) -> None:
    """Write a DICOM SEG as another program left it."""
    file.parent.mkdir(exist_ok=True)
    write_segments(file, segments, image)
    dataset = pydicom.dcmread(file)
    dataset.ContentDate, dataset.ContentTime = made, "120000"
    if of is not None:
        dataset.ReferencedSeriesSequence[0].SeriesInstanceUID = of
    dataset.save_as(file)


def opened(store: FolderDatastore, image_id: str) -> tuple[NDArray[np.uint16], dict[int, str], list[str]]:
    """What somebody sees who opens an image for the first time."""
    image = read_image(Path(store.get_image_uri(image_id)))
    label = stored.label_of(store, image_id)
    notices = stored.notices_of(store, image_id, label)
    if label is None:
        return np.zeros(image.shape, np.uint16), {}, notices
    snapshot, objects = stored.read(label, image)
    return show(snapshot, image.shape).labels, {one.value: one.name for one in objects}, notices


def test_newest_segmentation_of_a_series_is_its_label(studies, series):
    image = read_image(series)
    put(studies / "seg" / "new.dcm", image, Segment(4, "Liver", box(2, 6)), Segment(9, "Cyst", box(0, 0)))
    put(studies / "seg" / "old.dcm", image, Segment(1, "Kidney", box(5, 8)), made="20200101")
    store = FolderDatastore(str(studies))
    (image_id,) = store.list_images()

    assert store.get_labeled_images() == [image_id]
    assert store.get_unlabeled_images() == []
    labels, names, notices = opened(store, image_id)
    assert np.array_equal(labels, np.where(box(2, 6), 4, 0))
    assert names == {4: "Liver", 9: "Cyst"}
    assert ["The folder has 2 segmentations of this series" in one for one in notices] == [True]
    assert [Path(one["label"]).name for one in store.datalist()] == [f"{image_id}.nii.gz"]


def test_label_accepted_later_stays(studies, series, tmp_path):
    image = read_image(series)
    put(studies / "seg" / "old.dcm", image, Segment(1, "Kidney", box(5, 8)), made="20200101")
    store = FolderDatastore(str(studies))
    (image_id,) = store.list_images()
    opened(store, image_id)
    write_label_map(tmp_path / "label.nii.gz", np.where(box(1, 4), 2, 0).astype(np.uint8), image)
    store.save_label(image_id, str(tmp_path / "label.nii.gz"), FINAL, {})

    labels, _names, notices = opened(store, image_id)
    assert np.array_equal(labels, np.where(box(1, 4), 2, 0))
    assert not notices
    assert len(list((studies / ".imos" / "replaced" / FINAL).iterdir())) == 1


def test_volume_of_another_format_has_what_was_stored_with_the_series_that_a_viewer_saw(studies, series, samples):
    image = read_image(series)
    write_label_map(studies / "volume.nii.gz", (image.voxels % 200).astype(np.uint8), image)
    put(studies / "seg" / "seg.dcm", image, Segment(4, "Liver", box(2, 6)), of=uid("series", "volume"))
    shutil.rmtree(series)
    store = FolderDatastore(str(studies))

    assert store.get_labeled_images() == ["volume"]
    labels, names, _notices = opened(store, "volume")
    volume = read_image(studies / "volume.nii.gz")
    assert labels.shape == volume.shape
    assert names == {4: "Liver"}
    assert int((labels == 4).sum()) == int(box(2, 6).sum())


def test_segmentation_that_cannot_be_shown_is_said(studies, series):
    image = read_image(series)
    put(studies / "seg" / "seg.dcm", image, Segment(4, "Liver", box(0, 0)))
    store = FolderDatastore(str(studies))
    (image_id,) = store.list_images()

    labels, names, notices = opened(store, image_id)
    assert not labels.any()
    assert not names
    assert ["A segmentation in the folder is not shown" in one for one in notices] == [True]
    assert opened(store, image_id)[2] == notices


def test_segmentation_that_comes_later_is_seen(studies, series):
    image = read_image(series)
    store = FolderDatastore(str(studies))
    (image_id,) = store.list_images()
    assert not opened(store, image_id)[0].any()
    assert store.get_unlabeled_images() == [image_id]
    put(studies / "seg" / "seg.dcm", image, Segment(4, "Liver", box(2, 6)))
    time.sleep(3.2)

    assert opened(store, image_id)[0].any()
    assert store.get_unlabeled_images() == []
