"""Taught: whether a painted object is of a sort that an adapter's decoder was trained on.

A decoder that has learned where the left ventricle ends spoils the right one in the same image: that looks alike, and
ends otherwise (docs/training.md). So the adapter brings the regressions of the objects that it learned from (kinds.py).
What one of them tells from its surroundings nearly as well as a regression of its own does is carried with the tuned
decoder; any other object with the base's. No names are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from imos.propagation.kinds import Kind
from imos.propagation.likeness import beyond_most
from imos.propagation.logistic import PixelSamples, fit_logistic, mean_loss

PREFIX = "taught."
"""Of the entries in adapter files, followed by the number of features."""

LIMIT_OF_ONE = 0.2
"""Misfit up to which an object is of the sort where all that taught is one volume."""
LEAST, MOST = 0.1, 0.4
"""Between which the limit lies that several volumes give."""
FEW = 4
"""Volumes below which it is no more than that of one: so few cannot show how far objects of a sort differ."""


class Taught(NamedTuple):
    """What an adapter's decoder was trained on.

    Attributes:
        weights: By number of features F, `(N, F)` float32: an object's regression each.
        limit: Misfit up to which an object is of their sort, nats a pixel.
    """

    weights: Mapping[int, Tensor]
    limit: float

    @classmethod
    def by(cls, kinds: Sequence[Kind], limit: float) -> Taught:
        """Objects that taught."""
        sizes = sorted({kind.weights.shape[0] for kind in kinds})
        same = {size: [kind.weights for kind in kinds if kind.weights.shape[0] == size] for size in sizes}
        return cls({size: torch.stack(weights) for size, weights in same.items()}, limit)

    def includes(self, painted: PixelSamples) -> bool:
        """Whether a painted object is of their sort.

        Args:
            painted: Its slice as the target model takes it.
        """
        return misfit(painted, self.weights) <= self.limit

    def and_earlier(self, before: Taught, most: int) -> Taught:
        """These, and so many of those that taught an earlier version that there are at most `most` of a size."""
        weights = dict(self.weights)
        for size, old in before.weights.items():
            new = weights.get(size, old[:0])
            chosen = torch.linspace(0, len(old) - 1, min(len(old), max(most - len(new), 0))).round().long()
            weights[size] = torch.cat([new, old[chosen]])
        return Taught(weights, max(self.limit, before.limit))

    def to_tensors(self) -> dict[str, Tensor]:
        """Entries of an adapter file."""
        entries = {f"{PREFIX}{size}": weights.contiguous() for size, weights in self.weights.items()}
        return entries | {f"{PREFIX}limit": torch.tensor([self.limit])}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Taught | None:
        """What the entries of an adapter file say; None where they say nothing."""
        if f"{PREFIX}limit" not in tensors:
            return None
        found = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
        limit = float(found.pop("limit"))
        return cls({int(size): weights.float() for size, weights in found.items()}, limit)


def misfit(painted: PixelSamples, weights: Mapping[int, Tensor]) -> float:
    """How much worse the best of some regressions tells an object from its surroundings than one of its own.

    Args:
        painted: The object's painted slice.
        weights: By number of features.

    Returns:
        Nats a pixel; infinite where none has these features.
    """
    known = weights.get(painted.x.shape[1])
    if known is None or not len(known):
        return float("inf")
    own = fit_logistic(painted)
    losses = mean_loss(painted, torch.cat([own[None], known]))
    return float(losses[1:].min() - losses[0])


def limit_of(volumes: Sequence[tuple[Sequence[Kind], Iterable[PixelSamples]]]) -> float:
    """Up to which misfit an object is of some volumes' sort: a little above that of their own objects to each other.

    Args:
        volumes: Of each its kinds and its objects' painted slices; the limit of one alone is a constant.
    """
    found: list[float] = []
    for number, (_, painted) in enumerate(volumes):
        others = [kind for place, (kinds, _) in enumerate(volumes) if place != number for kind in kinds]
        weights = Taught.by(others, 0.0).weights
        found += [misfit(one, weights) for one in painted]
    most = LIMIT_OF_ONE if len(volumes) < FEW else MOST
    return beyond_most(torch.tensor(found), LEAST, most, LIMIT_OF_ONE)
