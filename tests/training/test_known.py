"""What an adapter remembers of labelled objects."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch

from imos.propagation.kinds import LIKE_ENOUGH, Kind
from imos.propagation.likeness import FARTHEST, NEAREST
from imos.propagation.logistic import PixelSamples, mean_loss
from imos.propagation.model import Model
from imos.propagation.region import region_around
from imos.propagation.target import TargetModel, picture_tensor, pixel_features
from imos.training.known import kinds_of, painted_of, seen_in, taught_in, thinned
from imos.training.volumes import Stack


def middle(model: Model, stack: Stack) -> PixelSamples:
    """Samples of the slice in the middle, as a pass from there takes them."""
    index = len(stack.slices) // 2
    mask = stack.labels[index] == 1
    region = region_around(mask)
    picture = region.crop(stack.slices[index]).astype(np.uint8)
    features = pixel_features(picture, model.steps.finer(picture_tensor(picture))).joined()
    cropped = region.crop(mask.astype(np.float32))
    return TargetModel(features, cropped).samples(features, cropped, None)


def test_a_kind_finds_its_like_in_another_volume(model: Model, ball: Callable[..., Stack]) -> None:
    (known,) = kinds_of(model.steps, ball(5))
    painted = middle(model, ball(6))
    dark = ball(7)
    inverted = middle(model, Stack.of(255 - dark.slices, dark.labels))
    assert mean_loss(painted, known.weights[None]) < LIKE_ENOUGH
    assert mean_loss(inverted, known.weights[None]) > LIKE_ENOUGH


def test_an_adapter_is_used_for_what_looks_like_its_volumes(model: Model, ball: Callable[..., Stack]) -> None:
    stacks = [ball(seed) for seed in range(3)]
    seen = seen_in(model.steps, stacks, None)
    dark = Stack.of(255 - ball(7).slices, ball(7).labels)

    assert NEAREST <= seen.reach <= FARTHEST
    assert [seen.includes(look(model, one)) for one in (ball(8), dark)] == [True, False]
    later = seen_in(model.steps, [dark], seen)
    assert [later.includes(look(model, one)) for one in (ball(8), dark)] == [True, True], "nothing is forgotten"


def test_its_decoder_is_used_for_objects_like_those_that_taught_it(model: Model, ball: Callable[..., Stack]) -> None:
    stacks = [ball(seed) for seed in range(3)]
    found = [kinds_of(model.steps, stack) for stack in stacks]
    taught = taught_in(model.steps, stacks, found, None)
    assert taught is not None
    rim = ball(8)
    inner = np.stack([cv2.erode(plane, np.ones((7, 7), np.uint8)) for plane in rim.labels])
    rim = Stack.of(rim.slices, rim.labels - inner)  # the same image, another object in it

    def is_included(stack: Stack) -> bool:
        return all(taught.includes(painted) for painted in painted_of(model.steps, stack))

    assert is_included(ball(8))
    assert not is_included(rim)
    assert taught_in(model.steps, [ball(1, depth=3)], [[]], None) is None, "too few slices to be a kind"
    assert taught_in(model.steps, [ball(1, depth=3)], [[]], taught) is taught
    taught = taught_in(model.steps, [rim], [kinds_of(model.steps, rim)], taught)
    assert is_included(ball(8))
    assert is_included(rim)


def look(model: Model, stack: Stack) -> torch.Tensor:
    """Features of the painted object's region, as a pass has them."""
    index = len(stack.slices) // 2
    picture = region_around(stack.labels[index] == 1).crop(stack.slices[index]).astype(np.uint8)
    return pixel_features(picture, model.steps.finer(picture_tensor(picture))).joined()


def test_an_object_on_few_slices_is_no_kind(model: Model, ball: Callable[..., Stack]) -> None:
    assert kinds_of(model.steps, ball(6, depth=3)) == []


@pytest.mark.parametrize(("most", "expected"), [(3, [0, 4, 9]), (20, list(range(10))), (0, [])])
def test_thinned_evenly(most: int, expected: list[int]) -> None:
    kinds = [Kind(torch.full((2,), float(number)), torch.eye(2), torch.ones(2, 80)) for number in range(10)]
    assert [int(kind.weights[0]) for kind in thinned(kinds, most)] == expected
    assert thinned([], most) == []
