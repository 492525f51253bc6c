"""Training stacks show what a session would see: the same window, along the axis that was painted."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

import imos
from imos.imaging import Image, ImageKind, apply_window
from imos.learning import stacks
from imos.learning.stacks import stacks_of, window_of
from imos.learning.volumes import LabelledVolume
from imos.propagation.slices import SliceSource

AXES = (0, 1, 2)


def image_of(kind: str) -> tuple[Image, NDArray[np.uint16]]:
    """A CT with a lung and a vessel, or an MR; and where the two objects are."""
    random = np.random.default_rng(3)
    k, j, i = np.mgrid[:40, :44, :48]
    labels = np.zeros(k.shape, np.uint16)
    labels[(k - 20) ** 2 + (j - 14) ** 2 + (i - 16) ** 2 < 90] = 3
    labels[(k - 20) ** 2 + (j - 30) ** 2 + (i - 34) ** 2 < 60] = 700
    values = {"CT": (40, -850, 320), "MR": (200, 500, 900)}[kind]
    voxels = np.select([labels == 3, labels == 700], [values[1], values[2]], values[0])
    voxels = (voxels + random.normal(0, 8, k.shape)).astype(np.int16)
    return Image(voxels, np.eye(4), ImageKind.VOLUME, kind, modality=kind), labels


@pytest.mark.parametrize("kind", ["CT", "MR"])
@pytest.mark.parametrize("axis", AXES)
def test_window_is_the_one_that_a_session_carries_the_object_in(kind: str, axis: int) -> None:
    image, labels = image_of(kind)
    for value in (3, 700):
        mask = np.moveaxis(labels == value, axis, 0)
        index = int(mask.sum(axis=(1, 2)).argmax())
        seen: list[NDArray[np.uint8]] = []

        def tracker(
            _model: object,
            slices: SliceSource,
            *_: object,
            seen: list[NDArray[np.uint8]] = seen,
            index: int = index,
        ) -> Iterator[object]:
            seen.append(slices[index])
            return iter(())

        session = imos.Session(None, image, tracker=tracker)
        painted = np.zeros_like(labels)
        np.moveaxis(painted, axis, 0)[index][mask[index]] = value
        session.paint_volume(painted, plane=["sagittal", "coronal", "axial"][axis])
        session.propagate()

        window = window_of(image, mask[index], axis, index)
        assert np.array_equal(seen[0], apply_window(np.moveaxis(image.voxels, axis, 0)[index], window))


def test_objects_of_one_window_share_a_stack_and_others_do_not() -> None:
    image, labels = image_of("CT")
    made = stacks_of(LabelledVolume("ct", image, labels))
    assert len(made) == 2  # a lung and a vessel are looked at differently
    image, labels = image_of("MR")
    two = stacks_of(LabelledVolume("mr", image, labels, {3: 2, 700: 2}))
    assert sum(len(np.unique(stack.labels)) - 1 for stack in two) == 2


def test_stack_runs_along_the_axis_that_was_painted() -> None:
    image, labels = image_of("MR")
    for axis in AXES:
        (stack,) = stacks_of(LabelledVolume("mr", image, np.where(labels == 3, 3, 0), {3: axis}))
        first = np.flatnonzero((labels == 3).any(axis=tuple(other for other in AXES if other != axis)))[0]
        shown = np.flatnonzero((stack.labels == 1).any(axis=(1, 2)))
        assert shown[0] == min(first, stacks.AROUND)
        assert (stack.labels == 1).sum() == (labels == 3).sum()


def test_large_volumes_are_cut_and_made_coarser(monkeypatch: pytest.MonkeyPatch) -> None:
    image, labels = image_of("MR")
    volume = LabelledVolume("mr", image, labels)
    monkeypatch.setattr(stacks, "MOST_VOXELS", 12_000)
    made = stacks_of(volume)
    assert len(made) == 2
    assert all(stack.slices.size <= 12_000 for stack in made)
    assert all(stack.objects().size == 1 for stack in made)


def test_video_and_colours_are_kept() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (9, 40, 50, 3), dtype=np.uint8)
    labels = np.zeros((9, 40, 50), np.uint8)
    labels[2:8, 10:25, 10:30] = 5
    (stack,) = stacks_of(LabelledVolume.of_slices("clip", frames, labels, is_video=True))
    assert stack.is_video
    assert stack.slices.shape[-1] == 3
    assert np.array_equal(stack.slices, frames[:, : stack.slices.shape[1], : stack.slices.shape[2]])


def test_specks_give_no_stack() -> None:
    labels = np.zeros((9, 40, 50), np.uint8)
    labels[2:8, 10:12, 10:13] = 5
    assert stacks_of(LabelledVolume.of_slices("specks", np.zeros((9, 40, 50), np.uint8), labels)) == []
