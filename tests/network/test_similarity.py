"""Similarity, affinity and readout against the plain formulas, and at their edges."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from imos.network.similarity import affinity, readout, similarity, usage


@pytest.fixture
def tensors() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Memory key, shrinkage, query key, selection."""
    random = torch.Generator().manual_seed(1)
    return (
        torch.randn(2, 8, 20, generator=random),
        1 + torch.rand(2, 1, 20, generator=random),
        torch.randn(2, 8, 5, generator=random),
        torch.rand(2, 8, 5, generator=random),
    )


def by_distance(key: Tensor, shrinkage: Tensor, query: Tensor, selection: Tensor) -> Tensor:
    difference = key[:, :, :, None] - query[:, :, None, :]
    distance = (selection[:, :, None, :] * difference.square()).sum(dim=1)
    return -distance * shrinkage.transpose(1, 2) / key.shape[1] ** 0.5


def test_similarity_is_the_weighted_distance(tensors: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    torch.testing.assert_close(similarity(*tensors), by_distance(*tensors), atol=1e-5, rtol=1e-5)


def test_similarity_without_selection_differs_by_a_constant_per_query(
    tensors: tuple[Tensor, Tensor, Tensor, Tensor],
) -> None:
    key, _, query, selection = tensors
    with_all = similarity(key, None, query, torch.ones_like(selection))
    difference = similarity(key, None, query, None) - with_all
    torch.testing.assert_close(difference, difference[:, :1].expand_as(difference), atol=1e-5, rtol=1e-5)


def test_similarity_is_float32_under_autocast(tensors: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        alike = similarity(*tensors)
    assert alike.dtype == torch.float32
    torch.testing.assert_close(alike, similarity(*tensors))


def test_similarity_of_half_precision_keys_is_computed_in_float32(
    tensors: tuple[Tensor, Tensor, Tensor, Tensor],
) -> None:
    half = tuple(tensor.bfloat16() for tensor in tensors)
    torch.testing.assert_close(similarity(*half), similarity(*(tensor.float() for tensor in half)))


def test_far_queries_still_read() -> None:
    weights = affinity(torch.full((1, 40, 3), -1000.0), top_k=30)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(1, 3))


def test_top_k_keeps_exactly_the_k_most_similar(tensors: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    alike = similarity(*tensors)
    kept = affinity(alike, top_k=4) > 0
    assert (kept.sum(dim=1) == 4).all()
    assert (alike.masked_fill(~kept, torch.inf).amin(dim=1) >= alike.masked_fill(kept, -torch.inf).amax(dim=1)).all()


@pytest.mark.parametrize("top_k", [20, 21, 1000])
def test_top_k_beyond_the_memory_is_the_full_softmax(
    tensors: tuple[Tensor, Tensor, Tensor, Tensor], top_k: int
) -> None:
    alike = similarity(*tensors)
    assert torch.equal(affinity(alike, top_k), affinity(alike))


@pytest.mark.parametrize("top_k", [None, 4])
def test_what_is_not_valid_is_as_if_it_were_not_there(
    tensors: tuple[Tensor, Tensor, Tensor, Tensor], top_k: int | None
) -> None:
    alike = similarity(*tensors)
    valid = torch.arange(20) % 3 == 0
    weights = affinity(alike, top_k, valid)
    assert (weights[:, ~valid] == 0).all()
    torch.testing.assert_close(weights[:, valid], affinity(alike[:, valid], top_k))


@pytest.mark.parametrize("top_k", [None, 4, 50])
def test_nothing_valid_reads_nothing(tensors: tuple[Tensor, Tensor, Tensor, Tensor], top_k: int | None) -> None:
    assert (affinity(similarity(*tensors), top_k, torch.zeros(20, dtype=torch.bool)) == 0).all()


def test_usage_adds_up_to_the_number_of_queries(tensors: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    torch.testing.assert_close(usage(affinity(similarity(*tensors), 4)).sum(dim=1), torch.full((2,), 5.0))


def test_readout_mixes_the_values_of_each_object(tensors: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    value = torch.randn(2, 3, 6, 20, generator=torch.Generator().manual_seed(2))
    weights = affinity(similarity(*tensors), 4)
    torch.testing.assert_close(readout(value, weights), torch.einsum("bkcn,bnm->bkcm", value, weights))


def test_gradients_reach_every_input(tensors: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    inputs = [tensor.clone().requires_grad_() for tensor in tensors]
    value = torch.randn(2, 3, 6, 20, requires_grad=True)
    valid = torch.arange(20) > 2
    readout(value, affinity(similarity(*inputs), 4, valid)).square().sum().backward()
    for tensor in (*inputs, value):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert (tensor.grad != 0).any()
