"""Whole passes as training samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import imos
from imos.propagation.kinds import Kind
from imos.propagation.model import Model, Share
from imos.training.known import kinds_of, thinned
from imos.training.rollouts import LOST, Course, State, StateBatch, collect, walk
from imos.training.volumes import Stack


@pytest.fixture(scope="module")
def model() -> Model:
    return imos.load(device="cpu")


def ball(seed: int = 0, depth: int = 15, *, is_video: bool = False) -> Stack:
    """A bright ball in noise, seen on the slices in the middle."""
    random = np.random.default_rng(seed)
    k, i, j = np.mgrid[:depth, :64, :64]
    labels = ((i - 30) ** 2 + (j - 33) ** 2 + (2.5 * (k - depth // 2)) ** 2 < 15**2).astype(np.uint8)
    slices = (80 + 90 * labels + random.normal(0, 12, labels.shape)).clip(0, 255).astype(np.uint8)
    return Stack.of(slices, labels, is_video=is_video)


def equal(one: State, other: State) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.maps, other.maps, strict=True)) and all(
        torch.equal(getattr(one, name), getattr(other, name)) for name in ("readout", "hidden", "cues", "truth")
    )


@pytest.mark.slow
def test_a_state_shows_what_the_decoder_was_given_and_the_truth(model: Model) -> None:
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
def test_a_walk_is_decided_by_its_seed(model: Model) -> None:
    courses = [Course(ball(1)), Course(ball(2))]
    sure = collect(model, courses, (1, 2), 12)
    again = collect(model, courses, (1, 2), 12)
    other = collect(model, courses, (1, 3), 12)
    assert len(sure) == len(again) >= 12
    assert all(equal(one, two) for one, two in zip(sure, again, strict=True))
    assert not all(equal(one, two) for one, two in zip(sure, other, strict=False))


@pytest.mark.slow
def test_a_pass_that_has_lost_its_object_ends(model: Model) -> None:
    """Behind the ball there is nothing to learn, however long the stack is."""
    long = ball(3, depth=60)
    shown = np.flatnonzero(long.areas[:, 1])
    for seed in range(6):
        states = walk(model, long, np.random.default_rng(seed))
        assert len(states) <= shown.size + LOST


@pytest.mark.slow
def test_gray_videos_are_carried_without_the_network(model: Model) -> None:
    assert model.share.gray_video == 0
    assert collect(model, [Course(ball(4, is_video=True))], (1,), 5) == []
    taught = model.but(share=Share(1, 1, 1, 0))
    assert collect(taught, [Course(ball(4, is_video=True))], (1,), 5)


@pytest.mark.slow
def test_what_is_known_of_other_volumes_takes_part(model: Model) -> None:
    known = kinds_of(model.steps, ball(5))
    assert len(known) == 1
    assert kinds_of(model.steps, ball(6, depth=3)) == [], "on too few slices"
    found = collect(model, [Course(ball(7), tuple(known))], (1,), 6)
    without = collect(model, [Course(ball(7))], (1,), 6)
    assert not all(equal(one, two) for one, two in zip(found, without, strict=False)), "the score is among the cues"


def test_thinned_evenly() -> None:
    kinds = [Kind(torch.full((2,), float(number)), torch.eye(2)) for number in range(10)]
    assert [float(kind.weights[0]) for kind in thinned(kinds, 3)] == [0, 4, 9]
    assert thinned(kinds, 20) == kinds
    assert thinned([], 5) == []
    assert thinned(kinds, 0) == []
