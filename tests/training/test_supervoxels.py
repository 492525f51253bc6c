"""Objects that nobody painted: what can be seen becomes one, what cannot does not."""

import numpy as np
import pytest
from numpy.typing import NDArray

from imos.errors import UserError
from imos.metrics import jaccard
from imos.training.supervoxels import LONGEST, MOST_OBJECTS, SMALLEST, WIDEST, SupervoxelPool, supervoxel_stack
from imos.training.volumes import Stack


def ball(shape: tuple[int, int, int], centre: tuple[float, float, float], radius: float) -> NDArray[np.bool_]:
    grid = np.indices(shape)
    return sum((grid[axis] - centre[axis]) ** 2 for axis in range(3)) <= radius**2


def two_balls() -> tuple[Stack, list[NDArray[np.bool_]]]:
    """A bright and a dark ball in gray noise, unlabelled."""
    shape = (30, 80, 80)
    balls = [ball(shape, (15, 22, 22), 13), ball(shape, (14, 55, 52), 14)]
    volume = np.full(shape, 100.0)
    volume[balls[0]], volume[balls[1]] = 200, 40
    volume += np.random.default_rng(0).normal(0, 3, shape)
    return Stack.of(volume.clip(0, 255).astype(np.uint8), np.zeros(shape, np.uint8)), balls


def test_bodies_that_can_be_seen_become_objects_though_nobody_labelled_them():
    stack, balls = two_balls()
    found = [supervoxel_stack(stack, np.random.default_rng(seed)).labels for seed in range(6)]
    for body in balls:
        best = [max(jaccard(labels == value, body) for value in range(1, labels.max() + 1)) for labels in found]
        assert sum(value > 0.75 for value in best) >= 3, best


def test_the_slices_stay_and_labels_are_disjoint_objects_of_some_size():
    stack, _ = two_balls()
    for seed in range(4):
        found = supervoxel_stack(stack, np.random.default_rng(seed))
        assert np.array_equal(found.slices, stack.slices)
        sizes = np.bincount(found.labels.ravel())[1:]
        assert len(sizes) <= MOST_OBJECTS
        assert (sizes >= SMALLEST).all()


def test_the_same_random_stream_gives_the_same_objects_and_another_one_others():
    stack, _ = two_balls()
    one, same, other = (supervoxel_stack(stack, np.random.default_rng(seed)).labels for seed in (3, 3, 4))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_air_and_plain_noise_show_no_object():
    shape = (16, 48, 48)
    noise = np.random.default_rng(0).normal(120, 10, shape).clip(0, 255).astype(np.uint8)
    air = np.random.default_rng(0).integers(0, 4, shape).astype(np.uint8)
    for volume in (noise, air):
        stack = Stack.of(volume, np.zeros(shape, np.uint8))
        assert not supervoxel_stack(stack, np.random.default_rng(2)).objects().size


def test_colour_is_cut_by_its_luminance():
    stack, _ = two_balls()
    coloured = Stack.of(np.repeat(stack.slices[..., None], 3, axis=3), stack.labels, is_video=True, volume=7)
    found = supervoxel_stack(coloured, np.random.default_rng(1))
    assert found.is_video
    assert found.volume == 7
    assert np.array_equal(found.labels, supervoxel_stack(stack, np.random.default_rng(1)).labels)


def test_a_pool_cuts_large_volumes_to_size_and_the_same_for_the_same_stream():
    stack, _ = two_balls()
    large = Stack.of(np.tile(stack.slices, (2, 3, 3)), np.tile(stack.labels, (2, 3, 3)))
    pools = [SupervoxelPool([stack, large], seed=2) for _ in range(2)]
    drawn = [[pool.draw(np.random.default_rng(seed)) for seed in range(6)] for pool in pools]
    for one, other in zip(*drawn, strict=True):
        assert one.objects().size
        assert all(side <= most for side, most in zip(one.labels.shape, (LONGEST, WIDEST, WIDEST), strict=True))
        assert np.array_equal(one.labels, other.labels)


def test_a_pool_of_nothing_is_refused_and_of_noise_too():
    video = Stack.of(np.zeros((9, 32, 32), np.uint8), np.zeros((9, 32, 32), np.uint8), is_video=True)
    with pytest.raises(UserError, match="no volume to cut"):
        SupervoxelPool([video], seed=1)
    air = Stack.of(video.slices, video.labels)
    with pytest.raises(UserError, match="Nothing stands out"):
        SupervoxelPool([air], seed=1).draw(np.random.default_rng(0))
