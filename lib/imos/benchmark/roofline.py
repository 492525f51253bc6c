"""What the network asks of a machine, and what this machine can do, measured in the same run.

A step can take no less time than its operations at the rate of a large matrix product, nor than its weights and maps at
the rate at which memory is copied. How far the measured time lies above both says how much is left to gain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imos.propagation.model import Model

_PRODUCT = 768
_COPIED = 64 * 2**20
_REPEATS = 9


@dataclass(frozen=True, slots=True)
class Roofline:
    """Of one step of `small`: one object on one slice, without the optical flow.

    Attributes:
        operations: Multiplications and additions of the networks.
        bytes: Of their weights, and of what they take and give.
        rate: Operations a second of one core in a large float32 matrix product.
        bandwidth: Bytes a second, read and written, of one core that copies.
        seconds: What the networks take on one core.
    """

    operations: float
    bytes: float
    rate: float
    bandwidth: float
    seconds: float

    @property
    def bound(self) -> float:
        """Seconds below which this machine cannot come."""
        return max(self.operations / self.rate, self.bytes / self.bandwidth)


def roofline(model: Model) -> Roofline:
    """Count and measure on one core of the processor.

    Args:
        model: Weights of `small`, with a memory network.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from imos.network.small import CUES, HIDDEN, VALUE
    from imos.network.steps import TorchSteps
    from imos.propagation.region import GRID

    assert model.encoder is not None
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        plain = TorchSteps(model.encoder, model.network)
        image, cues = torch.rand(1, 3, GRID, GRID), torch.rand(1, CUES, GRID, GRID)
        side = GRID // 16
        readout, hidden = torch.rand(1, VALUE, side, side), torch.rand(1, HIDDEN, side, side)
        with FlopCounterMode(display=False) as counter:
            encoded = plain.encode(image)
            plain.decode(encoded.maps, readout, hidden, cues)
        weights = sum(p.numel() for module in (model.encoder, model.network) if module for p in module.parameters())
        maps = sum(t.numel() for t in (image, cues, *encoded.finer, *encoded.maps, *encoded.key, readout, hidden))

        def step() -> None:
            model.steps.decode(model.steps.encode(image).maps, readout, hidden, cues)

        a, b = torch.rand(_PRODUCT, _PRODUCT), torch.rand(_PRODUCT, _PRODUCT)
        source = torch.zeros(_COPIED // 4)
        target = torch.empty_like(source)
        product = _time(lambda: torch.mm(a, b))
        copy = _time(lambda: target.copy_(source))
        return Roofline(
            operations=float(counter.get_total_flops()),
            bytes=4.0 * (weights + maps),
            rate=2.0 * _PRODUCT**3 / product,
            bandwidth=2.0 * _COPIED / copy,
            seconds=_time(step),
        )
    finally:
        torch.set_num_threads(threads)


def _time(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(_REPEATS):
        started = perf_counter()
        work()
        times.append(perf_counter() - started)
    return median(times)
