"""The network that passes on the CPU use is the given one, up to rounding, in every part and over sequences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from imos.network.config import NetworkConfig
from imos.network.inference import InferenceCore, InferenceSettings
from imos.network.memory import MemorySettings
from imos.network.quickened import quickened
from imos.network.winograd import WinogradConv2d
from imos.network.xmem import XMem

CLOSE = 1e-4
SETTINGS = InferenceSettings(MemorySettings(top_k=12, max_slices=5, min_slices=3, prototypes=12), memory_every=3)


@pytest.fixture(scope="module")
def quick(imos: XMem) -> XMem:
    return quickened(imos)


def parts(network: XMem, objects: int) -> list[Tensor | None]:
    random = torch.Generator().manual_seed(objects)
    image, masks = torch.randn(1, 3, 48, 64, generator=random), torch.rand(1, objects, 48, 64, generator=random)
    hidden = torch.randn(1, objects, 64, 3, 4, generator=random)
    with torch.inference_mode():
        encoded = network.encode_key(image)
        value, reinforced = network.encode_value(image, encoded.features.f16, hidden, masks)
        decoded = network.segment(encoded.features, hidden, value)
        untouched = network.segment(encoded.features, hidden, value, update_hidden=False)
    assert untouched.hidden is hidden
    return [*encoded[:3], *encoded.features, value, reinforced, decoded.probabilities, decoded.hidden]


@pytest.mark.parametrize("objects", [1, 3])
def test_every_part_says_the_same(imos: XMem, quick: XMem, objects: int) -> None:
    for found, expected in zip(parts(quick, objects), parts(imos, objects), strict=True):
        assert found is not None
        assert expected is not None
        scale = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(found / scale, expected / scale, atol=CLOSE, rtol=0)


def test_a_sequence_through_consolidation_says_the_same(imos: XMem, quick: XMem) -> None:
    random = torch.Generator().manual_seed(5)
    slices = torch.randn(14, 3, 50, 34, generator=random).cumsum(dim=0) / 4
    masks = (torch.rand(2, 50, 34, generator=random) > 0.7).float()
    cores = InferenceCore(imos, SETTINGS), InferenceCore(quick, SETTINGS)
    for index, picture in enumerate(slices):
        expected, found = (core.step(picture, masks if index == 0 else None) for core in cores)
        torch.testing.assert_close(found, expected, atol=CLOSE, rtol=0)
    assert all(core.memory.long_term is not None for core in cores)


def test_the_given_network_stays_what_it_is(imos: XMem) -> None:
    before = {name: tensor.clone() for name, tensor in imos.state_dict().items()}
    quick = quickened(imos)
    assert any(isinstance(module, WinogradConv2d) for module in quick.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in quick.modules())
    after = imos.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all(tensor.is_contiguous() for tensor in after.values())


def test_a_network_without_sensory_memory_can_be_quickened() -> None:
    network = XMem(NetworkConfig(hidden_dim=0)).eval()
    image, masks = torch.randn(1, 3, 32, 32), torch.rand(1, 2, 32, 32)
    found = []
    for one in (network, quickened(network)):
        with torch.inference_mode():
            encoded = one.encode_key(image)
            value, _ = one.encode_value(image, encoded.features.f16, None, masks)
            found.append(one.segment(encoded.features, None, value).probabilities)
    torch.testing.assert_close(found[1], found[0], atol=CLOSE, rtol=0)
