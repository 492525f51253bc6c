"""The network class: names, adapters, and how it is trained."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from imos.network.adapters import Adapter
from imos.network.config import NetworkConfig
from imos.network.xmem import XMem, with_adapters


@pytest.mark.parametrize(("keys", "adapters"), [("xmem_keys", False), ("imos_keys", True)])
def test_entries_are_those_of_official_files_in_their_order(
    request: pytest.FixtureRequest, keys: str, adapters: bool
) -> None:
    with torch.device("meta"):
        network = XMem(NetworkConfig(adapters=adapters))
    entries = [(name, list(tensor.shape)) for name, tensor in network.state_dict().items()]
    assert entries == list(request.getfixturevalue(keys).items())


def outputs(network: XMem) -> list[Tensor]:
    random = torch.Generator().manual_seed(3)
    image, mask = torch.randn(1, 3, 32, 32, generator=random), torch.rand(1, 2, 32, 32, generator=random)
    with torch.inference_mode():
        encoded = network.encode_key(image)
        value, hidden = network.encode_value(image, encoded.features.f16, network.new_hidden(2, (32, 32)), mask)
        result = network.segment(encoded.features, hidden, value)
    assert hidden is not None
    assert result.hidden is not None
    return [encoded.key, encoded.shrinkage, encoded.selection, value, hidden, result.probabilities, result.hidden]


def close_gates(network: XMem) -> None:
    for module in network.modules():
        if isinstance(module, Adapter):
            nn.init.zeros_(module.gate)


def test_adapters_with_closed_gates_are_the_plain_network(xmem: XMem) -> None:
    adapted = with_adapters(xmem)
    open_outputs = outputs(adapted)
    close_gates(adapted)
    for ours, plain, opened in zip(outputs(adapted), outputs(xmem), open_outputs, strict=True):
        assert torch.equal(ours, plain)
        assert not torch.equal(opened, plain)


def test_every_block_of_both_encoders_has_an_adapter(imos: XMem) -> None:
    count: Callable[[nn.Module], int] = lambda part: sum(isinstance(m, Adapter) for m in part.modules())  # noqa: E731
    assert (count(imos.key_encoder), count(imos.value_encoder)) == (13, 6)


def test_training_leaves_batch_norm_statistics_alone(imos_weights: dict[str, Tensor], imos: XMem) -> None:
    try:
        imos.train()
        assert imos.training
        outputs(imos)
        for name, tensor in imos.state_dict().items():
            assert torch.equal(tensor, imos_weights[name]), name
    finally:
        imos.eval()


def test_slots_without_an_object_stay_empty(xmem: XMem) -> None:
    random = torch.Generator().manual_seed(4)
    with torch.inference_mode():
        encoded = xmem.encode_key(torch.randn(1, 3, 32, 32, generator=random))
        readout = torch.randn(1, 2, 512, 2, 2, generator=random)
        result = xmem.segment(
            encoded.features, xmem.new_hidden(2, (32, 32)), readout, selector=torch.tensor([[1.0, 0.0]])
        )
    assert (result.probabilities[:, 2] < 1e-6).all()


def test_fresh_network_starts_as_the_method_says() -> None:
    torch.manual_seed(0)
    network = XMem(NetworkConfig(adapters=True))
    assert not network.key_proj.key_proj.bias.any()
    rows = network.key_proj.key_proj.weight.flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(64), atol=1e-5, rtol=0)
    gates = {float(module.gate.detach()) for module in network.modules() if isinstance(module, Adapter)}
    assert max(abs(gate - 0.02) for gate in gates) < 1e-8
    weight = network.key_encoder.layer3[0].conv2.weight
    assert float(weight.detach().std()) == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01)
    assert all(tensor.isfinite().all() for tensor in outputs(network))


def test_one_training_step_gives_finite_gradients() -> None:
    torch.manual_seed(0)
    network = XMem(NetworkConfig(adapters=True)).train()
    image, mask = torch.randn(1, 3, 32, 32), torch.rand(1, 1, 32, 32)
    encoded = network.encode_key(image)
    value, hidden = network.encode_value(image, encoded.features.f16, network.new_hidden(1, (32, 32)), mask)
    result = network.segment(encoded.features, hidden, value)
    assert result.hidden is not None
    (result.logits.square().mean() + result.hidden.square().mean()).backward()
    for name, parameter in network.named_parameters():
        if name.startswith(("key_proj.key_proj", "key_proj.d_proj", "key_proj.e_proj")):
            continue  # only the similarity uses them
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
