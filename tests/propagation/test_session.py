"""What a session promises, on a tracker whose answers are known (conftest.py)."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import imos
from imos import SliceState, UserError
from imos.imaging import Image, ImageKind


def only(labels, *wanted):
    return np.where(np.isin(labels, wanted), labels, 0)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


# A painted slice


def test_one_painted_slice_gives_the_volume(session, truth):
    session.paint(plane="axial", index=11, labels=truth[:, :, 11])
    result = session.propagate()
    assert dice(result.labels == 1, truth == 1) > 0.95
    assert dice(result.labels == 2, truth == 2) > 0.95


def test_painted_slice_comes_back_voxel_for_voxel(session, truth):
    painted = np.zeros(truth.shape[:2], np.uint8)
    painted[truth[:, :, 11] == 1] = 1
    painted[2, 40] = painted[39, 0] = 1  # also where no tracker would see the object
    session.paint(plane="axial", index=11, labels=painted)
    result = session.propagate()
    assert np.array_equal(result.labels[:, :, 11], painted)


def test_propagation_stops_at_the_objects_end(session, truth):
    session.paint(plane="axial", index=11, labels=only(truth[:, :, 11], 2))
    result = session.propagate()
    assert not result.labels[:, :, :4].any()
    assert not result.labels[:, :, 20:].any()
    assert result.states[2][0] is result.states[2][23] is SliceState.ABSENT


@pytest.mark.parametrize("index", [0, 23])
def test_painting_the_first_or_last_slice_works(index, truth, follower):
    image = Image(np.repeat(truth[:, :, 11:12] * np.uint8(100), 24, 2), np.eye(4), ImageKind.VOLUME, "tube")
    session = imos.Session(None, image, tracker=follower)
    session.paint(plane="axial", index=index, labels=only(truth[:, :, 11], 2))
    assert np.array_equal(session.propagate().labels, np.repeat(only(truth[:, :, 11:12], 2), 24, 2))


def test_a_volume_of_one_slice_returns_the_painted_slice(truth, follower):
    image = Image(np.ones((40, 48, 1), np.int16), np.eye(4), ImageKind.VOLUME, "one slice")
    session = imos.Session(None, image, tracker=follower)
    session.paint(plane="axial", index=0, labels=truth[:, :, 11])
    result = session.propagate()
    assert np.array_equal(result.labels[:, :, 0], truth[:, :, 11])
    assert result.suggested == {1: None, 2: None}


def test_label_values_are_kept_up_to_65535(session, truth):
    session.paint(plane="axial", index=11, labels=np.where(truth[:, :, 11] == 1, 65535, 0))
    result = session.propagate()
    assert result.labels.dtype == np.uint16
    assert np.unique(result.labels).tolist() == [0, 65535]


def test_small_label_values_are_stored_in_eight_bits(session, truth):
    session.paint(plane="axial", index=11, labels=truth[:, :, 11].astype(np.int64))
    assert session.propagate().labels.dtype == np.uint8


def test_floats_and_booleans_that_are_label_values_are_taken(session, truth):
    session.paint(plane="axial", index=11, labels=(truth[:, :, 11] * 2.0))
    session.paint(plane="axial", index=9, labels=truth[:, :, 9] == 1)
    assert session.labels == [1, 2, 4]


# Several prompts


def test_objects_may_be_painted_on_different_slices_and_in_different_planes(session, truth):
    session.paint(plane="axial", index=8, labels=only(truth[:, :, 8], 1))
    session.paint(plane="coronal", index=35, labels=only(truth[:, 35, :], 2))
    result = session.propagate()
    assert result.axes == {1: 2, 2: 1}
    assert np.array_equal(result.labels[:, :, 8] == 1, truth[:, :, 8] == 1)
    assert np.array_equal(result.labels[:, 35, :] == 2, truth[:, 35, :] == 2)
    assert dice(result.labels == 1, truth == 1) > 0.95
    assert dice(result.labels == 2, truth == 2) > 0.95


def test_a_painted_slice_is_silent_about_other_objects(session, truth):
    session.paint(plane="axial", index=11, labels=only(truth[:, :, 11], 1))
    session.paint(plane="axial", index=9, labels=only(truth[:, :, 9], 2))
    result = session.propagate()
    assert (result.labels[:, :, 11] == 2).any()
    assert result.states[2][11] is SliceState.PROPAGATED


def test_every_painted_slice_of_a_label_map_is_a_prompt(session, truth):
    painted = np.zeros_like(truth)
    painted[:, :, [6, 15]] = only(truth[:, :, [6, 15]], 1)
    painted[:, :, 11] = only(truth[:, :, 11], 2)
    session.paint_volume(painted)
    result = session.propagate()
    assert {
        label: [i for i, s in states.items() if s is SliceState.PROMPTED] for label, states in result.states.items()
    } == {
        1: [6, 15],
        2: [11],
    }
    assert np.array_equal(result.labels[painted > 0], painted[painted > 0])
    assert session.undoable == ("propagate", "paint 3 slices")


def test_the_plane_of_a_label_map_is_found_for_each_object(session, truth):
    painted = np.zeros_like(truth)
    painted[:, :, 11] = only(truth[:, :, 11], 1)
    painted[28] = only(truth[28], 2)
    session.paint_volume(painted)
    assert session.propagate().axes == {1: 2, 2: 0}


def test_passes_between_two_prompts_come_from_both_and_stop_before_the_other(session, follower, truth):
    session.paint_volume(np.where(np.isin(np.arange(24), [6, 15]), only(truth, 1), 0))
    session.propagate()
    assert sorted(follower.calls) == [(6, 0), (6, 14), (15, 7), (15, 23)]


def test_no_pass_sees_an_absence_or_what_lies_behind(session, follower, truth):
    session.paint(plane="axial", index=11, labels=only(truth[:, :, 11], 1))
    session.absent(1, "axial", 15)
    result = session.propagate()
    assert sorted(follower.calls) == [(11, 0), (11, 14)]
    assert not result.labels[:, :, 15:].any()
    assert {result.states[1][index] for index in range(15, 24)} == {SliceState.ABSENT}
    assert (result.labels[:, :, 14] == 1).any()


def test_no_pass_leaves_the_slice_limits(image, follower, truth):
    session = imos.Session(None, image, first=9, last=14, tracker=follower)
    session.paint(plane="axial", index=11, labels=truth[:, :, 11])
    result = session.propagate()
    assert np.flatnonzero(result.labels.any((0, 1))).tolist() == list(range(9, 15))
    assert result.states[1][8] is result.states[1][15] is SliceState.ABSENT


def test_limits_set_later_count_at_once(session, truth):
    session.paint(plane="axial", index=11, labels=truth[:, :, 11])
    session.propagate()
    session.limit(first=9)
    assert not session.result.labels[:, :, :9].any()
    session.undo()
    assert session.result.labels[:, :, :9].any()


@pytest.mark.parametrize(("direction", "first", "last"), [("forward", 11, 20), ("backward", 3, 11)])
def test_a_direction_leaves_the_other_side_alone(session, truth, direction, first, last):
    session.paint(plane="axial", index=11, labels=only(truth[:, :, 11], 1))
    result = session.propagate(direction=direction)
    found = np.flatnonzero(result.labels.any((0, 1)))
    assert found[0] >= first
    assert found[-1] <= last
    assert len(found) > 7


def test_a_direction_leaves_the_other_side_alone_even_if_it_was_computed_before(session, truth):
    session.paint(plane="axial", index=11, labels=only(truth[:, :, 11], 1))
    session.propagate(direction="forward")
    session.undo()
    result = session.propagate(direction="backward")
    assert np.flatnonzero((result.labels == 1).any(axis=(0, 1))).tolist() == list(range(3, 12))


def test_forward_then_backward_equals_both(image, follower, truth):
    sessions = [imos.Session(None, image, tracker=follower) for _ in range(2)]
    for session in sessions:
        session.paint(plane="axial", index=11, labels=truth[:, :, 11])
    sessions[0].propagate(direction="forward")
    assert np.array_equal(sessions[0].propagate(direction="backward").labels, sessions[1].propagate().labels)


def test_objects_that_are_not_asked_for_keep_what_they_had(session, truth):
    session.paint(plane="axial", index=11, labels=truth[:, :, 11])
    before = session.propagate(labels=[1])
    assert np.flatnonzero((before.labels == 2).any((0, 1))).tolist() == [11]
    after = session.propagate(labels=2)
    assert np.array_equal(before.labels == 1, after.labels == 1)
    assert dice(after.labels == 2, truth == 2) > 0.95


def test_where_objects_overlap_the_more_probable_one_wins(image, truth):
    from imos.propagation.track import Estimate

    def sure_of_small_ones(model, slices, mask, start, stop):
        step = 1 if stop > start else -1
        wide = np.zeros(mask.shape, bool)
        wide[10:30, 10:30] = True
        probability = np.where(wide, np.float32(0.9 if mask.sum() == 1 else 0.7), np.float32(0))
        for index in range(start + step, stop + step, step):
            yield Estimate(index, 0, 0, probability, 1.0, 0.8)

    session = imos.Session(None, image, tracker=sure_of_small_ones)
    painted = np.zeros((40, 48), np.uint8)
    painted[0, 0], painted[1, :5] = 7, 5
    session.paint(plane="axial", index=3, labels=painted)
    result = session.propagate()
    assert np.unique(result.labels[:, :, 4]).tolist() == [0, 7]
    assert np.array_equal(result.labels[:, :, 3], painted)


def test_painted_voxels_beat_propagated_ones(session, truth):
    session.paint(plane="axial", index=11, labels=only(truth[:, :, 11], 1))
    session.propagate()
    stolen = np.zeros((40, 48), np.uint8)
    stolen[10:14, 10:14] = 2
    session.paint(plane="axial", index=13, labels=stolen)
    result = session.propagate(labels=2)
    assert np.array_equal(result.labels[:, :, 13] == 2, stolen == 2)


# Other planes


def test_a_slice_painted_across_comes_back_voxel_for_voxel(session, truth):
    session.paint(plane="axial", index=8, labels=only(truth[:, :, 8], 1))
    session.paint(plane="axial", index=14, labels=only(truth[:, :, 14], 1))
    across = only(truth[:, 13, :], 1).copy()
    across[14:18, 10:13] = 0  # a hole, and something the tracker cannot see
    across[30:33, 10:13] = 1
    session.paint(plane="coronal", index=13, labels=across)
    result = session.propagate()
    assert result.axes[1] == 2
    assert np.array_equal(result.labels[:, 13, :] == 1, across == 1)


def test_a_slice_painted_across_corrects_its_neighbourhood(session, truth):
    session.paint(plane="axial", index=8, labels=only(truth[:, :, 8], 1))
    session.paint(plane="axial", index=14, labels=only(truth[:, :, 14], 1))
    before = session.propagate().labels
    across = only(truth[:, 13, :], 1).copy()
    across[:, 10:13] = 0
    session.paint(plane="coronal", index=13, labels=across)
    after = session.propagate().labels
    changed = np.argwhere(before != after)
    assert set(changed[:, 2]) == {10, 11, 12}
    assert {12, 13, 14} <= set(changed[:, 1]) <= set(range(8, 19))


# Corrections


@pytest.fixture
def corrected(session, truth, follower):
    """Slices 6, 11 and 16 painted and propagated, then a correction of object 1 on slice 13."""
    session.paint_volume(np.where(np.isin(np.arange(24), [6, 11, 16]), truth, 0))
    before = session.propagate()
    follower.calls.clear()
    fix = only(truth[:, :, 13], 1).copy()
    fix[:12] = 0
    session.paint(plane="axial", index=13, labels=fix)
    return before, session.propagate(), fix


def test_only_the_neighbourhood_of_a_correction_changes(corrected):
    before, after, _ = corrected
    changed = np.flatnonzero((before.labels != after.labels).any((0, 1)))
    assert 13 in changed
    assert set(changed) <= {12, 13, 14, 15}
    assert {i for i, c in after.confidence[1].items() if c != before.confidence[1].get(i)} == {12, 13, 14, 15}


def test_only_the_neighbourhood_of_a_correction_is_computed(corrected, follower):
    _, after, _ = corrected
    assert sorted(follower.calls) == [(13, 12), (13, 15)]
    assert after.computed == 3


def test_correcting_one_object_leaves_the_other_alone(corrected):
    before, after, _ = corrected
    assert np.array_equal(before.labels == 2, after.labels == 2)
    assert before.confidence[2] == after.confidence[2]


def test_a_correction_comes_back_voxel_for_voxel(corrected):
    _, after, fix = corrected
    assert np.array_equal(after.labels[:, :, 13] == 1, fix == 1)
    assert after.states[1][13] is SliceState.PROMPTED
    assert after.confidence[1][13] == 1.0


def test_painting_the_same_again_computes_nothing(session, truth, follower):
    session.paint(plane="axial", index=11, labels=truth[:, :, 11])
    before = session.propagate()
    follower.calls.clear()
    session.paint(plane="axial", index=11, labels=truth[:, :, 11])
    after = session.propagate()
    assert follower.calls == []
    assert np.array_equal(before.labels, after.labels)


def test_accepted_slices_survive_every_correction(session, truth):
    session.paint(plane="axial", index=11, labels=truth[:, :, 11])
    before = session.propagate()
    session.accept(1, [8, 14])
    wrong = np.zeros((40, 48), np.uint8)
    wrong[2:5, 2:5] = 1
    wrong[10:20, 10:16] = 2
    session.paint(plane="axial", index=11, labels=wrong)
    after = session.propagate()
    for index in (8, 14):
        assert np.array_equal(before.labels[:, :, index] == 1, after.labels[:, :, index] == 1)
        assert after.states[1][index] is SliceState.ACCEPTED
        assert after.confidence[1][index] == 1.0
    assert not np.array_equal(before.labels[:, :, 9] == 1, after.labels[:, :, 9] == 1)


def test_accepting_an_object_freezes_it_everywhere(session, truth):
    session.paint(plane="axial", index=11, labels=truth[:, :, 11])
    before = session.propagate()
    session.accept(1)
    greedy = np.full((40, 48), 2, np.uint8)
    session.paint(plane="axial", index=12, labels=np.where(truth[:, :, 12] == 1, 0, greedy))
    after = session.propagate()
    assert np.array_equal(before.labels == 1, after.labels == 1)
    assert set(after.states[1].values()) == {SliceState.ACCEPTED}
    assert after.suggested[1] is None


# Undo


def test_undo_restores_every_step_bit_for_bit(session, truth):
    results = [session.result]
    for step in (
        lambda: session.paint(plane="axial", index=11, labels=truth[:, :, 11]),
        session.propagate,
        lambda: session.accept(2, [12, 13]),
        lambda: session.paint(plane="axial", index=8, labels=only(truth[:, :, 9], 1)),
        session.propagate,
        lambda: session.absent(2, "axial", 15),
        session.propagate,
        lambda: session.limit(4, 18),
        lambda: session.remove(1, "axial", 11),
        session.propagate,
    ):
        step()
        results.append(session.result)
    names = session.undoable
    assert names[-1] == "paint slice 11"
    for expected in results[-2::-1]:
        assert session.undo()
        assert np.array_equal(session.result.labels, expected.labels)
        assert session.result.states == expected.states
        assert session.result.confidence == expected.confidence
    assert session.undo() is None
    for expected in results[1:]:
        assert session.redo()
        assert np.array_equal(session.result.labels, expected.labels)
    assert session.redo() is None
    assert session.undoable == names


def test_a_new_step_forgets_what_was_undone(session, truth):
    session.paint(plane="axial", index=11, labels=truth[:, :, 11])
    session.undo()
    session.paint(plane="axial", index=12, labels=truth[:, :, 12])
    assert session.redoable == ()


def test_propagating_after_undo_computes_nothing_again(session, truth, follower):
    session.paint(plane="axial", index=11, labels=truth[:, :, 11])
    session.propagate()
    session.undo()
    follower.calls.clear()
    assert session.propagate().computed == 0
    assert follower.calls == []


def test_removing_the_only_prompt_removes_the_object(session, truth):
    session.paint(plane="axial", index=11, labels=truth[:, :, 11])
    session.propagate()
    session.remove(1, "axial", 11)
    assert session.labels == [2]
    assert not (session.result.labels == 1).any()


# Cancel and progress


def test_cancelling_keeps_the_last_good_result(session, truth):
    session.paint(plane="axial", index=11, labels=truth[:, :, 11])
    before = session.propagate()
    session.paint(plane="axial", index=14, labels=only(truth[:, :, 13], 1))
    painted = session.result
    steps = session.undoable
    left = iter([False, False, True])
    result = session.propagate(should_stop=lambda: next(left))
    assert result.cancelled
    assert not before.cancelled
    assert np.array_equal(result.labels, painted.labels)
    assert session.undoable == steps
    assert not session.propagate().cancelled


@pytest.mark.parametrize("asked", [1, 2, 5])
def test_cancelling_takes_no_step_more(image, follower, truth, asked):
    steps, answers = [], iter([*[False] * asked, True])

    def count(*arguments):
        for step in follower(*arguments):
            steps.append(step)
            yield step

    session = imos.Session(None, image, tracker=count)
    session.paint(plane="axial", index=11, labels=truth[:, :, 11])
    # Asked once before the first step, and once behind each.
    assert session.propagate(should_stop=lambda: next(answers)).cancelled
    assert len(steps) == asked


def test_an_error_in_a_callback_leaves_the_session_as_it_was(session, truth):
    session.paint(plane="axial", index=11, labels=truth[:, :, 11])

    def fail(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.propagate(on_progress=fail)
    assert session.undoable == ("paint slice 11",)
    assert dice(session.propagate().labels == 1, truth == 1) > 0.95


def test_progress_counts_every_slice_and_ends_at_the_total(session, truth):
    session.paint(plane="axial", index=11, labels=truth[:, :, 11])
    seen = []
    session.propagate(on_progress=seen.append)
    assert {progress.total for progress in seen} == {2 * 23}
    assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)
    assert seen[-1].done == 2 * 23
    assert str(seen[0]) == "object 1: slice 10 (1 of 46)"


def test_the_result_says_how_long_it_took(session, truth):
    session.paint(plane="axial", index=11, labels=truth[:, :, 11])
    assert 0 < session.propagate().seconds < 30


# Confidence and suggestion


def test_every_slice_with_an_object_has_a_confidence(session, truth):
    session.paint(plane="axial", index=11, labels=truth[:, :, 11])
    result = session.propagate()
    for label, axis in result.axes.items():
        shown = np.flatnonzero((np.moveaxis(result.labels, axis, 0) == label).any((1, 2)))
        assert set(shown) <= set(result.confidence[label])
        assert result.confidence[label][11] == 1.0
        assert all(0 <= value <= 1 for value in result.confidence[label].values())


def test_the_suggested_slice_is_a_propagated_one(session, truth):
    session.paint(plane="axial", index=6, labels=truth[:, :, 6])
    result = session.propagate()
    for label, index in result.suggested.items():
        assert result.states[label][index] is SliceState.PROPAGATED


def test_the_suggestion_is_not_beside_the_prompt(session, truth):
    session.paint(plane="axial", index=6, labels=only(truth[:, :, 6], 1))
    assert session.propagate().suggested[1] > 9


# Geometry


@settings(max_examples=24, deadline=None)
@given(order=st.sampled_from(list(itertools.permutations(range(3)))), flips=st.tuples(*[st.booleans()] * 3))
def test_turned_and_flipped_volumes_give_the_same_answer(image, truth, new_follower, order, flips):
    def turn(volume):
        return np.transpose(volume, order)[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]

    painted = np.zeros_like(truth)
    painted[:, :, 11] = truth[:, :, 11]
    affine = image.affine[:, [*order, 3]].copy()
    for axis, flip in enumerate(flips):
        if flip:
            affine[:3, 3] += affine[:3, axis] * (image.shape[order[axis]] - 1)
            affine[:3, axis] *= -1
    turned_image = Image(turn(image.voxels), affine, ImageKind.VOLUME, "turned")
    turned = imos.Session(None, turned_image, tracker=new_follower())
    turned.paint_volume(turn(painted), plane="axial")
    straight = imos.Session(None, image, tracker=new_follower())
    straight.paint_volume(painted, plane="axial")
    assert np.array_equal(turned.propagate().labels, turn(straight.propagate().labels))


def test_frames_are_walked_along_time(truth, image, follower):
    video = Image(image.voxels, np.eye(4), ImageKind.VIDEO, "video")
    session = imos.Session(None, video, tracker=follower)
    session.paint(plane="time", index=11, labels=truth[:, :, 11])
    assert session.propagate().axis == 2


# What the user may get wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"index": 24}, "There is no slice 24: the image has 24 axial slices"),
        ({"index": -1}, "There is no slice -1"),
        ({"index": 1.5}, "whole number"),
        ({"plane": "diagonal"}, "no plane 'diagonal'"),
        ({"plane": "time"}, "no time axis"),
        ({"plane": "auto"}, "Name the plane"),
        ({"labels": np.ones((48, 40), int)}, r"shape 48 × 40, but slice 11 of the axial plane has 40 × 48. Transpose"),
        ({"labels": np.ones((40, 48, 24), int)}, r"shape 40 × 48 × 24, but"),
        ({"labels": np.zeros((40, 48), int)}, "Nothing is painted"),
        ({"labels": np.full((40, 48), 65536)}, "hold the value 65536: labels are 1 to 65535"),
        ({"labels": np.full((40, 48), -1)}, "hold the value -1"),
        ({"labels": np.full((40, 48), np.nan)}, "hold the value nan"),
        ({"labels": np.full((40, 48), 0.5)}, "not whole numbers"),
        ({"labels": np.full((40, 48), "liver")}, "of type <U5"),
    ],
)
def test_painting_wrongly_says_what_is_wrong(session, arguments, message):
    with pytest.raises(UserError, match=message):
        session.paint(**{"plane": "axial", "index": 11, "labels": np.ones((40, 48), int), **arguments})
    assert session.undoable == ()


@pytest.mark.parametrize("label", [0, -3, 65536, 1.5, True])
def test_a_label_that_is_none_is_refused(session, label):
    with pytest.raises(UserError, match=r"[Ll]abel"):
        session.absent(label, "axial", 3)


def test_nothing_painted_is_said(session):
    with pytest.raises(UserError, match="No slice is painted"):
        session.propagate()


def test_an_object_that_was_only_said_absent_cannot_be_propagated(session, truth):
    session.paint(plane="axial", index=11, labels=only(truth[:, :, 11], 1))
    session.absent(2, "axial", 3)
    assert session.propagate().states[2][3] is SliceState.ABSENT
    with pytest.raises(UserError, match="Object 2 is painted on no slice"):
        session.propagate(labels=[2])


def test_an_unknown_direction_is_said(session, truth):
    session.paint(plane="axial", index=11, labels=truth[:, :, 11])
    with pytest.raises(UserError, match="no direction 'up'"):
        session.propagate(direction="up")


def test_a_prompt_outside_the_limits_is_said(session, truth):
    session.paint(plane="axial", index=11, labels=only(truth[:, :, 11], 1))
    session.limit(12, 20)
    with pytest.raises(UserError, match="painted on slice 11, outside the limits 12 to 20"):
        session.propagate()


@pytest.mark.parametrize("limits", [(5, 4), (-1, None), (None, 48)])
def test_limits_that_leave_no_slice_are_refused(image, limits):
    with pytest.raises(UserError, match="slice"):
        imos.Session(None, image, first=limits[0], last=limits[1])


def test_a_limit_beyond_the_slices_of_the_plane_is_said(session, truth):
    session.limit(last=30)
    session.paint(plane="axial", index=11, labels=truth[:, :, 11])
    with pytest.raises(UserError, match="24 slices"):
        session.propagate()


def test_accepting_what_is_not_known_is_refused(session, truth):
    with pytest.raises(UserError, match="no object 1"):
        session.accept(1)
    session.paint(plane="axial", index=11, labels=truth[:, :, 11])
    with pytest.raises(UserError, match="Nothing is known of object 1 on slice 12"):
        session.accept(1, [11, 12])


def test_a_constant_image_is_refused(truth, follower):
    image = Image(np.zeros((40, 48, 24), np.int16), np.eye(4), ImageKind.VOLUME, "black")
    session = imos.Session(None, image, tracker=follower)
    session.paint(plane="axial", index=11, labels=truth[:, :, 11])
    with pytest.raises(UserError, match="shows nothing"):
        session.propagate()


# Memory and start-up


def test_memory_of_a_pass_does_not_grow_with_the_slices_empty_area(session, truth):
    session.paint(plane="axial", index=11, labels=truth[:, :, 11])
    result = session.propagate()
    slices = sum(len(confidence) for confidence in result.confidence.values())
    assert session._passes.nbytes < 1000 * slices


def test_importing_imos_imports_neither_torch_nor_numpy():
    code = "import sys, imos; sys.exit(any(name in sys.modules for name in ('torch', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_exists():
    for name in imos.__all__:
        assert getattr(imos, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'lood'"):
        imos.lood  # noqa: B018


def test_a_result_cannot_be_changed_by_who_looks_at_it(session, truth):
    session.paint(plane="axial", index=8, labels=truth[:, :, 8])
    result = session.propagate()
    with pytest.raises(ValueError, match="read-only"):
        result.labels[:] = 0
    result.labels.copy()[:] = 0
    session.accept(1)
    assert session.result.labels.any()


@pytest.mark.parametrize(
    "what",
    [
        lambda session: session.limit("3"),
        lambda session: session.limit(1.5, 3),
        lambda session: session.limit(True, 3),
        lambda session: session.accept(1, 9.0),
        lambda session: session.accept(1, [9.0]),
        lambda session: session.accept(1, [True]),
        lambda session: session.propagate(1.0),
        lambda session: session.paint(plane="axial", index=8, labels=[[1, 2], [1]]),
    ],
)
def test_numbers_that_are_none_are_refused(session, truth, what):
    session.paint(plane="axial", index=8, labels=truth[:, :, 8])
    session.propagate()
    before = session.state
    with pytest.raises(UserError) as refusal:
        what(session)
    assert "\n" not in str(refusal.value)
    assert session.state is before
