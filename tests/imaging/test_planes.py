from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from imos.errors import UserError
from imos.imaging import Image, ImageKind, Plane, plane_axis, thin_axis

VIDEO = Image(np.zeros((4, 5, 6), np.uint8), np.eye(4), ImageKind.VIDEO, "clip")


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("tilt", [0.0, 30.0])
def test_anatomical_plane_is_found_in_any_axis_order(order: tuple[int, int, int], tilt: float) -> None:
    affine = np.eye(4)
    turned = Rotation.from_euler("xz", [tilt, tilt], degrees=True).as_matrix()
    affine[:3, :3] = turned @ (np.eye(3)[:, order] * [1.0, -2.0, 5.0])  # array axis n runs along world axis order[n]
    image = Image(np.zeros((4, 5, 6)), affine, ImageKind.VOLUME, "ct")
    assert [plane_axis(image, plane) for plane in ("sagittal", "coronal", "axial")] == [
        order.index(0),
        order.index(1),
        order.index(2),
    ]


def test_auto_without_prompts_is_the_plane_of_acquisition() -> None:
    image = Image(np.zeros((4, 5, 6)), np.diag([1.0, 4.0, 1.0, 1.0]), ImageKind.VOLUME, "mr")
    assert plane_axis(image, Plane.AUTO) == 1


def test_video_walks_along_time() -> None:
    assert plane_axis(VIDEO, "time") == plane_axis(VIDEO, "auto") == 2


@pytest.mark.parametrize(
    ("kind", "plane", "message"),
    [("video", "axial", "video"), ("volume", "time", "no time"), ("volume", "diagonal", "no plane 'diagonal'")],
)
def test_plane_that_the_image_lacks_is_refused(kind: str, plane: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        plane_axis(Image(VIDEO.voxels, np.eye(4), ImageKind(kind), "x"), plane)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_painted_slice_is_thin_across_its_plane(axis: int) -> None:
    labels = np.zeros((30, 31, 32), np.uint8)
    slab = np.moveaxis(labels, axis, 0)
    slab[7, 5:20, 6:18] = 2
    assert thin_axis(labels) == axis


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_many_painted_slices_of_a_small_object_are_still_thin_across_their_plane(axis: int) -> None:
    labels = np.zeros((30, 31, 32), np.uint8)
    slab = np.moveaxis(labels, axis, 0)
    slab[2:29:2, 10:14, 10:13] = 1  # 14 slices of an object 4 by 3 pixels
    assert thin_axis(labels) == axis


def test_line_in_a_slice_goes_to_the_axis_with_fewest_slices() -> None:
    labels = np.zeros((20, 20, 20), np.uint8)
    for step in range(10):
        labels[5 + step, 5 + step, 9] = 1
    assert thin_axis(labels) == 2


def test_single_voxel_goes_to_the_largest_spacing_and_then_to_the_last_axis() -> None:
    labels = np.zeros((5, 5, 5), np.uint8)
    labels[2, 2, 2] = 1
    assert thin_axis(labels, (1.0, 3.0, 1.0)) == 1
    assert thin_axis(labels) == 2


def test_nothing_painted_is_refused() -> None:
    with pytest.raises(UserError, match="No voxel is painted"):
        thin_axis(np.zeros((3, 3, 3), np.uint8))
