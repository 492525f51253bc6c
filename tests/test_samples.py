"""The samples are what their README says they are."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

pytestmark = pytest.mark.parametrize("name", ["ct", "mr"])


def load(samples, name, part):
    return nibabel.load(samples / name / f"{part}.nii.gz")


def test_all_parts_lie_on_one_grid(samples, name):
    image = load(samples, name, "image")

    for part in ("label", "painted"):
        assert load(samples, name, part).shape == image.shape
        assert np.allclose(load(samples, name, part).affine, image.affine)


def test_painted_slice_is_the_reference_on_one_slice_and_shows_every_object(samples, name):
    painted = np.asarray(load(samples, name, "painted").dataobj)
    label = np.asarray(load(samples, name, "label").dataobj)
    (index,) = np.nonzero(painted.any(axis=(0, 1)))[0]

    assert np.array_equal(painted[:, :, index], label[:, :, index])
    assert np.array_equal(np.unique(painted), np.unique(label))


def test_every_label_has_a_name(samples, name):
    names = json.loads((samples / name / "labels.json").read_text())
    label = np.asarray(load(samples, name, "label").dataobj)

    assert [int(value) for value in names] == [value for value in np.unique(label) if value]


def test_served_image_is_the_sample(samples, name):
    assert (samples / "studies" / f"sample_{name}.nii.gz").read_bytes() == (
        samples / name / "image.nii.gz"
    ).read_bytes()
