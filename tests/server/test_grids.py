"""View grids and label maps on the wire, for any order and direction of axes."""

from __future__ import annotations

import contextlib
import gzip
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from imos.errors import UserError
from imos.imaging import Image, ImageKind
from imos.server.grids import Grid, View
from imos.server.label_files import decode_nrrd, encode_nrrd
from imos.server.snapshots import Snapshot, Timeline, Voxels
from imos.server.workspace_files import DamagedFileError, Record, read_record, write_record

SHAPE = (4, 5, 6)
OBLIQUE = np.array([[0.9, -0.3, 0.1, 12.5], [0.3, 0.9, 0.0, -7.25], [-0.1, 0.0, 2.5, 3.0], [0, 0, 0, 1]])
orders = st.permutations([0, 1, 2])
flips = st.tuples(st.booleans(), st.booleans(), st.booleans())


def image(affine=OBLIQUE):
    return Image(voxels=np.arange(120, dtype=np.int16).reshape(SHAPE), affine=affine, kind=ImageKind.VOLUME, name="x")


def turned_view(order, flipped) -> View:
    """A view of the image's voxels in another order."""
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    for axis in range(3):
        size = SHAPE[order[axis]]
        matrix[order[axis], axis] = -1 if flipped[axis] else 1
        matrix[order[axis], 3] = size - 1 if flipped[axis] else 0
    return View(Grid(tuple(SHAPE[axis] for axis in order), OBLIQUE @ matrix), image())


@settings(deadline=None)  # the machine may be busy
@given(orders, flips, arrays(np.uint8, SHAPE, elements=st.integers(0, 3)))
def test_label_maps_go_there_and_back(order, flipped, labels):
    view = turned_view(order, flipped)
    seen = view.from_image(labels)

    assert seen.shape == view.grid.size
    assert np.array_equal(view.to_image(seen), labels)


@settings(deadline=None)  # the machine may be busy
@given(orders, flips, st.data())
def test_voxels_stay_where_they_are_in_the_patient(order, flipped, data):
    view = turned_view(order, flipped)
    voxel = data.draw(st.tuples(*(st.integers(0, size - 1) for size in view.grid.size)))
    labels = np.zeros(view.grid.size, np.uint8)
    labels[voxel] = 1
    (there,) = np.argwhere(view.to_image(labels))

    assert np.allclose(view.grid.affine @ [*voxel, 1], OBLIQUE @ [*there, 1])


@settings(deadline=None)  # the machine may be busy
@given(orders, flips, st.integers(0, 2), st.data())
def test_slices_are_those_of_the_turned_volume(order, flipped, axis, data):
    view = turned_view(order, flipped)
    labels = np.arange(120).reshape(SHAPE)
    index = data.draw(st.integers(0, SHAPE[axis] - 1))
    seen = np.moveaxis(view.from_image(labels), view.axis_from_image(axis), 0)[view.index_from_image(axis, index)]

    assert np.array_equal(seen, view.plane_from_image(axis, np.moveaxis(labels, axis, 0)[index]))
    assert view.axis_to_image(view.axis_from_image(axis)) == axis
    assert view.index_to_image(view.axis_from_image(axis), view.index_from_image(axis, index)) == index


@pytest.mark.parametrize("change", [np.diag([2, 2, 1, 1]), np.eye(4) + np.eye(4, k=3) * 0.4])
def test_grid_of_other_voxels_is_not_taken_for_a_turn(change):
    assert View(Grid(SHAPE, OBLIQUE @ change), image()).turn is None
    assert View(Grid((4, 5, 7), OBLIQUE), image()).turn is None


@settings(deadline=None)  # the machine may be busy
@given(arrays(np.uint16, st.tuples(*[st.integers(1, 5)] * 3)), st.sampled_from([np.uint8, np.uint16]))
def test_nrrd_comes_back(labels, kind):
    labels = labels.astype(kind)
    read, grid = decode_nrrd(encode_nrrd(labels, Grid(labels.shape, OBLIQUE)))

    assert np.array_equal(read, labels)
    assert np.allclose(grid.affine, OBLIQUE, atol=1e-12)


@settings(deadline=None)  # the machine may be busy
@given(st.binary(max_size=300), st.integers(0, 250))
def test_damaged_nrrd_is_refused(noise, place):
    whole = encode_nrrd(np.ones((3, 3, 3), np.uint8), Grid((3, 3, 3), OBLIQUE))
    damaged = whole[:place] + noise + whole[place + len(noise) :]
    with contextlib.suppress(UserError):  # nothing else may come out of it
        assert decode_nrrd(damaged)[0].ndim == 3


def test_unpacking_stops_at_the_promised_size():
    header = encode_nrrd(np.ones((3, 3, 3), np.uint8), Grid((3, 3, 3), OBLIQUE)).partition(b"\n\n")[0]
    bomb = header + b"\n\n" + gzip.compress(bytes(100_000_000), 9)
    tracemalloc.start()
    with pytest.raises(UserError, match="instead of 27"):
        decode_nrrd(bomb)
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 5_000_000


@settings(deadline=None)  # the machine may be busy
@given(arrays(np.uint16, SHAPE, elements=st.sampled_from([0, 0, 0, 1, 700])))
def test_kept_voxels_come_back(labels):
    kept = Voxels.of(labels)

    assert np.array_equal(np.zeros(SHAPE) if kept is None else kept.on(SHAPE), labels)


def test_workspace_file_comes_back_whole_or_not_at_all(tmp_path):
    labels = np.zeros(SHAPE, np.uint16)
    labels[1:3, 2, 4] = 9
    timeline = Timeline().do("Paint", Snapshot(brought=Voxels.of(labels))).do("Reset", Snapshot()).undo()
    record = Record("image", "client", 3, None, grid=Grid(SHAPE, OBLIQUE), shape=SHAPE, timeline=timeline)
    path = tmp_path / "one.imos"
    write_record(path, record)
    read = read_record(path)

    assert read.timeline == timeline
    assert np.array_equal(read.grid.affine, OBLIQUE)
    content = path.read_bytes()
    for damage in (content[:-1], content[:40], b"", content.replace(b"client", b"Client")):
        path.write_bytes(damage)
        with pytest.raises(DamagedFileError):
            read_record(path)


def test_history_is_bounded_and_a_new_step_forgets_what_was_undone():
    timeline = Timeline()
    for number in range(60):
        timeline = timeline.do(f"step {number}", Snapshot(finished=frozenset([number])))

    assert len(timeline.undoable) == 50
    assert timeline.undo().undo().redoable == ["step 58", "step 59"]
    assert timeline.undo().do("other", Snapshot()).redoable == []
