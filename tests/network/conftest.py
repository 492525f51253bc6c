"""Reference arrays, and networks with the weights that the reference had when it made them (imos.benchmark.rule)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from imos.benchmark.rule import rule_tensor, uniform_numbers
from imos.network.config import NetworkConfig
from imos.network.weights import for_several_objects, load_strictly
from imos.network.xmem import XMem

FIXTURES = Path(__file__).parent / "fixtures"
Shapes = dict[str, list[int]]


def network_of(tensors: Mapping[str, Tensor]) -> XMem:
    """A network with exactly these weights."""
    with torch.device("meta"):
        network = XMem(NetworkConfig.of_weights(tensors))
    load_strictly(network, tensors, "the rule")
    return network


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """As the reference ran."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def golden() -> dict[str, NDArray[np.generic]]:
    """Every array of the reference, by name."""
    with np.load(FIXTURES / "golden_xmem.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def xmem_keys() -> Shapes:
    """Shape of every entry of XMem's state dict."""
    return dict(json.loads((FIXTURES / "xmem_keys.json").read_text()))


@pytest.fixture(scope="session")
def imos_keys() -> Shapes:
    """Shape of every entry of iMOS's state dict."""
    return dict(json.loads((FIXTURES / "imos_keys.json").read_text()))


@pytest.fixture(scope="session")
def uniform() -> Callable[[str, int], NDArray[np.float64]]:
    """The rule's numbers."""
    return uniform_numbers


@pytest.fixture(scope="session")
def imos_weights(imos_keys: Shapes) -> dict[str, Tensor]:
    """iMOS's state dict."""
    return {name: rule_tensor(name, shape) for name, shape in imos_keys.items()}


@pytest.fixture(scope="session")
def xmem_weights(imos_weights: dict[str, Tensor], xmem_keys: Shapes) -> dict[str, Tensor]:
    """XMem's state dict; the rule gives entries of both networks the same values."""
    return {name: imos_weights[name] for name in xmem_keys}


@pytest.fixture(scope="session")
def single_weights(xmem_weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of XMem's single-object network."""
    name = "value_encoder.conv1.weight"
    return xmem_weights | {name: rule_tensor(name, [64, 4, 7, 7])}


@pytest.fixture(scope="session")
def xmem(xmem_weights: dict[str, Tensor]) -> XMem:
    """The multi-object reference network."""
    return network_of(xmem_weights)


@pytest.fixture(scope="session")
def imos(imos_weights: dict[str, Tensor]) -> XMem:
    """The reference network with adapters."""
    return network_of(imos_weights)


@pytest.fixture(scope="session")
def single(single_weights: dict[str, Tensor]) -> XMem:
    """The single-object reference network, made one for several objects."""
    return network_of(for_several_objects(single_weights))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints how far from the reference every array was."""
    outcomes = ("passed", "failed")
    reports = [report for outcome in outcomes for report in terminalreporter.stats.get(outcome, [])]
    rows = [row for report in reports for name, row in report.user_properties if name == "parity"]
    if not rows:
        return
    terminalreporter.section("largest difference from the reference")
    for name, difference, tolerance, scale in sorted(map(tuple, rows)):
        terminalreporter.write_line(f"{name:32} {difference:9.2e}   tolerance {tolerance:7.0e}   scale {scale:8.3g}")
