"""What the tests of several parts share: a small scan, the samples, and threads that do not fight for the cores."""

from __future__ import annotations

import csv
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before torch or numpy are imported: two test processes on two cores, one thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import nibabel
import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

# A busy machine is no failure; tests that measure time say so themselves.
settings.register_profile("imos", deadline=None)
settings.load_profile("imos")

# Shells start what runs in the background with Ctrl-C ignored; the programs that are interrupted here inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]

# Not the user's own; shared by all tests and the servers that they start.
os.environ["IMOS_CACHE"] = str(ROOT / ".run" / "cache")

# Two servers that start at once in a new checkout would both make MONAI Label's folders, and the second one would fail.
for name in ("bin", "lib", "logs", "model"):
    (ROOT / "apps" / "imos" / name).mkdir(exist_ok=True)

AFFINE = np.array([[-1.0, 0, 0, 30], [0, 1.0, 0, -20], [0, 0, 2.0, 5], [0, 0, 0, 1]])


@dataclass(frozen=True)
class Scan:
    """A volume with two bright bodies, on disk.

    Attributes:
        folder: Where its files are; not to be written to.
        image: NIfTI, (48, 40, 16), the first axis flipped, slices of 2 mm.
        prompt: Its label map with one painted slice: label 1 and label 2 on slice 8.
        truth: The whole label map.
        voxels: What `image` holds.
        labels: What `truth` holds.
    """

    folder: Path
    image: Path
    prompt: Path
    truth: Path
    voxels: NDArray[np.int16]
    labels: NDArray[np.uint8]

    def write(self, path: Path, array: NDArray[Any], affine: NDArray[Any] = AFFINE) -> Path:
        """Write an array on this scan's grid (or another one)."""
        nibabel.save(nibabel.Nifti1Image(array, affine), path)
        return path

    def painted(self, *slices: int) -> NDArray[np.uint8]:
        """The label map with nothing but these slices."""
        only = np.zeros_like(self.labels)
        only[:, :, list(slices)] = self.labels[:, :, list(slices)]
        return only


@pytest.fixture(scope="session")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Scan:
    folder = tmp_path_factory.mktemp("scan")
    i, j, k = np.mgrid[:48, :40, :16]
    labels = np.zeros(i.shape, np.uint8)
    labels[(i - 16 - k / 4) ** 2 + (j - 20) ** 2 < 64] = 1
    labels[(i - 36) ** 2 + (j - 20 + k / 4) ** 2 < 36] = 2
    noise = np.random.default_rng(0).normal(0, 15, labels.shape)
    voxels = (np.array([0, 300, 600])[labels] + 60 * np.sin(j / 5) + noise).astype(np.int16)
    made = Scan(folder, folder / "image.nii.gz", folder / "prompt.nii.gz", folder / "truth.nii.gz", voxels, labels)
    made.write(made.image, voxels)
    made.write(made.truth, labels)
    made.write(made.prompt, made.painted(8))
    return made


@pytest.fixture
def partly_labelled(collection: Path, tmp_path: Path) -> Path:
    """`collection` with labels of the training volume `balls5` taken away."""
    copy = tmp_path / "partly"
    shutil.copytree(collection, copy)
    table = copy / "volumes.tsv"
    head, *rows = table.read_text().splitlines()
    lines = [f"{head}\tlabels", *(f"{row}\t{'-' if 'balls5' in row else '1=ball'}" for row in rows)]
    table.write_text("\n".join(lines) + "\n")
    (copy / "train/phantom_mr/balls5.seg.nii.gz").unlink()
    return copy


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature collection, not to be written to.

    `val`: the MR `steps` (6 slices of 32 x 32, the first axis is walked; label 1 is 8 pixels wide and 8 high on slice
    2 and shorter on the others), the CT `steps` (the same, the last axis is walked) and the colonoscopy `clip` (6
    frames; label 1 moves one pixel a frame, label 2 comes on frame 1). `train`: six volumes of 40 x 40 x 24 and one
    still.
    """
    folder = tmp_path_factory.mktemp("collection")
    volumes = [("split", "set", "case", "file", "modality", "slice_axis")]
    random = np.random.default_rng(0)

    def add(split: str, group: str, case: str, modality: str, labels: NDArray[np.uint8], axis: int) -> None:
        path = folder / split / group / f"{case}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        voxels = (60 + 90 * (labels > 0) + 20 * labels + random.normal(0, 6, labels.shape)).clip(0, 255)
        for name, array in ((path.name, voxels.astype(np.uint8)), (f"{case}.seg.nii.gz", labels)):
            nibabel.save(nibabel.Nifti1Image(np.moveaxis(array, 0, axis), np.eye(4)), path.parent / name)
        volumes.append((split, group, case, str(path.relative_to(folder)), modality, str(axis)))

    steps = np.zeros((6, 32, 32), np.uint8)
    for index, height in ((1, 4), (2, 8), (3, 8), (4, 2)):
        steps[index, 10 : 10 + height, 12:20] = 1
    add("val", "phantom_mr", "steps", "MR T1", steps, 0)
    add("val", "phantom_ct", "steps", "CT", steps, 2)
    k, j, i = np.mgrid[:24, :40, :40]
    for number in range(6):
        labels = ((j - 20) ** 2 + (i - 16 - number - k / 4) ** 2 + (k - 12) ** 2 < 90).astype(np.uint8)
        labels[(j - 20) ** 2 + (i - 32) ** 2 < 20] = 2
        add("train", "phantom_mr", f"balls{number}", "MR T1", labels, 0)
    with (folder / "volumes.tsv").open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows(volumes)

    clip, still = folder / "val/frames/phantom_video/clip", folder / "train/stills/phantom_video"
    for part in ("images", "masks"):
        (clip / part).mkdir(parents=True)
        (still / part).mkdir(parents=True)
    for number in range(6):
        mask = np.zeros((32, 48), np.uint8)
        mask[8:16, 8 + number : 18 + number] = 1
        if number:
            mask[20:28, 30:40] = 2
        picture = np.stack([60 + 80 * mask, 90 + 30 * mask, 120 - 40 * mask], -1).astype(np.uint8)
        cv2.imwrite(str(clip / "images" / f"{number:02}.jpg"), picture)
        cv2.imwrite(str(clip / "masks" / f"{number:02}.png"), mask)
        if not number:
            cv2.imwrite(str(still / "images" / "one.jpg"), picture)
            cv2.imwrite(str(still / "masks" / "one.png"), mask)
    rows = [
        ("split", "set", "sequence", "modality"),
        ("val", "phantom_video", "clip", "colonoscopy, RGB"),
        ("train", "phantom_video", "-", "colonoscopy, RGB"),
    ]
    with (folder / "frames.tsv").open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows(rows)
    return folder


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def samples(root: Path) -> Path:
    """The samples that ship with the product: `ct/` and `mr/`, each with image, label and painted slice."""
    return root / "samples"
