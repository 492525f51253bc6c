"""Collections: what the two tables say becomes cases, and cases become slices with labels."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from imos.datasets.collection import Modality, modality_of, read_collection, stills, unlabelled_volumes
from imos.errors import UserError


@pytest.mark.parametrize(
    ("text", "modality"),
    [
        ("MR T1", Modality.MRI),
        ("MR T2 (atlas average)", Modality.MRI),
        ("CT", Modality.CT),
        ("micro-CT", Modality.CT),
        ("EM (SEM)", Modality.EM),
        ("laryngeal endoscopy (laser surgery), RGB", Modality.ENDOSCOPY),
        ("colonoscopy, RGB", Modality.ENDOSCOPY),
        ("laparoscopic cholecystectomy, RGB", Modality.ENDOSCOPY),
        ("fluorescence microscopy (HeLa nuclei)", Modality.MICROSCOPY),
        ("cardiac ultrasound", Modality.ULTRASOUND),
        ("natural video, RGB", Modality.NATURAL),
    ],
)
def test_free_text_has_a_modality(text: str, modality: Modality) -> None:
    assert modality_of(text) is modality


def test_only_rows_of_the_split(collection: Path) -> None:
    cases = read_collection(collection, "val")
    assert [(case.group, case.name, case.modality) for case in cases] == [
        ("phantom_mr", "steps", Modality.MRI),
        ("phantom_ct", "steps", Modality.CT),
        ("phantom_video", "clip", Modality.ENDOSCOPY),
    ]


def test_volumes_are_walked_along_their_own_axis(collection: Path) -> None:
    first_axis, last_axis, _ = read_collection(collection, "val")
    (_, labels), (_, turned) = first_axis.load(), last_axis.load()
    assert labels.shape == (6, 32, 32)
    np.testing.assert_array_equal(labels, turned)
    assert np.count_nonzero(labels, axis=(1, 2)).tolist() == [0, 32, 64, 64, 16, 0]


def test_a_volume_that_nobody_labelled_is_apart(partly_labelled: Path) -> None:
    assert [case.name for case in read_collection(partly_labelled, "train")] == [f"balls{n}" for n in range(5)]
    (case,) = unlabelled_volumes(partly_labelled, "train")
    slices, labels = case.load()
    assert case.name == "balls5"
    assert slices.shape == labels.shape == (24, 40, 40)
    assert slices.std() > 10
    assert not labels.any()
    assert unlabelled_volumes(partly_labelled, "val") == []


def test_frames_come_in_order_and_in_colour(collection: Path) -> None:
    slices, labels = read_collection(collection, "val")[2].load()
    assert slices.shape == (6, 32, 48, 3)
    assert [int(np.flatnonzero((plane == 1).any(0))[0]) for plane in labels] == [8, 9, 10, 11, 12, 13]
    blue_before_red = slices[0, 2, 2]  # written as BGR 60, 90, 120
    np.testing.assert_allclose(blue_before_red, (120, 90, 60), atol=4)


def test_gray_frames_have_no_colour_axis(collection: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(collection, tmp_path / "gray")
    for path in (copy / "val/frames/phantom_video/clip/images").iterdir():
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    assert read_collection(copy, "val")[2].load()[0].shape == (6, 32, 48)


def test_stills_are_no_sequences(collection: Path) -> None:
    assert all(not case.is_video for case in read_collection(collection, "train"))
    ((image, mask),) = stills(collection, "train")
    assert (image.name, mask.name) == ("one.jpg", "one.png")


def test_one_table_is_enough(collection: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(collection, tmp_path / "volumes")
    (copy / "frames.tsv").unlink()
    assert [case.name for case in read_collection(copy, "val")] == ["steps", "steps"]


def test_folder_without_tables(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither volumes\.tsv nor frames\.tsv"):
        read_collection(tmp_path, "val")


def test_unknown_split_names_those_there_are(collection: Path) -> None:
    with pytest.raises(UserError, match=r"no case of split 'vla'\. Its splits: train, val\."):
        read_collection(collection, "vla")


@pytest.mark.parametrize("damage", ["missing", "truncated", "empty"])
def test_damaged_volume(collection: Path, tmp_path: Path, damage: str) -> None:
    copy = shutil.copytree(collection, tmp_path / "damaged")
    path = copy / "val/phantom_mr/steps.nii.gz"
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"")
    with pytest.raises(UserError, match=r"steps\.nii\.gz"):
        read_collection(copy, "val")[0].load()


@pytest.mark.parametrize(
    ("labels", "said"),
    [(np.zeros((6, 32, 31), np.uint8), "differ in shape"), (np.full((6, 32, 32), 256, np.uint16), "the label 256")],
)
def test_labels_that_do_not_fit(collection: Path, tmp_path: Path, labels: NDArray[Any], said: str) -> None:
    copy = shutil.copytree(collection, tmp_path / "wrong")
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), copy / "val/phantom_mr/steps.seg.nii.gz")
    with pytest.raises(UserError, match=rf"steps.*{said}"):
        read_collection(copy, "val")[0].load()


def test_hounsfield_values_are_windowed_for_the_labelled_tissue(collection: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(collection, tmp_path / "hounsfield")
    case = read_collection(copy, "val")[1]
    labels = np.asarray(nibabel.load(case.path_of_labels).dataobj)
    for tissue, low, high in ((120, -160, 240), (-820, -1350, 150)):  # soft tissue, lung
        values = np.where(labels == 1, tissue, np.linspace(-1000, 1500, labels.size).reshape(labels.shape))
        nibabel.save(nibabel.Nifti1Image(values.astype(np.int16), np.eye(4)), case.path)
        expected = ((values.astype(np.int16) - float(low)) / (high - low) * 255).clip(0, 255)
        np.testing.assert_allclose(case.load()[0], np.moveaxis(expected, case.axis, 0), atol=0.51)


def test_png_frames(collection: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(collection, tmp_path / "png")
    before, labels = read_collection(copy, "val")[2].load()
    for path in (copy / "val/frames/phantom_video/clip/images").iterdir():
        cv2.imwrite(str(path.with_suffix(".png")), cv2.imread(str(path)))
        path.unlink()
    slices, again = read_collection(copy, "val")[2].load()
    np.testing.assert_array_equal(slices, before)
    np.testing.assert_array_equal(again, labels)


def test_frame_without_mask(collection: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(collection, tmp_path / "unmasked")
    (copy / "val/frames/phantom_video/clip/masks/03.png").unlink()
    with pytest.raises(UserError, match=r"03\.jpg or its mask 03\.png"):
        read_collection(copy, "val")[2].load()


def test_sequence_without_frames(collection: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(collection, tmp_path / "empty")
    shutil.rmtree(copy / "val/frames/phantom_video/clip/images")
    with pytest.raises(UserError, match="no frames"):
        read_collection(copy, "val")[2].load()


@pytest.mark.parametrize("value", [-1, 0.5, 256, float("nan")])
def test_values_that_are_no_labels_are_refused(collection: Path, tmp_path: Path, value: float) -> None:
    case = next(case for case in read_collection(collection, "train") if not case.is_video)
    assert case.path_of_labels is not None
    stored = nibabel.load(case.path_of_labels)
    labels = np.asarray(stored.dataobj).astype(np.float32)
    labels.flat[0] = value
    nibabel.save(nibabel.Nifti1Image(labels, stored.affine), tmp_path / "wrong.nii.gz")
    with pytest.raises(UserError):
        replace(case, path_of_labels=tmp_path / "wrong.nii.gz").load()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("split,set,case\ntrain,a,b\n", "has no column split, set, case, file, modality, slice_axis"),
        ("split\tset\tcase\tfile\tmodality\ntrain\ta\tb\tc\tCT\n", "has no column slice_axis"),
        ("", "has no column split"),
        ("split\tset\tcase\tfile\tmodality\tslice_axis\ntrain\ta\n", "too few columns in line 2"),
        (
            "split\tset\tcase\tfile\tmodality\tslice_axis\ntrain\ta\tb\tc\tCT\t7\n",
            "slice_axis of c is 0, 1 or 2, not '7'",
        ),
        ("split\tset\x00", "volumes.tsv"),
        ("\xff\xfe", "volumes.tsv"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, table: str, said: str) -> None:
    (tmp_path / "volumes.tsv").write_bytes(table.encode("latin-1"))
    with pytest.raises(UserError, match=said):
        read_collection(tmp_path, "train")
