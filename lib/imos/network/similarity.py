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
    return similarity_of_sides(memory_side(memory_key, shrinkage), query_side(query_key, selection))


def memory_side(key: Tensor, shrinkage: Tensor | None) -> Tensor:
    """What the similarity wants of memory elements, made once when they are remembered.

    `S = s/√C · Σ e·(-k² + 2kq - q²)` is one product of `s/√C · [-k², 2k, -1]` and `[e, e·q, Σ e·q²]`.

    Args:
        key: `(B, C, N)`.
        shrinkage: `(B, 1, N)`; None counts as 1.

    Returns:
        `(B, 2C + 1, N)` float32.
    """
    key = key.float()
    side = torch.cat([-key.square(), 2 * key, key.new_full((key.shape[0], 1, key.shape[2]), -1.0)], dim=1)
    scale = 1 / math.sqrt(key.shape[1])
    return side * (scale if shrinkage is None else shrinkage.float() * scale)


def query_side(key: Tensor, selection: Tensor | None) -> Tensor:
    """What the similarity wants of query elements, `(B, 2C + 1, M)` float32; arguments as of `similarity`."""
    key = key.float()
    if selection is None:
        return torch.cat([torch.ones_like(key), key, key.new_zeros(key.shape[0], 1, key.shape[2])], dim=1)
    weight = selection.float()
    weighted = weight * key
    return torch.cat([weight, weighted, (weighted * key).sum(dim=1, keepdim=True)], dim=1)


def similarity_of_sides(memory: Tensor, query: Tensor) -> Tensor:
    """`similarity` of what `memory_side` and `query_side` gave: `(B, N, M)` float32."""
    with torch.autocast(memory.device.type, enabled=False):
        return memory.transpose(1, 2) @ query


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
