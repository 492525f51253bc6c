"""Likeness: whether a painted object looks like something that an adapter has learned from.

An adapter makes passes better on images like those it was trained on and spoils others (docs/training.md). So it comes
with the looks of what it has seen, and only who looks like that is carried with it; everything else is carried by the
base, as if there were no adapter.

A look is the mean and the variance of each of the key encoder's finer maps over the region around a painted object. Two
looks are compared as normal distributions, channel by channel (Bhattacharyya's distance, mean over the channels), which
has no unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from imos.network.efficientnet import CHANNELS

MAPS = sum(CHANNELS[:3])
"""Channels of the key encoder's finer maps, C."""

PREFIX = "seen."
"""Of the entries in adapter files."""

MOST = 1024
"""Looks that an adapter carries."""

REACH_OF_ONE = 0.008
"""Distance up to which something is alike where all that was seen is one volume."""
NEAREST, FARTHEST = 0.006, 0.012
"""Between which the reach lies that several volumes give."""
BEYOND = 1.2
"""How much farther than nine tenths of the volumes' own objects lie from those of the others."""

_FLOOR = 1e-3


class Looks(NamedTuple):
    """What painted objects look like.

    Attributes:
        means: `(N, C)` float32.
        variances: `(N, C)` float32.
    """

    means: Tensor
    variances: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Looks:
        """The look of a region.

        Args:
            features: `(F, P)` of its pixels (target.py); the encoder's maps are the last ones.
        """
        deviation, mean = torch.std_mean(features[-MAPS:], 1, correction=0)
        return cls(mean[None], (deviation[None] + _FLOOR) ** 2)

    @classmethod
    def together(cls, looks: Sequence[Looks]) -> Looks:
        """Several as one; of none, an empty one."""
        empty = torch.zeros(0, MAPS)
        return cls(*(torch.cat([empty, *(one[place] for one in looks)]) for place in (0, 1)))

    def thinned(self, most: int) -> Looks:
        """At most so many, spread evenly."""
        count = self.means.shape[0]
        chosen = torch.linspace(0, count - 1, min(most, count)).round().long()
        return Looks(self.means[chosen], self.variances[chosen])

    def distances(self, others: Looks) -> Tensor:
        """`(M,)` from each of the others to the nearest of these; infinite where these are none."""
        found = [
            self._to(mean, variance).min() if self.means.shape[0] else torch.tensor(torch.inf)
            for mean, variance in zip(*others, strict=True)
        ]
        return torch.stack(found) if found else torch.zeros(0)

    def _to(self, mean: Tensor, variance: Tensor) -> Tensor:
        both = self.variances + variance
        apart = (self.means - mean) ** 2 / (4 * both) + 0.5 * torch.log(both / (2 * (self.variances * variance).sqrt()))
        return apart.mean(1)


class Seen(NamedTuple):
    """What an adapter has learned from.

    Attributes:
        looks: Of its objects, several slices each.
        reach: Distance up to which something is alike.
    """

    looks: Looks
    reach: float

    def includes(self, features: Tensor) -> bool:
        """Whether a painted region looks like it.

        Args:
            features: `(F, P)` of its pixels.
        """
        return float(self.looks.distances(Looks.of(features))[0]) <= self.reach

    def to_tensors(self) -> dict[str, Tensor]:
        """Entries of an adapter file."""
        means, variances = (tensor.contiguous() for tensor in self.looks)
        return {f"{PREFIX}means": means, f"{PREFIX}variances": variances, f"{PREFIX}reach": torch.tensor([self.reach])}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Seen | None:
        """What the entries of an adapter file say; None where they say nothing."""
        if f"{PREFIX}reach" not in tensors:
            return None
        looks = Looks(tensors[f"{PREFIX}means"].float(), tensors[f"{PREFIX}variances"].float())
        return cls(looks, float(tensors[f"{PREFIX}reach"]))


class Volume(NamedTuple):
    """Looks of one volume's objects.

    Attributes:
        painted: On their largest slices, which is where people paint.
        all: On several slices each.
    """

    painted: Looks
    all: Looks


def reach_of(volumes: Sequence[Volume]) -> float:
    """How far something may be from volumes to be one of them: a little farther than they are from each other.

    Args:
        volumes: At least two; the reach of one alone is a constant.
    """
    apart = [
        Looks.together([other.all for other in volumes if other is not one]).distances(one.painted) for one in volumes
    ]
    return beyond_most(torch.cat(apart) if apart else torch.zeros(0), NEAREST, FARTHEST, REACH_OF_ONE)


def beyond_most(values: Tensor, least: float, most: float, of_none: float) -> float:
    """A limit that a little more than nine tenths of some values keep.

    Args:
        values: Those that are not finite say nothing.
        least: The limit is no less.
        most: And no more.
        of_none: Where no value says anything.
    """
    values = values[values.isfinite()]
    return min(max(BEYOND * float(values.quantile(0.9)), least), most) if values.numel() else of_none
