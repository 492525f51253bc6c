"""Similarity, affinity, readout: how a query slice finds its values in the memory.

Every memory element has a key and a shrinkage, every query element a key and a selection (XMem, section 3.2). Their
anisotropic L2 similarity, made a distribution over the memory for each query element, is the affinity; the
memory's values mixed by the affinity are the readout. All functions are differentiable and serve training too.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def similarity(memory_key: Tensor, shrinkage: Tensor | None, query_key: Tensor, selection: Tensor | None) -> Tensor:
    """Anisotropic L2 similarity of every memory element with every query element (XMem, eq. 2).

    Args:
        memory_key: `(B, C, N)`.
        shrinkage: `(B, 1, N)`, at least 1; large values make an element answer only near matches. None counts as 1.
        query_key: `(B, C, M)`.
        selection: `(B, C, M)` in [0, 1]; how much each channel counts for this query. None counts every channel
            fully and leaves out the query's own square, which no softmax over the memory would see.

    Returns:
        `(B, N, M)`, at most 0 up to rounding (any sign without selection). Computed in float32 whatever the input:
        the expanded square cancels badly in bfloat16.
    """
    with torch.autocast(memory_key.device.type, enabled=False):
        key, query = memory_key.float().transpose(1, 2), query_key.float()
        if selection is None:
            expanded = 2 * (key @ query) - key.square().sum(dim=2, keepdim=True)
        else:
            weight = selection.float()
            # One product instead of two: [-k², 2k] · [e, q·e]
            memory_side = torch.cat([-key.square(), 2 * key], dim=2)
            query_side = torch.cat([weight, weight * query], dim=1)
            own_square = (weight * query.square()).sum(dim=1, keepdim=True)
            expanded = memory_side @ query_side - own_square
        scale = 1 / math.sqrt(memory_key.shape[1])
        if shrinkage is None:
            return expanded * scale
        return expanded * (shrinkage.float() * scale).transpose(1, 2)


def affinity(similarities: Tensor, top_k: int | None = None, valid: Tensor | None = None) -> Tensor:
    """A distribution over the memory for every query element: the softmax of the similarities.

    Args:
        similarities: `(B, N, M)`.
        top_k: Keep the k most similar memory elements of each query and give all others exactly 0; more than there
            are counts as all. None keeps all.
        valid: `(B, N)` or `(N,)` bool; elements that may be read. A query without any valid element reads nothing.

    Returns:
        `(B, N, M)`, each column summing to 1 (to 0 where nothing is valid).
    """
    lowest = torch.finfo(similarities.dtype).min
    if valid is not None:
        similarities = similarities.masked_fill(~valid.unsqueeze(-1), lowest)
    if top_k is None or top_k >= similarities.shape[1]:
        # torch's softmax subtracts the maximum, so that far queries do not end in 0/0
        weights = similarities.softmax(dim=1)
        return weights if valid is None else weights.masked_fill(~valid.unsqueeze(-1), 0)
    best, index = similarities.topk(top_k, dim=1)
    weights = best.softmax(dim=1)
    if valid is not None:
        weights = weights.masked_fill(best == lowest, 0)
    return torch.zeros_like(similarities).scatter(1, index, weights)


def usage(affinities: Tensor) -> Tensor:
    """How much each memory element was read by all queries together.

    Args:
        affinities: `(B, N, M)`.

    Returns:
        `(B, N)`, at least 0.
    """
    return affinities.sum(dim=2)


def readout(value: Tensor, affinities: Tensor) -> Tensor:
    """The memory's values mixed by the affinity.

    Args:
        value: `(B, K, C, N)`, values of K objects.
        affinities: `(B, N, M)`, shared by all objects.

    Returns:
        `(B, K, C, M)` in the type of `value`.
    """
    batch, objects, channels, elements = value.shape
    mixed = value.reshape(batch, objects * channels, elements) @ affinities.to(value.dtype)
    return mixed.reshape(batch, objects, channels, -1)
