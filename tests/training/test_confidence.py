"""A tuned network is as sure of the labelled objects as the base was."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from imos.propagation.existence import Evidence, Judge, features
from imos.propagation.model import Model
from imos.training.confidence import MOST, _mean, _shift, lifted
from imos.training.passes import Walk, walks
from imos.training.volumes import Stack, synthetic_stack


@pytest.fixture(scope="module")
def objects() -> list[Walk]:
    stack: Stack = synthetic_stack(np.random.default_rng(4), size=48, depth=10)
    return walks([stack], 4)


def knowing(model: Model, _: Walk) -> Model:
    return model


def doubting(base: Model) -> Model:
    """The base with a decoder that draws softer outlines: half of its log odds are taken back."""
    network = copy.deepcopy(base.network)
    assert network is not None
    with torch.no_grad():
        network.out.bias[-2:] -= 0.6  # how far the floor's two parts are trusted
    return base.decoding_with(network)


def constant(judge: Judge) -> float:
    return float(judge.quality[-1])


def test_what_says_too_little_is_lifted_and_nothing_else_changes(model: Model, objects: list[Walk]) -> None:
    adapted = doubting(model)
    judge = lifted(model, adapted, objects, knowing)
    assert judge is not None
    assert model.judge is not None
    assert 0.1 < constant(judge) - constant(model.judge) <= MOST
    np.testing.assert_array_equal(judge.existence, model.judge.existence)
    np.testing.assert_array_equal(judge.quality[:-1], model.judge.quality[:-1])
    again = lifted(model.but(judge=judge), adapted, objects, knowing)
    assert again is not None, "a further round begins with the judge that the last one left"


def test_the_base_itself_keeps_its_judge(model: Model, objects: list[Walk]) -> None:
    judge = lifted(model, model, objects, knowing)
    assert judge is not None
    assert model.judge is not None
    assert constant(judge) == constant(model.judge)


def test_without_a_judge_there_is_nothing_to_lift(model: Model, objects: list[Walk]) -> None:
    assert lifted(model.but(judge=None), model, objects, knowing) is None


def test_the_mean_is_what_it_was_within_limits() -> None:
    random = np.random.default_rng(0)
    before = random.normal(1.0, 1.0, 200)
    after = before - 0.8 + random.normal(0, 0.2, 200)
    assert _mean(after + _shift(before, after)) == pytest.approx(_mean(before), abs=1e-3)
    assert _shift(after, before) == 0
    assert _shift(before + 9, before) == MOST


def test_the_constant_is_the_last_number_that_a_judge_weighs() -> None:
    zero = features(Evidence(*[0.0] * 11))
    assert zero[-1] == 1
    assert not zero[:-1].any()
