"""How far a fine-tuning goes from the base's weights to the tuned ones (interpolation as in WiSE-FT).

What was learned from few volumes fits them better than others: of one volume at most half of the way is taken, of two
two thirds, and so on. On other volumes half of that has been better than nothing on every set, and all of it better
than half where there were four volumes or more (docs/training.md); so these are taken unless whole passes over the
labelled objects say otherwise. Kinds are kept unless they harm passes through other volumes than their own. The passes
go to where the objects end: the judge, which was fitted to the base, says nothing of how good a tuned network is, and
is lifted for it afterwards (confidence.py).
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from imos.network.small import SmallNetwork
from imos.propagation.existence import Judge, Sure
from imos.propagation.model import Model
from imos.training.confidence import lifted
from imos.training.passes import Walk, quality_of, walks
from imos.training.rollouts import Course
from imos.training.volumes import volumes_of

MOST_OBJECTS = 12
"""Objects walked along for every choice."""
WORTH = 0.01
"""J&F by which something else must be better than what is taken in doubt: a mean over so few objects says no more."""
MANY = 4
"""Volumes from which on all of the way that they allow is taken in doubt; of fewer, half of it."""


def partly(base: SmallNetwork, tuned: SmallNetwork, way: float) -> SmallNetwork:
    """The network part of the way from a base to its tuned form; adapters are turned down at their gates.

    Args:
        base: May lack the adapters.
        tuned: With adapters.
        way: 0 gives what the base gives, 1 the tuned network.
    """
    start = base.state_dict()
    mixed: dict[str, Tensor] = {}
    for name, tensor in tuned.state_dict().items():
        if name in start and tensor.is_floating_point():
            mixed[name] = torch.lerp(start[name].float(), tensor.float(), way)
        else:
            mixed[name] = tensor * way if name.endswith(".gate") else tensor
    network = copy.deepcopy(tuned)
    network.load_state_dict(mixed)
    return network.eval()


def farthest(volumes: int) -> float:
    """Of the way, with so many volumes to learn from."""
    return volumes / (volumes + 1)


class Taken(NamedTuple):
    """What is kept of a fine-tuning.

    Attributes:
        network: Part of the way to the tuned one.
        knows: Whether kinds are kept.
        judge: As it suits the network; None where the base has none.
    """

    network: SmallNetwork
    knows: bool
    judge: Judge | None


def choose(base: Model, tuned: SmallNetwork, courses: Sequence[Course]) -> Taken:
    """What gives the best passes.

    Args:
        base: What was fine-tuned.
        tuned: Its network after that.
        courses: Labelled stacks, as they are walked in use, and what the target model may know there.
    """
    network = base.network
    if network is None:
        msg = "there is no network to tune"
        raise ValueError(msg)
    known = {id(course.stack): course.kinds for course in courses}
    objects = walks([course.stack for course in courses], MOST_OBJECTS)
    volumes = volumes_of([course.stack for course in courses])
    if not objects:
        return Taken(partly(network, tuned, farthest(volumes)), knows=True, judge=base.judge)
    sure = Sure()

    @cache
    def value(way: float, *, knows: bool) -> float:
        acting = _part_of_the_way(base, tuned, way).but(judge=sure, floor_judge=sure)
        kinds = (known[id(walk.stack)] if knows else base.kinds for walk in objects)
        found = [quality_of(acting.but(kinds=of_walk), walk) for of_walk, walk in zip(kinds, objects, strict=True)]
        mean = float(np.mean(found))
        print(f"{way:.0%} of the way, {'with' if knows else 'without'} kinds: {mean:.3f}", file=sys.stderr)
        return mean

    knows = not any(known.values()) or value(0.0, knows=True) >= value(0.0, knows=False)
    way = search(partial(value, knows=knows), volumes)

    def knowing(model: Model, walk: Walk) -> Model:
        return model.but(kinds=known[id(walk.stack)]) if knows else model

    judge = lifted(base, _part_of_the_way(base, tuned, way), objects, knowing) if way else base.judge
    return Taken(partly(network, tuned, way), knows, judge)


def _part_of_the_way(base: Model, tuned: SmallNetwork, way: float) -> Model:
    assert base.network is not None  # `choose` has seen to it
    return base.decoding_with(partly(base.network, tuned, way)) if way else base


def search(value: Callable[[float], float], volumes: int) -> float:
    """How much of the way to take.

    Args:
        value: J&F of passes with so much of it.
        volumes: That were learned from.

    Returns:
        What is best in doubt, unless nothing, half or all of what the volumes allow is better by more than `WORTH`.
    """
    all_of_it = farthest(volumes)
    in_doubt, other = (all_of_it, all_of_it / 2) if volumes >= MANY else (all_of_it / 2, all_of_it)
    best = in_doubt
    for way in (0.0, other):
        if value(way) > value(best) + WORTH:
            best = way
    return best
