"""Every published layout, in miniature: which cases it holds, what is read, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
import pytest
from PIL import Image as Pillow

from imos.datasets.amos22 import ORGANS
from imos.datasets.cholecseg8k import CLASSES, GRAY_VALUES, classes_of
from imos.datasets.conversion import data_set_of
from imos.datasets.epfl import parts_of
from imos.datasets.prepare import DATA_SETS
from imos.datasets.published import PublishedCase
from imos.datasets.splits import Split
from imos.errors import UserError
from imos.imaging import ImageKind

Make = Callable[..., Any]

LAYOUTS = [(name, name) for name in DATA_SETS] + [("older_camus", "camus")]


def cases_of(name: str, root: Path) -> dict[str, PublishedCase]:
    return {case.name: case for case in data_set_of(name).find(root).cases}


def save_like(path: Path, array: np.ndarray[Any, Any], **affine: Any) -> None:
    """Replace the voxels of a NIfTI file."""
    nibabel.save(nibabel.Nifti1Image(array, affine.get("affine", nibabel.load(path).affine)), path)


@pytest.mark.parametrize(("layout", "name"), LAYOUTS)
def test_images_and_labels_are_those_that_were_published(make: Make, tmp_path: Path, layout: str, name: str) -> None:
    miniature = make(layout, tmp_path / "source")
    cases = cases_of(name, miniature.root)
    assert sorted(cases) == sorted(miniature.images)
    for case in cases.values():
        found = data_set_of(name).read(case)
        np.testing.assert_array_equal(found.image.voxels, miniature.images[case.name])
        np.testing.assert_array_equal(found.labels, miniature.labels[case.name])
        assert found.labels.dtype == np.uint8
        assert set(np.unique(found.labels)) - {0} <= set(found.names)


@pytest.mark.parametrize("name", DATA_SETS)
def test_the_folder_around_the_data_may_be_named_too(make: Make, tmp_path: Path, name: str) -> None:
    inner = {"amos22": "amos22", "camus": "CAMUS_public", "cholecseg8k": "CholecSeg8k", "epfl": "Lucchi"}[name]
    miniature = make(name, tmp_path / "source" / inner)
    assert sorted(cases_of(name, tmp_path / "source")) == sorted(miniature.images)


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_folder_of_something_else_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "notes.txt").write_text("something else")
    with pytest.raises(UserError, match=str(tmp_path)):
        data_set_of(name).find(tmp_path)


@pytest.mark.parametrize(
    ("layout", "name", "missing"),
    [
        ("amos22", "amos22", "labelsTr/amos_0004.nii.gz"),
        ("amos22", "amos22", "imagesVa/amos_0507.nii.gz"),
        ("camus", "camus", "database_nifti/patient0002/patient0002_4CH_half_sequence_gt.nii.gz"),
        ("older_camus", "camus", "training/patient0001/patient0001_2CH_ES_gt.mhd"),
        ("older_camus", "camus", "training/patient0001/Info_4CH.cfg"),
        ("cholecseg8k", "cholecseg8k", "video01/video01_00080/frame_100_endo_watershed_mask.png"),
        ("epfl", "epfl", "testing_groundtruth.tif"),
    ],
)
def test_what_is_missing_is_named(make: Make, tmp_path: Path, layout: str, name: str, missing: str) -> None:
    miniature = make(layout, tmp_path / "source")
    (miniature.root / missing).unlink()
    with pytest.raises(UserError, match=rf"{missing} is missing"):
        data_set_of(name).find(miniature.root)


@pytest.mark.parametrize(
    ("layout", "name", "case", "broken"),
    [
        ("amos22", "amos22", "amos_0004", "imagesTr/amos_0004.nii.gz"),
        ("amos22", "amos22", "amos_0004", "labelsTr/amos_0004.nii.gz"),
        ("camus", "camus", "patient0001_4CH", "database_nifti/patient0001/patient0001_4CH_half_sequence_gt.nii.gz"),
        ("cholecseg8k", "cholecseg8k", "video01_00080", "video01/video01_00080/frame_99_endo.png"),
        ("cholecseg8k", "cholecseg8k", "video01_00080", "video01/video01_00080/frame_99_endo_watershed_mask.png"),
        ("epfl", "epfl", "training", "training.tif"),
        ("epfl", "epfl", "training", "training_groundtruth.tif"),
    ],
)
@pytest.mark.parametrize("how", ["half", "empty", "text"])
def test_a_broken_file_is_named(
    make: Make, tmp_path: Path, layout: str, name: str, case: str, broken: str, how: str
) -> None:
    miniature = make(layout, tmp_path / "source")
    path = miniature.root / broken
    content = path.read_bytes()
    path.write_bytes({"half": content[: len(content) // 2], "empty": b"", "text": b"no image at all " * 40}[how])
    with pytest.raises(UserError, match=broken):
        data_set_of(name).read(cases_of(name, miniature.root)[case])


def test_voxels_of_older_camus_cut_short(make: Make, tmp_path: Path) -> None:
    miniature = make("older_camus", tmp_path / "source")
    raw = miniature.root / "training/patient0001/patient0001_2CH_ED.raw"
    raw.write_bytes(raw.read_bytes()[:100])
    with pytest.raises(UserError, match=r"training/patient0001/patient0001_2CH_ED\.mhd"):
        data_set_of("camus").read(cases_of("camus", miniature.root)["patient0001_2CH"])


class TestAmos22:
    def test_numbers_from_500_on_are_mr(self, make: Make, tmp_path: Path) -> None:
        miniature = make("amos22", tmp_path / "source", numbers=(1, 410, 507, 600))
        modalities = [case.modality for case in cases_of("amos22", miniature.root).values()]
        assert modalities == ["CT", "CT", "MR", "MR"]

    def test_fifteen_organs(self) -> None:
        assert list(ORGANS) == list(range(1, 16))
        assert (ORGANS[1], ORGANS[6], ORGANS[8], ORGANS[15]) == ("spleen", "liver", "aorta", "prostate or uterus")

    def test_geometry_is_kept_and_axial_slices_are_walked_in_any_axis_order(self, make: Make, tmp_path: Path) -> None:
        miniature = make("amos22", tmp_path / "source", numbers=(1,))
        turn = np.array([[0, -0.8, 0, 0], [0, 0, 0.8, 0], [4.0, 0, 0, 0], [0, 0, 0, 1]])  # the first axis is the head's
        for part in ("images", "labels"):
            path = miniature.root / f"{part}Va" / "amos_0001.nii.gz"
            save_like(path, np.asarray(nibabel.load(path).dataobj), affine=turn)
        found = data_set_of("amos22").read(cases_of("amos22", miniature.root)["amos_0001"])
        np.testing.assert_allclose(found.image.affine, turn, atol=1e-6)
        assert found.axis == 0

    def test_shapes_differ(self, make: Make, tmp_path: Path) -> None:
        miniature = make("amos22", tmp_path / "source")
        path = miniature.root / "labelsTr/amos_0004.nii.gz"
        save_like(path, np.asarray(nibabel.load(path).dataobj)[:, :, 1:])
        with pytest.raises(UserError, match=r"labelsTr/amos_0004\.nii\.gz is 24 × 20 × 9 but .* 24 × 20 × 10"):
            data_set_of("amos22").read(cases_of("amos22", miniature.root)["amos_0004"])

    def test_labels_of_another_place_are_refused_and_rounding_is_not(self, make: Make, tmp_path: Path) -> None:
        miniature = make("amos22", tmp_path / "source")
        path = miniature.root / "labelsTr/amos_0004.nii.gz"
        voxels, affine = np.asarray(nibabel.load(path).dataobj), nibabel.load(path).affine
        case = cases_of("amos22", miniature.root)["amos_0004"]
        save_like(path, voxels, affine=affine * (1 + 1e-6))
        data_set_of("amos22").read(case)
        save_like(path, voxels, affine=affine @ np.diag([-1, 1, 1, 1]))
        with pytest.raises(UserError, match=r"labelsTr/amos_0004\.nii\.gz lies beside"):
            data_set_of("amos22").read(case)

    def test_a_label_that_is_not_defined(self, make: Make, tmp_path: Path) -> None:
        miniature = make("amos22", tmp_path / "source")
        path = miniature.root / "labelsTr/amos_0004.nii.gz"
        voxels = np.asarray(nibabel.load(path).dataobj).copy()
        voxels[0, 0, 0] = 16
        save_like(path, voxels)
        with pytest.raises(UserError, match=r"labelsTr/amos_0004\.nii\.gz holds the label 16"):
            data_set_of("amos22").read(cases_of("amos22", miniature.root)["amos_0004"])

    @pytest.mark.parametrize(
        "content",
        [
            "{",
            "[]",
            '{"training": [{"image": "a"}]}',
            '{"training": ["imagesTr/amos_0001.nii.gz"]}',
            '{"training": [{"image": "../amos_0001.nii.gz", "label": "/amos_0001.nii.gz"}]}',
            '{"training": [{"image": "imagesTr/case1.nii.gz", "label": "labelsTr/case1.nii.gz"}]}',
            '{"training": []}',
        ],
    )
    def test_another_list(self, make: Make, tmp_path: Path, content: str) -> None:
        miniature = make("amos22", tmp_path / "source")
        (miniature.root / "dataset.json").write_text(content)
        with pytest.raises(UserError, match=r"source/dataset\.json (is|lists)"):
            data_set_of("amos22").find(miniature.root)

    def test_listed_twice(self, make: Make, tmp_path: Path) -> None:
        index = make("amos22", tmp_path / "source").root / "dataset.json"
        content = json.loads(index.read_text())
        content["validation"] += content["training"][:1]
        index.write_text(json.dumps(content))
        with pytest.raises(UserError, match="lists amos_0001 twice"):
            data_set_of("amos22").find(index.parent)


class TestCamus:
    def test_both_views_of_a_patient_belong_to_him(self, make: Make, tmp_path: Path) -> None:
        miniature = make("camus", tmp_path / "source")
        cases = cases_of("camus", miniature.root)
        assert [(case.patient, case.name) for case in cases.values()] == [
            ("patient0001", "patient0001_2CH"),
            ("patient0001", "patient0001_4CH"),
            ("patient0002", "patient0002_2CH"),
            ("patient0002", "patient0002_4CH"),
        ]
        found = data_set_of("camus").read(cases["patient0001_4CH"])
        assert found.image.kind is ImageKind.VIDEO
        assert found.image.shape == (40, 28, 6)

    def test_older_release_gives_the_labelled_frames_in_the_order_of_time(self, make: Make, tmp_path: Path) -> None:
        miniature = make("older_camus", tmp_path / "source")
        read = data_set_of("camus").read
        cases = cases_of("camus", miniature.root)  # `testing` has no labels and is left out
        for name, shrinks in (("patient0001_4CH", True), ("patient0002_4CH", False)):
            sizes = np.count_nonzero(read(cases[name]).labels == 1, axis=(0, 1))
            assert sizes.shape == (2,)
            assert (sizes[0] > sizes[1]) == shrinks

    def test_raw_files_count_as_sources(self, make: Make, tmp_path: Path) -> None:
        case = cases_of("camus", make("older_camus", tmp_path / "source").root)["patient0001_2CH"]
        assert sorted(path.suffix for path in case.sources) == [".cfg"] + [".mhd"] * 4 + [".raw"] * 4

    def test_unpacked_nifti(self, make: Make, tmp_path: Path) -> None:
        miniature = make("camus", tmp_path / "source", patients=(1,))
        for path in miniature.root.rglob("*.nii.gz"):
            nibabel.save(nibabel.load(path), path.with_suffix(""))
            path.unlink()
        found = data_set_of("camus").read(cases_of("camus", miniature.root)["patient0001_2CH"])
        np.testing.assert_array_equal(found.labels, miniature.labels["patient0001_2CH"])

    def test_info_without_phases(self, make: Make, tmp_path: Path) -> None:
        miniature = make("older_camus", tmp_path / "source")
        (miniature.root / "training/patient0001/Info_2CH.cfg").write_text("NbFrame: 6\n")
        with pytest.raises(UserError, match=r"patient0001/Info_2CH\.cfg does not say"):
            data_set_of("camus").read(cases_of("camus", miniature.root)["patient0001_2CH"])

    def test_fewer_labelled_frames_than_frames(self, make: Make, tmp_path: Path) -> None:
        miniature = make("camus", tmp_path / "source")
        path = miniature.root / "database_nifti/patient0001/patient0001_2CH_half_sequence_gt.nii.gz"
        save_like(path, np.asarray(nibabel.load(path).dataobj)[:, :, :4])
        with pytest.raises(UserError, match=r"patient0001_2CH_half_sequence_gt\.nii\.gz is 28 × 40 × 4"):
            data_set_of("camus").read(cases_of("camus", miniature.root)["patient0001_2CH"])

    def test_a_patient_without_sequences(self, make: Make, tmp_path: Path) -> None:
        miniature = make("camus", tmp_path / "source")
        (miniature.root / "database_nifti/patient0003").mkdir()
        with pytest.raises(UserError, match="patient0003 has no sequence"):
            data_set_of("camus").find(miniature.root)


class TestCholecSeg8k:
    def test_a_video_is_a_patient_and_frames_are_in_order_of_their_numbers(self, make: Make, tmp_path: Path) -> None:
        cases = cases_of("cholecseg8k", make("cholecseg8k", tmp_path / "source").root)
        assert [case.patient for case in cases.values()] == ["video01", "video01", "video09"]
        names = [path.name for path in cases["video01_00080"].images]
        assert names == [f"frame_{number}_endo.png" for number in (98, 99, 100, 101, 102)]

    def test_every_gray_value_is_its_class(self) -> None:
        published = {11: "abdominal wall", 21: "liver", 13: "gastrointestinal tract", 12: "fat", 31: "grasper"}
        published |= {23: "connective tissue", 24: "blood", 25: "cystic duct", 32: "L-hook electrocautery"}
        published |= {22: "gallbladder", 33: "hepatic vein", 5: "liver ligament"}
        assert {value: CLASSES[label] for value, label in GRAY_VALUES.items()} == published
        labels, unknown = classes_of(np.array([50, 0, 255, 21, 35, 31], np.uint8))
        assert labels.tolist() == [0, 0, 0, 2, 0, 5]
        assert unknown == pytest.approx(1 / 6)

    def test_few_pixels_without_a_class_are_background_and_many_are_refused(self, make: Make, tmp_path: Path) -> None:
        miniature = make("cholecseg8k", tmp_path / "source")
        path = miniature.root / "video09/video09_00000/frame_2_endo_watershed_mask.png"
        case = cases_of("cholecseg8k", miniature.root)["video09_00000"]
        with Pillow.open(path) as picture:
            gray = np.asarray(picture).copy()
        gray[12, 20] = 35
        Pillow.fromarray(gray).save(path)
        found = data_set_of("cholecseg8k").read(case)
        assert found.labels[12, 20, 2] == 0
        assert "0.01%" in found.preprocessing
        for mask in case.labels:
            shutil.copy(mask.with_name(mask.name.replace("watershed", "color")), mask)
        with pytest.raises(UserError, match=r"video09_00000/frame_0_endo_watershed_mask\.png"):
            data_set_of("cholecseg8k").read(case)

    def test_sizes_differ(self, make: Make, tmp_path: Path) -> None:
        miniature = make("cholecseg8k", tmp_path / "source")
        path = miniature.root / "video09/video09_00000/frame_2_endo_watershed_mask.png"
        Pillow.fromarray(np.full((16, 24), 50, np.uint8)).save(path)
        with pytest.raises(UserError, match=r"frame_2_endo_watershed_mask\.png is 16 × 24 but .* 32 × 48"):
            data_set_of("cholecseg8k").read(cases_of("cholecseg8k", miniature.root)["video09_00000"])

    def test_a_clip_without_frames(self, make: Make, tmp_path: Path) -> None:
        miniature = make("cholecseg8k", tmp_path / "source")
        (miniature.root / "video09/video09_00080").mkdir()
        with pytest.raises(UserError, match="video09/video09_00080 has 0 frames"):
            data_set_of("cholecseg8k").find(miniature.root)


class TestEpfl:
    def test_the_published_division_is_kept_and_voxels_are_cubes_of_5_nm(self, make: Make, tmp_path: Path) -> None:
        miniature = make("epfl", tmp_path / "source")
        cases = cases_of("epfl", miniature.root)
        assert {case.name: case.split for case in cases.values()} == {"training": Split.TRAIN, "testing": Split.TEST}
        image = data_set_of("epfl").read(cases["training"]).image
        np.testing.assert_allclose(image.spacing, 5e-6)
        assert image.shape == (40, 32, 12)

    def test_every_connected_part_is_an_object_the_largest_first(self, make: Make, tmp_path: Path) -> None:
        case = cases_of("epfl", make("epfl", tmp_path / "source").root)["training"]
        found = data_set_of("epfl").read(case)
        assert np.bincount(found.labels.ravel())[1:].tolist() == [800, 241, 96]
        assert found.names == {1: "mitochondrion 1", 2: "mitochondrion 2", 3: "mitochondrion 3"}

    def test_of_more_than_255_parts_the_smallest_are_left_out(self) -> None:
        mask = np.zeros((3, 60, 60), bool)
        mask[1, ::3, ::3] = True  # 400 of one voxel
        mask[1, 0:2, 0:2] = True
        labels, names = parts_of(mask)
        assert len(names) == 255
        assert np.count_nonzero(labels == 1) == 4
        assert np.unique(labels).size == 256

    def test_one_block_is_enough(self, make: Make, tmp_path: Path) -> None:
        miniature = make("epfl", tmp_path / "source")
        (miniature.root / "testing.tif").unlink()
        assert list(cases_of("epfl", miniature.root)) == ["training"]

    def test_compressed_stacks(self, make: Make, tmp_path: Path) -> None:
        miniature = make("epfl", tmp_path / "source")
        lzw = [cv2.IMWRITE_TIFF_COMPRESSION, 5]
        cv2.imwritemulti(str(miniature.root / "training.tif"), list(miniature.images["training"].T), lzw)
        found = data_set_of("epfl").read(cases_of("epfl", miniature.root)["training"])
        np.testing.assert_array_equal(found.image.voxels, miniature.images["training"])

    @pytest.mark.parametrize("pages", [11, 1])
    def test_fewer_pages_than_the_image(self, make: Make, tmp_path: Path, pages: int) -> None:
        miniature = make("epfl", tmp_path / "source")
        cv2.imwritemulti(str(miniature.root / "training_groundtruth.tif"), [np.zeros((32, 40), np.uint8)] * pages)
        with pytest.raises(UserError, match=r"training_groundtruth\.tif is"):
            data_set_of("epfl").read(cases_of("epfl", miniature.root)["training"])

    def test_masks_with_many_gray_values(self, make: Make, tmp_path: Path) -> None:
        miniature = make("epfl", tmp_path / "source")
        shutil.copy(miniature.root / "training.tif", miniature.root / "training_groundtruth.tif")
        with pytest.raises(UserError, match=r"training_groundtruth\.tif holds \d+ gray values"):
            data_set_of("epfl").read(cases_of("epfl", miniature.root)["training"])

    def test_sixteen_bits(self, make: Make, tmp_path: Path) -> None:
        miniature = make("epfl", tmp_path / "source")
        cv2.imwritemulti(str(miniature.root / "training.tif"), [np.full((32, 40), 999, np.uint16)] * 12)
        with pytest.raises(UserError, match=r"training\.tif has more than 8 bits"):
            data_set_of("epfl").read(cases_of("epfl", miniature.root)["training"])
