from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from imos.errors import UserError
from imos.imaging import Image, ImageKind, label_map_on_grid, read_label_map, write_label_map
from imos.imaging.geometry import is_same_grid

shapes = st.tuples(*[st.integers(2, 7)] * 3)


@st.composite
def affines(draw: st.DrawFn, *, oblique: bool = True) -> NDArray[np.float64]:
    """Any axis order, flips, spacing, origin and, if asked for, rotation."""
    order = draw(st.permutations(range(3)))
    signs = draw(st.lists(st.sampled_from([-1.0, 1.0]), min_size=3, max_size=3))
    spacing = draw(st.lists(st.floats(0.3, 6.0), min_size=3, max_size=3))
    origin = draw(st.lists(st.floats(-300.0, 300.0), min_size=3, max_size=3))
    angles = draw(st.lists(st.floats(-40.0, 40.0), min_size=3, max_size=3)) if oblique else [0.0] * 3
    affine = np.eye(4)
    turned = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.eye(3)[:, order]
    affine[:3, :3] = turned * np.array(signs) * np.array(spacing)
    affine[:3, 3] = origin
    return affine


@st.composite
def label_maps(draw: st.DrawFn, shape: tuple[int, int, int]) -> NDArray[np.uint16]:
    labels = draw(arrays(np.uint16, shape, elements=st.sampled_from([0, 0, 0, 1, 7, 255, 256, 65535])))
    labels[tuple(size // 2 for size in shape)] = draw(st.sampled_from([1, 255, 65535]))
    return labels


def volume(shape: tuple[int, int, int], affine: NDArray[np.float64]) -> Image:
    return Image(np.zeros(shape, np.int16), affine, ImageKind.VOLUME, "image")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), shape=shapes, affine=affines())
@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_written_label_map_is_read_voxel_for_voxel(
    tmp_path: Path, suffix: str, data: st.DataObject, shape: tuple[int, int, int], affine: NDArray[np.float64]
) -> None:
    labels = data.draw(label_maps(shape))
    image = volume(shape, affine)
    path = tmp_path / f"labels{suffix}"
    write_label_map(path, labels, image)
    np.testing.assert_array_equal(read_label_map(path, image), labels)


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    shape=shapes,
    affine=affines(),
    order=st.permutations(range(3)),
    flips=st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_label_map_in_another_axis_order_and_flipped_lands_on_the_same_voxels(
    data: st.DataObject,
    shape: tuple[int, int, int],
    affine: NDArray[np.float64],
    order: list[int],
    flips: list[bool],
) -> None:
    labels = data.draw(label_maps(shape))
    moved = labels.transpose(order)
    index = np.eye(4)  # index of `moved` to index of `labels`
    index[:3, :3] = np.eye(3)[:, order]
    moved_affine = affine @ index
    for axis in range(3):
        if flips[axis]:
            moved_affine[:3, 3] += moved_affine[:3, axis] * (moved.shape[axis] - 1)
            moved_affine[:3, axis] *= -1
            moved = np.flip(moved, axis)
    result = label_map_on_grid(moved, moved_affine, volume(shape, affine))
    np.testing.assert_array_equal(result, labels)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), shape=shapes, affine=affines(), noise=st.integers(0, 1000))
def test_rounding_of_the_affine_loses_no_voxel(
    data: st.DataObject, shape: tuple[int, int, int], affine: NDArray[np.float64], noise: int
) -> None:
    labels = data.draw(label_maps(shape))
    rounded = affine.astype(np.float32).astype(np.float64)
    rounded[:3] += np.random.default_rng(noise).uniform(-1e-5, 1e-5, (3, 4))
    np.testing.assert_array_equal(label_map_on_grid(labels, rounded, volume(shape, affine)), labels)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), shape=shapes, affine=affines(), shift=st.tuples(*[st.integers(-1, 1)] * 3))
def test_label_map_of_a_part_of_the_image_lands_in_its_place(
    data: st.DataObject, shape: tuple[int, int, int], affine: NDArray[np.float64], shift: tuple[int, int, int]
) -> None:
    labels = data.draw(label_maps(shape))
    moved_affine = affine.copy()
    moved_affine[:3, 3] += affine[:3, :3] @ np.array(shift)
    expected = np.zeros(shape, np.uint16)
    for index in np.argwhere(labels):
        target = index + shift
        if ((target >= 0) & (target < shape)).all():
            expected[tuple(target)] = labels[tuple(index)]
    image = volume(shape, affine)
    if expected.any():
        np.testing.assert_array_equal(label_map_on_grid(labels, moved_affine, image), expected)
    else:
        with pytest.raises(UserError, match="outside"):
            label_map_on_grid(labels, moved_affine, image)


def test_resampling_takes_the_nearest_label() -> None:
    image = volume((20, 16, 12), np.diag([1.0, 1.0, 1.0, 1.0]))
    labels = np.zeros((10, 8, 6), np.uint8)
    labels[2:5, 3:6, 1:4] = 4
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = 0.5  # each label voxel covers two image voxels along each axis
    expected = np.repeat(np.repeat(np.repeat(labels, 2, 0), 2, 1), 2, 2)
    np.testing.assert_array_equal(label_map_on_grid(labels, affine, image), expected)


def test_resampling_in_slabs_equals_resampling_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    image = volume((20, 16, 12), np.diag([0.9, 1.1, 2.0, 1.0]))
    labels = np.random.default_rng(0).integers(0, 3, (10, 8, 9)).astype(np.uint8)
    affine = np.diag([1.7, 2.1, 2.9, 1.0])
    at_once = label_map_on_grid(labels, affine, image)
    monkeypatch.setattr("imos.imaging.geometry._SLAB_VOXELS", 1)
    np.testing.assert_array_equal(label_map_on_grid(labels, affine, image), at_once)


@settings(max_examples=30, deadline=None)
@given(index=st.integers(0, 49))
def test_painted_slice_thinner_than_the_images_slices_is_not_lost(index: int) -> None:
    image = volume((20, 20, 10), np.diag([1.0, 1.0, 5.0, 1.0]))
    labels = np.zeros((20, 20, 50), np.uint8)
    labels[5:9, 6:12, index] = 3
    affine = np.eye(4)
    affine[2, 3] = -2.0
    result = label_map_on_grid(labels, affine, image)
    expected = np.zeros(image.shape, np.uint16)
    expected[5:9, 6:12, index // 5] = 3
    np.testing.assert_array_equal(result, expected)


def test_thick_object_on_a_finer_grid_does_not_grow() -> None:
    image = volume((20, 20, 10), np.diag([1.0, 1.0, 5.0, 1.0]))
    labels = np.zeros((20, 20, 50), np.uint8)
    labels[5:9, 6:12, 8:33] = 3  # centres at 6…30 mm: image slices at 10, 15 … 30 mm
    affine = np.eye(4)
    affine[2, 3] = -2.0
    result = label_map_on_grid(labels, affine, image)
    assert np.flatnonzero(result.any(axis=(0, 1))).tolist() == [2, 3, 4, 5, 6]


def test_label_map_elsewhere_is_refused_with_its_distance() -> None:
    image = volume((10, 10, 10), np.diag([1.0, 1.0, 2.0, 1.0]))
    labels = np.zeros((10, 10, 10), np.uint8)
    labels[4, 4, 3] = 1
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[2, 3] = 120.0
    with pytest.raises(UserError, match="nearest painted voxel is 107 mm away"):  # 120 + 6 - 19
        label_map_on_grid(labels, affine, image)


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (-3, np.int16, "negative label -3"),
        (70000, np.int32, "label 70000"),
        (1.5, np.float32, "value 1.5"),
        (np.nan, np.float32, "value nan"),
        (0, np.uint8, "no painted voxel"),
        (1, np.complex64, "complex64"),
    ],
)
def test_values_that_are_no_labels_are_refused(
    make_image: Callable[..., Image], value: float, dtype: type, message: str
) -> None:
    image = make_image()
    labels = np.zeros(image.shape, dtype)
    labels[1, 2, 3] = value
    with pytest.raises(UserError, match=message):
        label_map_on_grid(labels, image.affine, image)


def test_whole_numbers_in_float_are_labels(make_image: Callable[..., Image]) -> None:
    image = make_image()
    labels = np.zeros(image.shape, np.float64)
    labels[1, 2, 3] = 7.0000001
    assert label_map_on_grid(labels, image.affine, image)[1, 2, 3] == 7


def test_flat_affine_is_refused(make_image: Callable[..., Image]) -> None:
    image = make_image()
    with pytest.raises(UserError, match="orientation and spacing"):
        label_map_on_grid(np.ones(image.shape, np.uint8), np.diag([1.0, 1.0, 0.0, 1.0]), image)


def test_grid_shifted_by_a_tenth_of_a_voxel_is_another_grid() -> None:
    shifted = np.eye(4)
    shifted[0, 3] = 0.1
    assert not is_same_grid((5, 5, 5), np.eye(4), (5, 5, 5), shifted)
