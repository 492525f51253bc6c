"""Whole passes as training samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from imos.propagation.model import Model, Share
from imos.training.rollouts import LOST, Course, State, StateBatch, collect, walk
from imos.training.volumes import Stack


def equal(one: State, other: State) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.maps, other.maps, strict=True)) and all(
        torch.equal(getattr(one, name), getattr(other, name)) for name in ("readout", "hidden", "cues", "truth")
    )


@pytest.mark.slow
def test_a_state_shows_what_the_decoder_was_given_and_the_truth(model: Model, ball: Callable[..., Stack]) -> None:
    found = [state for seed in range(8) for state in walk(model, ball(), np.random.default_rng(seed))]
    assert len(found) >= 10
    batch = StateBatch.of(found, torch.device("cpu"))
    assert model.network is not None
    with torch.no_grad():
        decoded = model.network.decode(batch.maps, batch.readout, batch.hidden, batch.cues)
    logits = batch.floor + batch.share[:, None, None] * decoded.residual[:, 0]
    hard, truth = logits > 0, batch.truth > 0.5
    j = (hard & truth).sum((1, 2)) / (hard | truth).sum((1, 2))
    assert j.median() > 0.8, "a bright ball is easy: the truth lies where the pass is"
    assert truth.any((1, 2)).all(), "what is not there teaches nothing"


@pytest.mark.slow
def test_a_walk_is_decided_by_its_seed(model: Model, ball: Callable[..., Stack]) -> None:
    courses = [Course(ball(1)), Course(ball(2))]
    sure = collect(model, courses, (1, 2), 12)
    again = collect(model, courses, (1, 2), 12)
    other = collect(model, courses, (1, 3), 12)
    assert len(sure) == len(again) >= 12
    assert all(equal(one, two) for one, two in zip(sure, again, strict=True))
    assert not all(equal(one, two) for one, two in zip(sure, other, strict=False))


@pytest.mark.slow
def test_courses_are_walked_as_often_as_their_weights_say(model: Model, ball: Callable[..., Stack]) -> None:
    courses = [Course(ball(1), weight=1e-9), Course(ball(2))]
    heavy = collect(model, courses, (1, 2), 12)
    alone = collect(model, [Course(ball(2), weight=3)], (1, 2), 12)
    assert all(equal(one, two) for one, two in zip(heavy, alone, strict=True))


@pytest.mark.slow
def test_a_pass_that_has_lost_its_object_ends(model: Model, ball: Callable[..., Stack]) -> None:
    """Behind the ball there is nothing to learn, however long the stack is."""
    long = ball(3, depth=60)
    shown = np.flatnonzero(long.areas[:, 1])
    for seed in range(6):
        states = walk(model, long, np.random.default_rng(seed))
        assert len(states) <= shown.size + LOST


@pytest.mark.slow
def test_gray_videos_are_carried_without_the_network(model: Model, ball: Callable[..., Stack]) -> None:
    assert model.share.gray_video == 0
    assert collect(model, [Course(ball(4, is_video=True))], (1,), 5) == []
    taught = model.but(share=Share(1, 1, 1, 0))
    assert collect(taught, [Course(ball(4, is_video=True))], (1,), 5)
