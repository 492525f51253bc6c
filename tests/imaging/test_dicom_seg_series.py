"""DICOM SEG on series of every kind and direction, read again by ourselves and by dcmqi; and SEG of other makers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from imos.errors import UserError
from imos.imaging import Image, read_image, read_label_map, write_label_map

_CT, _MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
_CAPTURE, _ULTRASOUND = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.6.1"
_PHOTOGRAPHY = "1.2.840.10008.5.1.4.1.1.77.1.4"
KINDS = {
    "CT": (_CT, "CT", False),
    "MR": (_MR, "MR", False),
    "colour capture": (_CAPTURE, "OT", True),
    "colour ultrasound": (_ULTRASOUND, "US", True),
    "colour photographs": (_PHOTOGRAPHY, "XC", True),
}
ROWS, COLUMNS, SLICES = 9, 11, 5  # no multiple of 8: frames of one bit a pixel do not end at whole bytes
NAMED = {
    "axial": ((1, 0, 0), (0, 1, 0)),
    "coronal": ((1, 0, 0), (0, 0, -1)),
    "sagittal": ((0, 1, 0), (0, 0, -1)),
    "feet first": ((-1, 0, 0), (0, 1, 0)),
}


def write_series(
    folder: Path, make: Callable[..., Any], kind: str, along: Any, down: Any, step: float, seed: int
) -> Image:
    """Write a series and read it."""
    storage, modality, colour = KINDS[kind]
    random = np.random.default_rng(seed)
    shape = (SLICES, ROWS, COLUMNS, 3) if colour else (SLICES, ROWS, COLUMNS)
    pixels = random.integers(1, 255, shape).astype(np.uint8 if colour else np.int16)

    def edit(dataset: Dataset, index: int) -> None:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = storage
        dataset.Modality = modality

    across = np.cross(along, down)
    make(
        folder,
        pixels,
        orientation=[round(float(value), 12) for value in (*along, *down)],
        step=[float(value) for value in across * step],
        origin=[round(float(value), 3) for value in random.uniform(-200, 200, 3)],
        pixel_spacing=(0.8, 1.3),
        edit=edit,
    )
    return read_image(folder)


def some_labels(shape: tuple[int, ...], seed: int) -> NDArray[np.uint16]:
    """Voxels of three objects here and there, with slices that hold nothing."""
    random = np.random.default_rng(seed)
    labels = random.choice(np.array([0, 0, 0, 1, 7, 300], np.uint16), shape)
    labels[:, :, random.random(shape[2]) < 0.4] = 0
    labels[0, 0, int(random.integers(shape[2]))] = 7
    return labels


def read_by_dcmqi(seg: Path, folder: Path, image: Image) -> NDArray[np.uint16]:
    """All segments as dcmqi reads them, on the image's grid, with the values that their tracking ids say."""
    folder.mkdir()
    command = [tool("segimage2itkimage"), "--inputDICOM", str(seg), "--outputDirectory", str(folder), "-t", "nii"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads((folder / "meta.json").read_text())
    values = {
        one["labelID"]: int(one["TrackingIdentifier"].removeprefix("Label "))
        for group in said["segmentAttributes"]
        for one in group
    }
    labels = np.zeros(image.shape, np.uint16)
    for number, value in values.items():
        labels[read_label_map(folder / f"{number}.nii.gz", image) > 0] = value
    return labels


def tool(name: str) -> str:
    """One of dcmqi's programs, beside this Python."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found, f"{name} is missing: pip install dcmqi"
    return found


def turned(random: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Directions of an oblique slice."""
    matrix, _ = np.linalg.qr(random.normal(size=(3, 3)))
    return matrix[0], matrix[1]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(sorted(KINDS)),
    direction=st.sampled_from([*NAMED, "oblique"]),
    step=st.sampled_from([2.5, -2.5, 0.7]),
    seed=st.integers(0, 2**31),
)
def test_voxels_come_back_from_any_series(
    tmp_path_factory: pytest.TempPathFactory, make_series: Any, kind: str, direction: str, step: float, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("seg")
    along, down = turned(np.random.default_rng(seed)) if direction == "oblique" else NAMED[direction]
    image = write_series(folder / "series", make_series, kind, along, down, step, seed)
    labels = some_labels(image.shape, seed)
    write_label_map(folder / "seg.dcm", labels, image)

    assert image.is_rgb == KINDS[kind][2]
    np.testing.assert_array_equal(read_label_map(folder / "seg.dcm", image), labels)


@pytest.mark.parametrize("direction", [*NAMED, "oblique"])
@pytest.mark.parametrize(("kind", "step"), [("CT", 2.5), ("MR", -2.5), ("colour capture", 2.5)])
def test_dcmqi_reads_the_same_voxels(tmp_path: Path, make_series: Any, kind: str, step: float, direction: str) -> None:
    along, down = turned(np.random.default_rng(3)) if direction == "oblique" else NAMED[direction]
    image = write_series(tmp_path / "series", make_series, kind, along, down, step, 1)
    labels = some_labels(image.shape, 2)
    write_label_map(tmp_path / "seg.dcm", labels, image)

    np.testing.assert_array_equal(read_by_dcmqi(tmp_path / "seg.dcm", tmp_path / "dcmqi", image), labels)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(max_size=90))
def test_any_name_can_be_written(multi_frame: Path, tmp_path: Path, name: str) -> None:
    image = read_image(multi_frame)
    labels = np.zeros(image.shape, np.uint8)
    labels[1, 2, 3] = 5
    write_label_map(tmp_path / "seg.dcm", labels, image, {5: name})

    said = pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence[0].SegmentLabel
    plain = " ".join("".join(c if c.isprintable() and c != "\\" else " " for c in name).split())
    assert said == (plain[:64].strip() or "Label 5")


def test_names_keep_their_letters(multi_frame: Path, tmp_path: Path) -> None:
    image = read_image(multi_frame)
    labels = np.zeros(image.shape, np.uint8)
    names = {1: "Wątroba", 2: "肝臓", 3: "Ηπαρ – Segment Ⅳ", 4: "كبد"}
    for value in names:
        labels[value, 0, 0] = value
    write_label_map(tmp_path / "seg.dcm", labels, image, names)

    said = pydicom.dcmread(tmp_path / "seg.dcm")
    assert [segment.SegmentLabel for segment in said.SegmentSequence] == list(names.values())
    read_by_dcmqi(tmp_path / "seg.dcm", tmp_path / "dcmqi", image)
    group = json.loads((tmp_path / "dcmqi" / "meta.json").read_text(encoding="utf-8"))["segmentAttributes"]
    assert [one["SegmentLabel"] for part in group for one in part] == list(names.values())


def test_patients_name_is_kept_whatever_its_character_set(tmp_path: Path, make_series: Any) -> None:
    write_series(tmp_path / "series", make_series, "CT", *NAMED["axial"], 2.0, 4)
    for file in (tmp_path / "series").iterdir():
        dataset = pydicom.dcmread(file)
        dataset.SpecificCharacterSet, dataset.PatientName = "ISO_IR 100", "Müller^Jürg"
        dataset.save_as(file)
    image = read_image(tmp_path / "series")
    write_label_map(tmp_path / "seg.dcm", np.ones(image.shape, np.uint8), image, {1: "肝臓"})

    said = pydicom.dcmread(tmp_path / "seg.dcm")
    assert str(said.PatientName) == "Müller^Jürg"
    assert said.SegmentSequence[0].SegmentLabel == "肝臓"


# Other makers' files


def by_dcmqi(folder: Path, image: Image, masks: dict[int, NDArray[np.bool_]]) -> Path:
    """A segmentation made by dcmqi, a segment and a file for each mask; its segments may overlap."""
    code = {"CodeValue": "85756007", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Tissue"}
    files, attributes = [], []
    for number, mask in masks.items():
        files.append(folder / f"mask{number}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), image.affine), files[-1])
        attributes.append(
            [
                {
                    "labelID": 1,
                    "SegmentLabel": f"part {number}",
                    "SegmentDescription": f"part {number}",
                    "SegmentAlgorithmType": "MANUAL",
                    "SegmentedPropertyCategoryCodeSequence": code,
                    "SegmentedPropertyTypeCodeSequence": code,
                }
            ]
        )
    said = {
        "ContentCreatorName": "Somebody",
        "ClinicalTrialSeriesID": "1",
        "ClinicalTrialTimePointID": "1",
        "SeriesDescription": "Segmentation",
        "SeriesNumber": "300",
        "InstanceNumber": "1",
        "segmentAttributes": attributes,
    }
    (folder / "meta.json").write_text(json.dumps(said))
    command = [
        *(tool("itkimage2segimage"), "--inputImageList", ",".join(map(str, files))),
        *("--inputDICOMList", ",".join(map(str, image.dicom_files))),
        *("--inputMetadata", str(folder / "meta.json"), "--outputDICOM", str(folder / "other.dcm")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (folder / "other.dcm").exists(), done.stdout + done.stderr
    return folder / "other.dcm"


def named_for_dcmqi(series: Path) -> Image:
    """A series with what dcmqi wants to know about the patient, added to its files."""
    for file in series.iterdir():
        dataset = pydicom.dcmread(file)
        for keyword in ("PatientName", "PatientID", "StudyID", "AccessionNumber", "PatientSex"):
            setattr(dataset, keyword, "O" if keyword == "PatientSex" else "1")
        for keyword in ("StudyDate", "SeriesDate", "PatientBirthDate"):
            setattr(dataset, keyword, "20200101")
        dataset.StudyTime, dataset.SeriesNumber, dataset.SliceThickness = "120000", 1, 2.0
        dataset.save_as(file)
    return read_image(series)


@pytest.fixture(params=["axial", "sagittal", "oblique"])
def patient(request: pytest.FixtureRequest, tmp_path: Path, make_series: Any) -> Image:
    """A series with what dcmqi wants to know about the patient."""
    name = request.param
    along, down = turned(np.random.default_rng(5)) if name == "oblique" else NAMED[name]
    write_series(tmp_path / "series", make_series, "CT", along, down, 2.0, 4)
    return named_for_dcmqi(tmp_path / "series")


def test_segmentation_of_another_maker_is_read(patient: Image, tmp_path: Path) -> None:
    labels = some_labels(patient.shape, 6)
    masks = {number: labels == value for number, value in enumerate((1, 7, 300), start=1)}
    found = read_label_map(by_dcmqi(tmp_path, patient, masks), patient)

    np.testing.assert_array_equal(found, np.select(list(masks.values()), list(masks)))


def test_of_overlapping_segments_the_later_one_holds(
    patient: Image, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    large, small = np.zeros(patient.shape, bool), np.zeros(patient.shape, bool)
    large[1:8, 1:8, 1:4], small[3:5, 3:5, 2] = True, True
    found = read_label_map(by_dcmqi(tmp_path, patient, {1: large, 2: small}), patient)

    np.testing.assert_array_equal(found, np.where(small, 2, large))
    assert "overlap in 4 voxels" in caplog.text


def test_segments_and_frames_without_a_voxel_do_no_harm(tmp_path: Path, make_series: Any) -> None:
    image = write_series(tmp_path / "series", make_series, "MR", *NAMED["coronal"], 2.0, 4)
    labels = some_labels(image.shape, 8)
    write_label_map(tmp_path / "seg.dcm", labels, image)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    empty = pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence[0]
    empty.SegmentNumber, empty.TrackingID, empty.SegmentLabel = 4, "Label 9", "Nothing"
    seg.SegmentSequence.append(empty)
    frames = np.asarray(seg.pixel_array).reshape(-1, ROWS, COLUMNS)
    frames = np.concatenate([frames, np.zeros((1, ROWS, COLUMNS), np.uint8)])
    described = pydicom.dcmread(tmp_path / "seg.dcm").PerFrameFunctionalGroupsSequence[0]
    described.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 4
    seg.PerFrameFunctionalGroupsSequence.append(described)
    seg.NumberOfFrames = len(frames)
    packed = np.packbits(frames.ravel(), bitorder="little").tobytes()
    seg.PixelData = packed + b"\0" * (len(packed) % 2)
    seg.save_as(tmp_path / "more.dcm")

    np.testing.assert_array_equal(read_label_map(tmp_path / "more.dcm", image), labels)


def test_tilted_frames_are_refused(tmp_path: Path, make_series: Any) -> None:
    image = write_series(tmp_path / "series", make_series, "CT", *NAMED["axial"], 2.0, 4)
    write_label_map(tmp_path / "seg.dcm", np.ones(image.shape, np.uint8), image)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    for number, frame in enumerate(seg.PerFrameFunctionalGroupsSequence):
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        place[1] = float(place[1]) + 0.6 * number
    seg.save_as(tmp_path / "tilted.dcm")

    with pytest.raises(UserError, match="not one upright stack"):
        read_label_map(tmp_path / "tilted.dcm", image)
