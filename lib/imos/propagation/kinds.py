"""Kinds: what objects of labelled volumes look like on all their slices, as a prior for the target model.

A kind is one object of one volume: the logistic regression fitted on several of its slices, as weights and the
curvature of the loss around them (Laplace's approximation). Features are standardised by the slice that was painted,
there as here, so that a kind fits other scanners. No names are asked for: of all kinds of a similar look (likeness.py),
those that tell the painted object from its surroundings nearly as well as the best one pull the regression towards
theirs, and none does where none is good. Liver, then, finds livers; what was never labelled finds something that looks
the same, or nothing (docs/training.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from imos.errors import UserError
from imos.propagation.likeness import Looks
from imos.propagation.logistic import RIDGE, PixelSamples, Pull, curvature, fit_logistic, mean_loss

MOST_LIKE = 6
"""Kinds that pull at most."""
LIKE_ENOUGH = 0.65
"""Nats a pixel on the painted slice above which a kind has no say; knowing nothing costs .69."""
AS_LIKE = 0.15
"""How much worse than the best one a kind may be."""
FARTHEST_LOOK = 0.02
"""Between the looks of two objects of a kind; between sets of images it is mostly more."""
STRENGTH = 3.0
"""What all that pull weigh together, the painted slice weighs 1."""

MOST = 128
"""Kinds that an adapter carries."""

PREFIX = "kinds."
"""Of their entries in adapter files, followed by the number of features."""


class Kind(NamedTuple):
    """One object of one labelled volume.

    Attributes:
        weights: `(F,)` float32.
        precision: `(F, F)` float32.
        look: `(2, C)` float32, its look on its largest slice.
    """

    weights: Tensor
    precision: Tensor
    look: Tensor

    @classmethod
    def of(cls, samples: PixelSamples, look: Looks) -> Kind:
        """The kind of an object.

        Args:
            samples: Of several of its slices, standardised by one of them; a slice weighs as the painted one does,
                divided by their number.
            look: Of its largest slice.
        """
        weights = fit_logistic(samples)
        return cls(weights, curvature(samples, weights), torch.cat([look.means, look.variances]))


def pull_of(samples: PixelSamples, kinds: Sequence[Kind], look: Looks) -> Pull | None:
    """What the kinds that look like a painted object say of its regression.

    Args:
        samples: Of the painted slice.
        kinds: Known objects; those with other features (colour) or of another look are passed over.
        look: Of the painted slice.

    Returns:
        None where none looks like it.
    """
    fitting = [
        kind
        for kind in kinds
        if kind.weights.shape[0] == samples.x.shape[1]
        and float(look.distances(Looks(kind.look[:1], kind.look[1:]))[0]) <= FARTHEST_LOOK
    ]
    if not fitting:
        return None
    losses = mean_loss(samples, torch.stack([kind.weights for kind in fitting]))
    best, order = losses.sort(stable=True)
    limit = min(LIKE_ENOUGH, float(best[0]) + AS_LIKE)
    chosen = [fitting[int(place)] for place, loss in zip(order, best, strict=True) if loss < limit][:MOST_LIKE]
    if not chosen:
        return None
    share = STRENGTH / len(chosen)
    precision = torch.stack([kind.precision for kind in chosen]).sum(0) * share
    # at its weights the gradient of a kind's loss is what the ridge holds against
    linear = torch.stack([kind.precision @ kind.weights + RIDGE * kind.weights for kind in chosen]).sum(0) * share
    return Pull(precision, linear)


def to_tensors(kinds: Sequence[Kind]) -> dict[str, Tensor]:
    """Entries of an adapter file, by number of features F.

    `(N, F)` weights, `(N, F (F + 1) / 2)` upper triangles of the precisions, `(N, 2, C)` looks.
    """
    tensors: dict[str, Tensor] = {}
    for size in sorted({kind.weights.shape[0] for kind in kinds}):
        same = [kind for kind in kinds if kind.weights.shape[0] == size]
        rows, columns = torch.triu_indices(size, size)
        tensors[f"{PREFIX}{size}.weights"] = torch.stack([kind.weights for kind in same])
        tensors[f"{PREFIX}{size}.precision"] = torch.stack([kind.precision[rows, columns] for kind in same])
        tensors[f"{PREFIX}{size}.looks"] = torch.stack([kind.look for kind in same])
    return tensors


def from_tensors(tensors: Mapping[str, Tensor]) -> tuple[Kind, ...]:
    """The kinds in the entries of an adapter file; other entries are passed over.

    Raises:
        UserError: They are of an older version, which did not say what the objects look like.
    """
    found: list[Kind] = []
    for name, weights in tensors.items():
        if not (name.startswith(PREFIX) and name.endswith(".weights")):
            continue
        size = weights.shape[1]
        rows, columns = torch.triu_indices(size, size)
        triangles = tensors[name.replace(".weights", ".precision")]
        looks = tensors.get(name.replace(".weights", ".looks"))
        if looks is None:
            raise UserError("The adapter was made by an older version of iMOS. Fine-tune again.")
        for row, triangle, look in zip(weights, triangles, looks, strict=True):
            precision = torch.zeros(size, size)
            precision[rows, columns] = triangle.float()
            precision[columns, rows] = triangle.float()
            found.append(Kind(row.float(), precision, look.float()))
    return tuple(found)
