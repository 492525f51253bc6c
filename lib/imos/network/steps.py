"""What one step of a pass asks of the networks of `small`, and how PyTorch answers.

A pass encodes a picture, decodes it with what the memory says, and now and then encodes a value. These three functions
are all that runs for every slice, so that something faster than PyTorch can take their place (compiled.py).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from imos.network.efficientnet import EfficientNetLite0, Finer
from imos.network.small import Decoded, Maps, SmallNetwork


class Key(NamedTuple):
    """A slice as the memory is asked about it: `key` (B, 32, h, w), `shrinkage` (B, 1, …), `selection` (B, 32, …)."""

    key: Tensor
    shrinkage: Tensor
    selection: Tensor


class Encoded(NamedTuple):
    """What a picture gives.

    Attributes:
        finer: The key encoder's finer maps as they are, for the target model.
        maps: All but the finest, normalised.
        key: Of the deepest one.
    """

    finer: Finer
    maps: Maps
    key: Key


class Steps(Protocol):
    """The networks of `small`, on one device, with the weights that they had when this was made."""

    def prepare(self, *, corrects: bool) -> None:
        """Do now what would make the first slice late; `corrects`: for passes with the memory network."""

    def finer(self, image: Tensor) -> Finer:
        """The first of `encode`'s results alone: all that the floor needs."""

    def encode(self, image: Tensor) -> Encoded:
        """Encode a picture, `(1, 3, S, S)` in [0, 1]."""

    def decode(self, maps: Maps, readout: Tensor, hidden: Tensor, cues: Tensor) -> Decoded:
        """Correct the floor, see `SmallNetwork.decode`."""

    def value(self, picture: Tensor, mask: Tensor, deep: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Encode one object on one slice, see `ValueEncoder`."""


class TorchSteps(nn.Module):
    """By PyTorch.

    Args:
        encoder: Frozen key encoder.
        network: Memory network; None for the floor alone.
    """

    def __init__(self, encoder: EfficientNetLite0, network: SmallNetwork | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.network = network

    def prepare(self, *, corrects: bool) -> None:
        """Nothing: PyTorch starts at once."""

    @torch.no_grad()
    def finer(self, image: Tensor) -> Finer:
        """See `Steps`."""
        return self.encoder.forward(image.to(self._device), depth=3).finer

    @torch.no_grad()
    def encode(self, image: Tensor) -> Encoded:
        """See `Steps`."""
        network = self._trained()
        pyramid = self.encoder.forward(image.to(self._device))
        maps = network.normalise(*pyramid[1:])
        return Encoded(pyramid.finer, maps, Key(*network.encode_key(maps.f16)))

    @torch.no_grad()
    def decode(self, maps: Maps, readout: Tensor, hidden: Tensor, cues: Tensor) -> Decoded:
        """See `Steps`."""
        return self._trained().decode(maps, readout, hidden, cues.to(self._device))

    @torch.no_grad()
    def value(self, picture: Tensor, mask: Tensor, deep: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """See `Steps`."""
        encoder = self._trained().value_encoder
        return encoder.forward(picture.to(self._device), mask.to(self._device), deep, hidden)

    @property
    def _device(self) -> torch.device:
        return self.encoder.stem.weight.device

    def _trained(self) -> SmallNetwork:
        if self.network is None:
            msg = "these weights hold no memory network"
            raise ValueError(msg)
        return self.network
