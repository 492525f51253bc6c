from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Picture

from imos.imaging.image import Image, ImageKind
from imos.propagation.result import Result
from imos.propagation.sheet import OBJECTS, PAINTED, choose_slices, draw_sheet, lay, view_along, write_sheet
from imos.propagation.states import SliceState

RAS = np.diag([1.0, 1.0, 2.0, 1.0])


def image_of(voxels: np.ndarray[Any, Any], affine: np.ndarray[Any, Any] = RAS, **more: Any) -> Image:
    return Image(voxels, affine, more.pop("kind", ImageKind.VOLUME), "scan", **more)


def result_of(labels: np.ndarray[Any, Any], axis: int, painted: int) -> Result:
    states, confidence = {}, {}
    for label in (int(value) for value in np.unique(labels) if value):
        used = np.flatnonzero((labels == label).any(axis=tuple(other for other in range(3) if other != axis)))
        states[label] = {int(index): SliceState.PROPAGATED for index in used} | {painted: SliceState.PROMPTED}
        confidence[label] = {int(index): 0.8 for index in used} | {painted: 1.0}
    axes = dict.fromkeys(states, axis)
    return Result(labels, confidence, states, dict.fromkeys(states, None), axes)


@pytest.fixture
def ball() -> tuple[Image, np.ndarray[Any, Any]]:
    i, j, k = np.mgrid[:40, :36, :20]
    inside = (i - 20) ** 2 + (j - 18) ** 2 + (2 * (k - 10)) ** 2 < 100
    voxels = (inside * 400 + np.random.default_rng(0).normal(0, 20, inside.shape)).astype(np.float32)
    return image_of(voxels), inside.astype(np.uint8)


class TestRadiologicalView:
    # One voxel is bright in a volume of one octant each: where does it come to lie?
    @pytest.mark.parametrize("flip", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, 1)])
    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2), (0, 2, 1)])
    @pytest.mark.parametrize(
        ("plane_world", "across_world", "down_world"), [(2, 0, 1), (1, 0, 2), (0, 1, 2)], ids=["ax", "cor", "sag"]
    )
    def test_right_anterior_superior_is_top_left(
        self, order: tuple[int, ...], flip: tuple[int, ...], plane_world: int, across_world: int, down_world: int
    ) -> None:
        # order[a]: patient axis along which array axis a runs
        affine = np.eye(4)
        affine[:3, :3] = 0
        for axis, (world, sign) in enumerate(zip(order, flip, strict=True)):
            affine[world, axis] = sign * (axis + 1)
        voxels = np.zeros((3, 4, 5), np.uint8)
        most = tuple(size - 1 if sign > 0 else 0 for size, sign in zip(voxels.shape, flip, strict=True))
        voxels[most] = 255  # the voxel furthest to the right, front and head
        axis = order.index(plane_world)
        view = view_along(image_of(voxels, affine), axis)
        shown = lay(np.take(voxels, most[axis], axis=axis), view)
        assert shown[0, 0] == 255
        assert order[view.across] == across_world
        assert order[view.down] == down_world
        assert view.pixel == (view.down + 1, view.across + 1)
        assert view.edges == (*("RL", "AP", "SI")[across_world], *("RL", "AP", "SI")[down_world])

    def test_frames_are_shown_as_they_are(self) -> None:
        frames = np.random.default_rng(0).integers(0, 255, (6, 8, 4, 3), np.uint8)
        view = view_along(image_of(frames, np.eye(4), kind=ImageKind.VIDEO), 2)
        assert np.array_equal(lay(frames[:, :, 1], view), frames[:, :, 1])
        assert "".join(view.edges).strip() == ""


class TestChoiceOfSlices:
    @given(
        first=st.integers(0, 50),
        length=st.integers(1, 400),
        most=st.integers(1, 24),
        seed=st.integers(0, 1000),
        count=st.integers(0, 30),
    )
    def test_it_has_the_wanted_ones_and_never_more_than_allowed(
        self, first: int, length: int, most: int, seed: int, count: int
    ) -> None:
        last = first + length - 1
        wanted = np.random.default_rng(seed).integers(first, last + 1, count).tolist()
        chosen = choose_slices(first, last, wanted, most)
        assert chosen == sorted(set(chosen))
        assert len(chosen) <= most
        assert set(list(dict.fromkeys(wanted))[:most]) <= set(chosen)
        assert all(first <= index <= last for index in chosen)

    def test_a_short_range_is_shown_whole(self) -> None:
        assert choose_slices(3, 9, [5], 24) == [3, 4, 5, 6, 7, 8, 9]

    def test_a_long_range_is_shown_evenly(self) -> None:
        chosen = choose_slices(0, 230, [], 24)
        assert chosen == list(range(0, 231, 10))


def has_colour(sheet: np.ndarray[Any, Any], colour: tuple[int, int, int]) -> bool:
    return bool((np.abs(sheet.astype(int) - colour).max(axis=2) <= 3).any())


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_outlines_and_painted_frames_are_there_along_every_axis(
    ball: tuple[Image, np.ndarray[Any, Any]], axis: int
) -> None:
    image, labels = ball
    sheet = draw_sheet(image, result_of(labels, axis, 10))
    assert sheet.shape[1] == 1680
    assert sheet.dtype == np.uint8
    assert has_colour(sheet, OBJECTS[0])
    assert has_colour(sheet, PAINTED)


def test_an_object_true_to_scale_is_round(ball: tuple[Image, np.ndarray[Any, Any]]) -> None:
    # 2 mm slices: a ball in mm must be a disk in the plane that shows the spacing.
    image, labels = ball
    middle = np.where(np.arange(40)[:, None, None] == 20, labels, 0).astype(np.uint8)
    sheet = draw_sheet(image, result_of(middle, 0, 20), most=1)
    tile = sheet[130:, 30:490]
    inside = (np.abs(tile.astype(int) - OBJECTS[0]).max(axis=2) <= 40).nonzero()
    height, width = (int(np.ptp(where)) + 1 for where in inside)
    assert height == pytest.approx(width, rel=0.08)


def test_colour_frames_and_their_time_planes(ball: tuple[Image, np.ndarray[Any, Any]]) -> None:
    _, labels = ball
    frames = np.random.default_rng(0).integers(0, 80, (40, 36, 20, 3), np.uint8)
    image = image_of(frames, np.eye(4), kind=ImageKind.VIDEO, frame_names=tuple(f"{i:03}" for i in range(20)))
    assert has_colour(draw_sheet(image, result_of(labels, 2, 10)), OBJECTS[0])


def test_two_slices_make_a_sheet_without_other_planes(ball: tuple[Image, np.ndarray[Any, Any]]) -> None:
    image, labels = ball
    thin = image_of(image.voxels[:, :, 9:11])
    assert has_colour(draw_sheet(thin, result_of(labels[:, :, 9:11], 2, 0)), PAINTED)


def test_twenty_objects_have_a_legend_of_several_rows(ball: tuple[Image, np.ndarray[Any, Any]]) -> None:
    image, labels = ball
    many = np.where(labels, 1 + np.arange(40)[:, None, None] % 20, 0).astype(np.uint8)
    assert draw_sheet(image, result_of(many, 2, 10)).shape[1] == 1680


def test_written_as_png(ball: tuple[Image, np.ndarray[Any, Any]], tmp_path: Any) -> None:
    image, labels = ball
    sheet = draw_sheet(image, result_of(labels, 2, 10))
    write_sheet(tmp_path / "sheet.png", sheet)
    with Picture.open(tmp_path / "sheet.png") as picture:
        assert np.array_equal(np.asarray(picture), sheet)
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
