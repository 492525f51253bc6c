"""Clips of `xmem` are a pure function of seed and number, and show what the paper's show."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from imos.errors import UserError
from imos.training.clips import Clip, ClipMaker, cut_clip, pick_slices
from imos.training.curriculum import ClipPhase, Curriculum, Position
from imos.training.packing import Source
from imos.training.producers import produce_with
from imos.training.volumes import Stack

STILLS = ClipPhase("static", 1, batch=4, size=64, frames=3, references=2, objects=1, still=True)
SEQUENCES = ClipPhase("long", 1, batch=4, size=64, frames=4)
BOTH = Curriculum([STILLS, SEQUENCES], 4)
SEED = 5
FIRST_SEQUENCE = BOTH.clips_before(2)


@pytest.fixture(scope="module")
def maker(collection: Path) -> ClipMaker:
    return ClipMaker(Source(collection), BOTH, SEED)


@pytest.fixture(scope="module")
def sequences(maker: ClipMaker) -> list[Clip]:
    return [maker.make(FIRST_SEQUENCE + number) for number in range(24)]


def assert_same(one: Clip, other: Clip) -> None:
    assert (one.number, one.objects) == (other.number, other.objects)
    np.testing.assert_array_equal(one.pictures, other.pictures)
    np.testing.assert_array_equal(one.labels, other.labels)


def moving_blocks(objects: int, depth: int = 12) -> Stack:
    """Square objects in a row that move by a pixel a slice; each has an intensity of its own."""
    labels = np.zeros((depth, 60, 90), np.uint8)
    for z in range(depth):
        for number in range(objects):
            labels[z, 20 + z : 36 + z, 2 + 17 * number : 15 + 17 * number] = number + 1
    return Stack.of((40 + 30 * labels).astype(np.uint8), labels)


def position(phase: ClipPhase, iteration: int = 0) -> Position:
    return Position(phase, iteration, 100)


def clips_of(stack: Stack, phase: ClipPhase, count: int, iteration: int = 0) -> list[Clip]:
    made = (
        cut_clip(stack, number, position(phase, iteration), np.random.default_rng(number)) for number in range(count)
    )
    return [clip for clip in made if clip is not None]


class TestPurity:
    def test_a_clip_depends_on_nothing_made_before(self, collection: Path, maker: ClipMaker) -> None:
        fresh = ClipMaker(Source(collection), BOTH, SEED)
        later = fresh.make(11)
        for number in range(12):
            clip = maker.make(number)
        assert_same(later, clip)

    def test_another_seed_gives_other_clips(self, collection: Path, maker: ClipMaker) -> None:
        other = ClipMaker(Source(collection), BOTH, SEED + 1)
        assert not np.array_equal(maker.make(0).pictures, other.make(0).pictures)

    def test_processes_take_turns_with_however_many_workers(self, collection: Path, maker: ClipMaker) -> None:
        clips = produce_with(partial(ClipMaker, Source(collection), BOTH, SEED), 3, 2, step=2, ahead=2)
        try:
            for number in (3, 5, 7):
                assert_same(next(clips), maker.make(number))
        finally:
            clips.close()


class TestSequences:
    def test_shapes_and_values(self, sequences: list[Clip]) -> None:
        for clip in sequences:
            assert clip.pictures.shape == (4, 64, 64, 3)
            assert clip.labels.shape == (4, 64, 64)
            assert clip.pictures.dtype == clip.labels.dtype == np.uint8
            assert set(np.unique(clip.labels[0])) >= set(range(1, clip.objects + 1))
            assert clip.labels.max() == clip.objects

    def test_some_show_several_objects(self, sequences: list[Clip]) -> None:
        assert {clip.objects for clip in sequences} >= {1, 2}

    def test_three_of_many_objects_at_random(self) -> None:
        clips = clips_of(moving_blocks(5), SEQUENCES, 20)
        assert {clip.objects for clip in clips} == {3}
        chosen = {
            tuple(round(float(clip.pictures[0, ..., 0][clip.labels[0] == value].mean()), -1) for value in (1, 2, 3))
            for clip in clips
        }
        assert len(chosen) > 5

    def test_labels_follow_the_picture(self) -> None:
        for clip in clips_of(moving_blocks(1), SEQUENCES, 10):
            bright = clip.pictures[..., 0] > 55
            inside = clip.pictures[..., 0] < 100  # not the fill beside the picture
            truth = clip.labels == 1
            assert ((bright & inside) == truth).mean() > 0.97

    def test_an_object_that_appears_later_is_background(self) -> None:
        stack = moving_blocks(2)
        labels = stack.labels.copy()
        labels[:10][labels[:10] == 2] = 0
        clips = clips_of(Stack.of(stack.slices, labels), SEQUENCES, 60)
        late = [clip for clip in clips if clip.objects == 1]
        assert late
        assert all(clip.labels.max() <= clip.objects for clip in clips)

    def test_slices_are_turned_one_by_one_but_not_in_the_tail(self) -> None:
        still_stack = Stack.of(
            *(np.repeat(array[:1], 12, 0) for array in (moving_blocks(2).slices, moving_blocks(2).labels))
        )
        moved, calm = (clips_of(still_stack, SEQUENCES, 5, iteration)[0].labels for iteration in (0, 100))
        assert not np.array_equal(moved[0], moved[1])
        np.testing.assert_array_equal(calm[0], calm[1])

    def test_a_stack_with_too_few_slices_is_refused(self, collection: Path) -> None:
        with pytest.raises(UserError, match="no volume or sequence of 50 slices to train on in phase 'long'"):
            ClipMaker(Source(collection), Curriculum([replace(SEQUENCES, frames=50)], 1), SEED)

    def test_long_thin_slices_are_cut_without_distortion(self) -> None:
        labels = np.zeros((6, 24, 200), np.uint8)
        labels[:, 4:20] = 1
        clips = clips_of(Stack.of(labels * 200, labels), SEQUENCES, 4)
        assert len(clips) == 4
        assert all((clip.labels[0] == 1).mean() > 0.4 for clip in clips)


class TestStills:
    def test_one_slice_in_synthetic_motion(self) -> None:
        for clip in clips_of(moving_blocks(3), STILLS, 8):
            assert clip.objects == 1
            sizes = [int((frame == 1).sum()) for frame in clip.labels]
            assert min(sizes) > 0
            assert not np.array_equal(clip.labels[0], clip.labels[1])
            assert not np.array_equal(clip.labels[1], clip.labels[2])

    def test_come_first_in_the_run(self, maker: ClipMaker) -> None:
        assert [len(maker.make(number).labels) for number in (0, FIRST_SEQUENCE - 1, FIRST_SEQUENCE)] == [3, 3, 4]

    def test_a_collection_of_stills_is_enough_for_them(self) -> None:
        stack = moving_blocks(1)
        assert clips_of(Stack.of(stack.slices[:1], stack.labels[:1]), STILLS, 3)


class TestPickedSlices:
    @pytest.mark.parametrize("gap", [1, 3])
    def test_are_in_order_and_near_each_other(self, gap: int) -> None:
        for seed in range(50):
            indices = pick_slices(20, 5, gap, np.random.default_rng(seed))
            steps = np.diff(indices)
            assert len(set(indices)) == 5
            assert np.all(steps > 0) or np.all(steps < 0)
            assert np.abs(steps).max() <= gap
            assert 0 <= min(indices) <= max(indices) < 20

    def test_go_both_ways_and_begin_anywhere(self) -> None:
        picks = [pick_slices(9, 3, 2, np.random.default_rng(seed)) for seed in range(60)]
        assert {pick[0] < pick[-1] for pick in picks} == {True, False}
        assert {pick[0] for pick in picks} == set(range(9))

    def test_of_a_stack_with_just_enough(self) -> None:
        assert sorted(pick_slices(4, 4, 1, np.random.default_rng(0))) == [0, 1, 2, 3]
