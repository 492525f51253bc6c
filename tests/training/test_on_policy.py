"""Training on the network's own passes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from imos.network.small import SmallNetwork
from imos.propagation.model import Model
from imos.training.finetune import FineTuning
from imos.training.known import kinds_of
from imos.training.on_policy import train_on_policy
from imos.training.rollouts import Course, collect
from imos.training.run import Machine, Run, TrainSettings
from imos.training.tuning import Tune
from imos.training.volumes import Stack

CPU = torch.device("cpu")


def run(folder: Path, model: Model, tune: Tune = Tune.DECODER, steps: int = 6) -> Run:
    settings = TrainSettings(steps=steps, batch=3, rate=1e-3, warm_up=1, average=0.5)
    return Run(folder, FineTuning({}, copy.deepcopy(model.network), tune=tune), settings, CPU)


def changed(before: SmallNetwork, after: SmallNetwork) -> set[str]:
    pairs = zip(before.state_dict().items(), after.state_dict().values(), strict=True)
    return {name.split(".")[0] for (name, one), other in pairs if not torch.equal(one, other)}


@pytest.mark.slow
@pytest.mark.parametrize(("tune", "coarse"), [(Tune.DECODER, False), (Tune.ALL, True)])
def test_heads_and_encoders_stay(
    tmp_path: Path, model: Model, ball: Callable[..., Stack], tune: Tune, coarse: bool
) -> None:
    assert model.network is not None
    current = run(tmp_path, model, tune)
    train_on_policy(current, model, [Course(ball(1)), Course(ball(2))], Machine())
    assert current.step == 6
    fine = {"up8", "up4", "skip8", "skip4", "block8", "block4", "norm4", "out"}
    assert changed(model.network, current.averaged) == (fine | {"in16", "block16"} if coarse else fine)


@pytest.mark.slow
def test_a_run_that_was_cut_off_goes_on(tmp_path: Path, model: Model, ball: Callable[..., Stack]) -> None:
    train_on_policy(run(tmp_path, model), model, [Course(ball(1))], Machine(minutes=0))
    half = run(tmp_path, model)
    assert 0 < half.step < 6
    train_on_policy(half, model, [Course(ball(1))], Machine())
    assert run(tmp_path, model).step == 6


@pytest.mark.slow
def test_where_the_network_is_not_asked_there_is_nothing_to_learn(
    tmp_path: Path, model: Model, ball: Callable[..., Stack]
) -> None:
    current = run(tmp_path, model)
    train_on_policy(current, model, [Course(ball(1, is_video=True))], Machine())
    assert current.step == 0


@pytest.mark.slow
def test_what_is_known_takes_part_in_walks(model: Model, ball: Callable[..., Stack]) -> None:
    known = tuple(kinds_of(model.steps, ball(5)))
    (first, *_), (other, *_) = (collect(model, [Course(ball(7), kinds)], (1,), 1) for kinds in (known, ()))
    assert torch.equal(first.cues[:, 3], other.cues[:, 3]), "the same pass, up to here"
    assert not torch.equal(first.cues[:, 4], other.cues[:, 4]), "another score of the target model"
