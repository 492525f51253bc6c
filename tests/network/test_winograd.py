"""Winograd's convolution is PyTorch's, whatever the size, the batch, the memory format and the bands it is made in."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from imos.network import winograd
from imos.network.winograd import WinogradConv2d


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 4),
    channels=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 23), st.integers(1, 23)),
    at_once=st.integers(1, 60),
    activated=st.booleans(),
    bias=st.booleans(),
    last=st.booleans(),
)
def test_it_is_the_convolution(
    batch: int,
    channels: tuple[int, int],
    size: tuple[int, int],
    at_once: int,
    activated: bool,
    bias: bool,
    last: bool,
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(*channels, 3, padding=1, bias=bias)
    x = torch.randn(batch, channels[0], *size)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(winograd, "AT_ONCE", at_once)
        found = WinogradConv2d(conv)(x, activated=activated)
        expected = conv(functional.relu(x) if activated else x)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


def test_it_leaves_its_input_and_its_convolution_alone() -> None:
    conv = nn.Conv2d(4, 4, 3, padding=1)
    x, weight = torch.randn(1, 4, 9, 9), conv.weight.detach().clone()
    before = x.clone()
    with torch.inference_mode():
        WinogradConv2d(conv)(x, activated=True)
    assert torch.equal(x, before)
    assert torch.equal(conv.weight, weight)
