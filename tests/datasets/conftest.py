"""Data sets in miniature, in the layouts they are published in, written with the programs that wrote the real ones."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray
from PIL import Image as Pillow

from imos import cli

AFFINE = np.array([[-0.75, 0, 0, 90.0], [0, 0.75, 0, -120.0], [0, 0, 5.0, 7.0], [0, 0, 0, 1]])


@dataclass(frozen=True)
class Miniature:
    """A data set on disk.

    Attributes:
        root: The folder to name.
        images: What its images hold, by case, in the order of the collection's axes.
        labels: What its labels hold, by case.
    """

    root: Path
    images: dict[str, NDArray[Any]]
    labels: dict[str, NDArray[np.uint8]]


def save_nifti(path: Path, array: NDArray[Any], affine: NDArray[Any] = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def make_amos22(root: Path, numbers: Sequence[int] = (1, 4, 7, 10, 507), side: int = 24) -> Miniature:
    """AMOS22: a body with a liver (6) on slices 2 to 8 and an aorta (8) on all; the last number is for validation."""
    images, labels = {}, {}
    listed: dict[str, list[Any]] = {"training": [], "validation": [], "test": []}
    i, j, k = np.mgrid[:side, : side - 4, :10]
    for number in numbers:
        random = np.random.default_rng(number)
        label = np.zeros(i.shape, np.uint8)
        label[((i - 8) ** 2 + (j - 8) ** 2 < 16 + number % 5) & (k > 1) & (k < 9)] = 6
        label[(i - 16) ** 2 + (j - 14) ** 2 < 8] = 8
        noise = random.normal(0, 8, i.shape)
        tissue = np.where(label == 6, 110, np.where(label == 8, 180, 40)) + noise
        body = (i - side / 2) ** 2 + (j - side / 2) ** 2 < (side / 2) ** 2
        voxels = np.where(body, tissue, -1000) if number < 500 else np.where(body, 300 + 2 * tissue, 0)
        part, where = ("validation", "Va") if number == numbers[-1] else ("training", "Tr")
        file = f"amos_{number:04}.nii.gz"
        save_nifti(root / f"images{where}" / file, voxels.astype(np.int16))
        save_nifti(root / f"labels{where}" / file, label)
        listed[part].append({"image": f"./images{where}/{file}", "label": f"./labels{where}/{file}"})
        images[f"amos_{number:04}"], labels[f"amos_{number:04}"] = voxels.astype(np.int16), label
    save_nifti(root / "imagesTs" / "amos_0002.nii.gz", np.zeros((4, 4, 4), np.int16))
    listed["test"].append({"image": "./imagesTs/amos_0002.nii.gz", "label": "./labelsTs/amos_0002.nii.gz"})
    content = {"name": "AMOS", "modality": {"0": "CT"}, "labels": {"0": "background"}, "numTraining": 4, **listed}
    (root / "dataset.json").write_text(json.dumps(content))
    return Miniature(root, images, labels)


def heart(seed: int, frames: int = 6) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """`(rows, columns, time)` ultrasound: a cavity (1) that shrinks, its wall (2) and an atrium (3)."""
    y, x, t = np.mgrid[:40, :28, :frames]
    label = np.zeros(y.shape, np.uint8)
    label[(y - 14) ** 2 + (x - 14) ** 2 < 100] = 2
    label[(y - 14) ** 2 + (x - 14) ** 2 < 50 - 4 * t] = 1
    label[(y - 31) ** 2 + (x - 14) ** 2 < 25 + t] = 3
    noise = np.random.default_rng(seed).normal(0, 9, y.shape)
    return (np.array([40, 20, 150, 30])[label] + noise).clip(0, 255).astype(np.uint8), label


def info(patient: Path, view: str, ed: int, es: int) -> None:
    text = f"ED: {ed}\nES: {es}\nNbFrame: 6\nSex: F\nAge: 55\nImageQuality: Good\nEF: 55\nFrameRate: 40.8\n"
    (patient / f"Info_{view}.cfg").write_text(text)


def make_camus(root: Path, patients: Sequence[int] = (1, 2)) -> Miniature:
    """CAMUS as NIfTI: columns, rows, time."""
    images, labels = {}, {}
    for number in patients:
        patient = root / "database_nifti" / f"patient{number:04}"
        for view in ("2CH", "4CH"):
            name = f"{patient.name}_{view}"
            picture, label = heart(number)
            for file, array in ((name + "_half_sequence", picture), (name + "_half_sequence_gt", label)):
                save_nifti(patient / f"{file}.nii.gz", array.swapaxes(0, 1), np.diag([0.3, 0.3, 1.0, 1.0]))
            info(patient, view, 1, 6)
            images[name], labels[name] = picture, label
    return Miniature(root, images, labels)


def make_older_camus(root: Path) -> Miniature:
    """CAMUS as MetaImage: a sequence without labels, first and last frame with; patient 2 goes from small to large."""
    images, labels = {}, {}

    def save(path: Path, array: NDArray[Any]) -> None:
        picture = SimpleITK.GetImageFromArray(np.ascontiguousarray(np.moveaxis(array, 2, 0)))
        picture.SetSpacing((0.3, 0.15, 1.0))
        SimpleITK.WriteImage(picture, str(path))

    for number in (1, 2):
        patient = root / "training" / f"patient{number:04}"
        patient.mkdir(parents=True)
        picture, label = heart(number)
        for view in ("2CH", "4CH"):
            name = f"{patient.name}_{view}"
            save(patient / f"{name}_sequence.mhd", picture if number == 1 else picture[:, :, ::-1])
            for phase, frame in (("ED", 0), ("ES", 5)):
                save(patient / f"{name}_{phase}.mhd", picture[:, :, [frame]])
                save(patient / f"{name}_{phase}_gt.mhd", label[:, :, [frame]])
            info(patient, view, *((1, 6) if number == 1 else (6, 1)))
            order = [0, 5] if number == 1 else [5, 0]
            images[name], labels[name] = picture[:, :, order], label[:, :, order]
    (root / "testing" / "patient0001").mkdir(parents=True)
    save(root / "testing" / "patient0001" / "patient0001_4CH_sequence.mhd", picture)
    return Miniature(root, images, labels)


def make_cholecseg8k(root: Path) -> Miniature:
    """CholecSeg8k: three clips of two videos; a gallbladder (22), a grasper (31) that comes on frame 2, liver (21)."""
    images, labels = {}, {}
    for clip, first in (("video01_00080", 98), ("video01_00160", 160), ("video09_00000", 0)):
        folder = root / clip.split("_")[0] / clip
        folder.mkdir(parents=True)
        pictures, classes = [], []
        for number in range(first, first + 5):  # from 98 on: by name 100 would come before 98
            shift = number - first
            gray = np.full((32, 48), 50, np.uint8)
            gray[4:28, 4:44] = 21
            gray[10:20, 10 + shift : 22 + shift] = 22
            if shift >= 2:
                gray[20:24, 30:42] = 31
            label = np.zeros_like(gray)
            for value, number_of_class in ((21, 2), (22, 10), (31, 5)):
                label[gray == value] = number_of_class
            gray[:, [0, -1]] = 255
            gray[4, 4] = label[4, 4] = 0
            color = np.stack([gray * 3, 90 + label * 5, 200 - gray], -1).astype(np.uint8)
            frame = f"frame_{number}_endo"
            Pillow.fromarray(color).save(folder / f"{frame}.png")
            Pillow.fromarray(np.stack([gray] * 3, -1)).save(folder / f"{frame}_watershed_mask.png")
            Pillow.fromarray(color[..., ::-1].copy()).save(folder / f"{frame}_mask.png")
            Pillow.fromarray(color[..., ::-1].copy()).save(folder / f"{frame}_color_mask.png")
            pictures.append(color)
            classes.append(label)
        images[clip], labels[clip] = np.stack(pictures, 2), np.stack(classes, 2)
    return Miniature(root, images, labels)


def make_epfl(root: Path) -> Miniature:
    """EPFL: two stacks of 12 pages of 32 rows and 40 columns; three mitochondria, two of which touch at a corner."""
    root.mkdir(parents=True)
    images, labels = {}, {}
    for name in ("training", "testing"):
        label = np.zeros((12, 32, 40), np.uint8)
        label[2:10, 4:14, 5:15] = 1
        label[0:5, 20:26, 20:28] = 2
        label[5:6, 26:27, 28:29] = 2  # by a corner
        label[7:11, 6:10, 30:36] = 3
        noise = np.random.default_rng(len(name)).normal(0, 6, label.shape)
        gray = (150 - 60 * (label > 0) + noise).clip(0, 255).astype(np.uint8)
        uncompressed = [cv2.IMWRITE_TIFF_COMPRESSION, 1]
        cv2.imwritemulti(str(root / f"{name}.tif"), list(gray), uncompressed)
        cv2.imwritemulti(str(root / f"{name}_groundtruth.tif"), list((label > 0).astype(np.uint8) * 255), uncompressed)
        images[name], labels[name] = gray.T, label.T
    return Miniature(root, images, labels)


MAKERS: dict[str, Callable[[Path], Miniature]] = {
    "amos22": make_amos22,
    "camus": make_camus,
    "older_camus": make_older_camus,
    "cholecseg8k": make_cholecseg8k,
    "epfl": make_epfl,
}


@pytest.fixture
def make() -> Callable[..., Miniature]:
    """`make("amos22", folder, …)` → the data set in miniature."""
    return lambda name, root, **how: MAKERS[name](root, **how)


@pytest.fixture
def prepared() -> Callable[..., None]:
    """`prepared("amos22", source, target, …)`: the verb, which must succeed."""

    def run(*words: object) -> None:
        assert cli.main(["prepare", *(str(word) for word in words), "--workers", "1"]) == 0

    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run `prepare`, which must be refused with exit code 2; its one line comes back."""

    def run(*words: object) -> str:
        capsys.readouterr()
        code = cli.main(["prepare", *(str(word) for word in words)])
        said = capsys.readouterr()
        assert code == 2, said.err
        assert said.out == ""
        line = said.err.strip().splitlines()[-1]
        assert line.startswith("error: ")
        return line.removeprefix("error: ")

    return run


@pytest.fixture
def little_space() -> Callable[[int], Any]:
    """`with little_space(4096)`: no file may grow beyond so many bytes."""

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))  # Python ignores SIGXFSZ: writes fail with EFBIG
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            sys.dont_write_bytecode = bytecode

    return limited
