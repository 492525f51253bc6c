"""How much of a fine-tuning is taken, chosen by whole passes over the volumes that it learned from.

Two numbers: how far the weights go from the base to the tuned ones (interpolation as in WiSE-FT), and which share of
the network's correction is added to the floor's log odds. Going nowhere is among the choices, so what comes out is not
worse than the base on those volumes; training sequences of a few slices do not show how errors add up over a pass.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from imos.network.small import SmallNetwork
from imos.propagation.model import Model, Share
from imos.training.passes import Walk, quality_of, walks
from imos.training.volumes import Stack

MOST_OBJECTS = 12
"""Objects walked along for every choice, of which there are up to eight."""
WORTH = 0.04
"""Share of what is missing to a J&F of 1 that a choice must gain on the one before it: a mean over so few objects says
no more."""


class Taken(NamedTuple):
    """A choice.

    Attributes:
        way: Of the way from the base's weights to the tuned ones, 0 to 1.
        share: Of the correction that is added.
    """

    way: float
    share: float


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


def choose(base: Model, tuned: SmallNetwork, stacks: list[Stack]) -> tuple[SmallNetwork, Share]:
    """The network and the share of its correction with the best passes.

    Args:
        base: What was fine-tuned.
        tuned: Its network after that.
        stacks: Labelled, as they are walked in use.

    Returns:
        The network to keep, and the shares; kinds of image that `stacks` do not hold keep the base's share.
    """
    if base.network is None:
        msg = "there is no network to take a share of"
        raise ValueError(msg)
    kinds: dict[str, list[Stack]] = {}
    for stack in stacks:
        kinds.setdefault(_kind(stack), []).append(stack)
    objects = {kind: walks(of_kind, MOST_OBJECTS // len(kinds)) for kind, of_kind in kinds.items()}
    objects = {kind: chosen for kind, chosen in objects.items() if chosen}
    if not objects:
        return tuned, base.share
    network = base.network

    models: dict[float, Model] = {}

    def shares(taken: Taken, kind: str) -> Share:
        if taken.share == getattr(base.share, kind):
            return base.share  # as it is, edges included
        return base.share._replace(**{kind: taken.share}, **({"edges": 0.0} if kind == "volume" else {}))

    def value(taken: Taken, kind: str) -> float:
        if taken.way not in models:
            models[taken.way] = replace(base, network=partly(network, tuned, taken.way))
            models[taken.way].prepare()
        found = _mean(models[taken.way].sharing(shares(taken, kind)), objects[kind])
        print(f"{taken.way:.0%} of the way, {taken.share:.0%} of the correction: {found:.3f}", file=sys.stderr)
        return found

    # the kind with most objects says how far; each kind has its own share
    main = max(objects, key=lambda kind: len(objects[kind]))
    best = _search(lambda taken: value(taken, main), getattr(base.share, main))
    chosen = shares(best, main)
    for kind in objects.keys() - {main}:
        of_kind = {share: value(Taken(best.way, share), kind) for share in (0.0, 0.5, 1.0)}
        of_best = shares(Taken(best.way, max(of_kind, key=lambda share: of_kind[share])), kind)
        chosen = chosen._replace(**{kind: getattr(of_best, kind)})
        if kind == "volume":
            chosen = chosen._replace(edges=of_best.edges)
    return partly(network, tuned, best.way), chosen


def _search(value: Callable[[Taken], float], base_share: float) -> Taken:
    """From coarse to fine; later choices must be better by something to win."""
    best = Taken(0.0, base_share)
    values = {best: value(best)}

    def look(at: Taken) -> None:
        nonlocal best
        if at not in values and 0 <= at.share <= 1:
            values[at] = value(at)
            if values[at] - values[best] > WORTH * (1 - values[best]):
                best = at

    for at in (Taken(1.0, 1.0), Taken(1.0, 0.5), Taken(0.0, 0.0), Taken(0.0, 1.0)):
        look(at)
    for share in (best.share - 0.25, best.share + 0.25):
        look(Taken(best.way, share))
    look(Taken(0.5, best.share or 0.5))
    return best


def _mean(model: Model, objects: list[Walk]) -> float:
    return float(np.mean([quality_of(model, walk) for walk in objects]))


def _kind(stack: Stack) -> str:
    if not stack.is_video:
        return "volume"
    return "colour_video" if stack.slices.ndim == 4 else "gray_video"
