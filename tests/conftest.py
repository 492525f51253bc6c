"""What the tests of several parts share: a small scan, the samples, and threads that do not fight for the cores."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before torch or numpy are imported: two test processes on two cores, one thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]

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


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def samples(root: Path) -> Path:
    """The samples that ship with the product: `ct/` and `mr/`, each with image, label and painted slice."""
    return root / "samples"
