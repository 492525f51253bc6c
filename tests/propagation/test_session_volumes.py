"""The session with the weights and the tracker that are shipped, on small volumes whose objects are known."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

import imos
from imos import SliceState
from imos.imaging import Image, ImageKind

SHAPE = (72, 80, 28)
SECOND = 300


@pytest.fixture(scope="module")
def model():
    return imos.load()


@pytest.fixture(scope="module")
def truth():
    """Two tilted ellipsoids, 1 on slices 3 to 24, 300 on slices 6 to 21."""
    i, j, k = np.meshgrid(*(np.arange(size, dtype=float) for size in SHAPE), indexing="ij")
    tilt = 0.5 * (k - 13.5)
    labels = np.zeros(SHAPE, np.uint16)
    labels[((i - 24 - tilt) / 11) ** 2 + ((j - 24) / 13) ** 2 + ((k - 13.5) / 11) ** 2 <= 1] = 1
    labels[((i - 48) / 11) ** 2 + ((j - 56 + tilt) / 12) ** 2 + ((k - 13.5) / 8) ** 2 <= 1] = SECOND
    return labels


@pytest.fixture(scope="module")
def volume(truth):
    """One bright, one dark, on a textured background, as 16-bit MR."""
    generator = np.random.default_rng(3)
    i, j, _ = np.meshgrid(*(np.arange(size) for size in SHAPE), indexing="ij")
    gray = 220 + 40 * np.sin(i / 7) + 30 * np.cos(j / 5)
    gray[truth == 1] += 260
    gray[truth == SECOND] -= 130
    gray += generator.normal(0, 18, SHAPE)
    affine = np.diag([0.9, 0.9, 3.0, 1.0])
    return Image(gray.astype(np.int16), affine, ImageKind.VOLUME, "phantom", modality="MR")


def jaccard(a, b):
    return (a & b).sum() / max(1, (a | b).sum())


@pytest.fixture(scope="module")
def propagated(model, volume, truth):
    """A session with both objects painted on slice 13 and propagated; each test gets its own copy by undoing."""
    session = imos.Session(model, volume)
    session.paint(plane="axial", index=13, labels=truth[:, :, 13])
    return session, session.propagate()


@pytest.fixture
def session(propagated):
    session, result = propagated
    steps = len(session.undoable)
    yield session
    while len(session.undoable) > steps:
        session.undo()
    assert np.array_equal(session.result.labels, result.labels)


def test_the_volume_follows_from_one_slice(propagated, truth):
    _, result = propagated
    assert jaccard(result.labels == 1, truth == 1) > 0.75
    assert jaccard(result.labels == SECOND, truth == SECOND) > 0.75


def test_label_values_above_255_are_kept(propagated):
    _, result = propagated
    assert result.labels.dtype == np.uint16
    assert np.unique(result.labels).tolist() == [0, 1, SECOND]


def test_painted_slice_comes_back_voxel_for_voxel(propagated, truth):
    _, result = propagated
    assert np.array_equal(result.labels[:, :, 13], truth[:, :, 13])


def test_every_slice_that_shows_an_object_has_a_confidence(propagated):
    _, result = propagated
    for label in (1, SECOND):
        shown = np.flatnonzero((result.labels == label).any((0, 1)))
        assert all(0 <= result.confidence[label][index] <= 1 for index in shown)
        assert result.states[label][13] is SliceState.PROMPTED
        assert result.suggested[label] != 13


def test_correcting_one_object_leaves_the_other_alone(session, propagated, truth):
    _, before = propagated
    session.paint(plane="axial", index=18, labels=np.where(truth[:, :, 18] == 1, 1, 0))
    after = session.propagate()
    assert np.array_equal(before.labels == SECOND, after.labels == SECOND)
    assert np.array_equal(after.labels[:, :, 18] == 1, truth[:, :, 18] == 1)


def test_only_the_neighbourhood_of_a_correction_changes(session, propagated, truth):
    _, before = propagated
    session.paint(plane="axial", index=18, labels=np.where(truth[:, :, 18] == 1, 1, 0))
    after = session.propagate()
    assert np.array_equal(before.labels[:, :, :14], after.labels[:, :, :14])
    assert after.computed <= 4 + 9


def test_a_second_prompt_makes_no_object_worse(session, propagated, truth):
    _, before = propagated
    session.paint(plane="axial", index=20, labels=truth[:, :, 20])
    after = session.propagate()
    for label in (1, SECOND):
        was = jaccard(before.labels == label, truth == label)
        assert jaccard(after.labels == label, truth == label) > was - 0.01


def test_passes_are_the_same_every_time(propagated, model, volume, truth):
    _, before = propagated
    again = imos.Session(model, volume)
    again.paint(plane="axial", index=13, labels=truth[:, :, 13])
    assert np.array_equal(again.propagate(labels=[1]).labels == 1, before.labels == 1)


def test_a_volume_stored_the_other_way_round_gives_the_same_answer(propagated, model, volume, truth):
    _, before = propagated
    affine = volume.affine @ np.diag([1, 1, -1, 1])
    affine[:3, 3] = volume.affine[:3, :3] @ [0, 0, SHAPE[2] - 1]
    flipped = Image(volume.voxels[:, :, ::-1], affine, ImageKind.VOLUME, "flipped", modality="MR")
    session = imos.Session(model, flipped)
    session.paint(plane="axial", index=SHAPE[2] - 1 - 13, labels=truth[:, :, 13])
    assert np.array_equal(session.propagate(labels=[1]).labels[:, :, ::-1] == 1, before.labels == 1)


def test_a_volume_with_other_axis_order_gives_nearly_the_same_answer(propagated, model, volume, truth):
    _, before = propagated
    turned = Image(
        np.transpose(volume.voxels, (2, 1, 0)),
        volume.affine[:, [2, 1, 0, 3]],
        ImageKind.VOLUME,
        "turned",
        modality="MR",
    )
    session = imos.Session(model, turned)
    session.paint(plane="axial", index=13, labels=truth[:, :, 13].T)
    result = session.propagate(labels=[SECOND])
    assert result.axis == 0
    assert jaccard(result.labels.transpose(2, 1, 0) == SECOND, before.labels == SECOND) > 0.95


def test_a_cancelled_run_keeps_the_last_good_result(session, propagated, truth):
    session.paint(plane="axial", index=18, labels=np.where(truth[:, :, 17] == 1, 1, 0))
    painted = session.result.labels
    result = session.propagate(should_stop=iter([False, True]).__next__)
    assert result.cancelled
    assert np.array_equal(result.labels, painted)


def test_colour_frames_are_propagated_along_time(model):
    frames = np.empty((64, 64, 6, 3), np.uint8)
    frames[:] = np.random.default_rng(0).integers(60, 90, (64, 64, 1, 3))
    truth = np.zeros((64, 64, 6), bool)
    for time in range(6):
        truth[20:40, 15 + 2 * time : 37 + 2 * time, time] = True
    frames[truth] = (200, 80, 60)
    session = imos.Session(model, Image(frames, np.eye(4), ImageKind.VIDEO, "frames"))
    session.paint(plane="time", index=0, labels=truth[:, :, 0])
    assert jaccard(session.propagate().labels > 0, truth) > 0.8


def test_the_example_of_the_documentation_runs_as_written(volume, truth, tmp_path, monkeypatch, capsys):
    nib.save(nib.Nifti1Image(volume.voxels[:, :, 8:20], volume.affine), tmp_path / "ct.nii.gz")
    monkeypatch.chdir(tmp_path)
    mask, fix = truth[:, :, 12], truth[:, :, 15]

    model = imos.load()
    session = imos.Session(model, imos.read("ct.nii.gz"))
    session.paint(plane="axial", index=4, labels=mask)
    result = session.propagate(on_progress=print)
    session.paint(plane="axial", index=7, labels=fix)
    session.propagate()

    assert result.labels.shape == (72, 80, 12)
    assert result.confidence[1][4] == 1.0
    assert set(result.suggested) == {1, SECOND}
    assert capsys.readouterr().out.startswith("object 1: slice 3 (1 of 22)")
