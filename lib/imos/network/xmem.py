"""The `xmem` network: XMem, with or without the Conv-Adapters of iMOS.

Entry names of its state dict are those of the official files, which therefore load strictly.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from imos.network.aggregate import aggregate
from imos.network.config import NetworkConfig
from imos.network.decoder import Decoder
from imos.network.encoders import Features, KeyEncoder, KeyProjection, ValueEncoder
from imos.network.resnet import initialise_residual
from imos.network.sensory import HiddenReinforcer, HiddenUpdater

STRIDE = 16  # of keys and values; images are padded to a multiple of it


class EncodedSlice(NamedTuple):
    """What the key encoder says of a slice.

    Attributes:
        key: `(B, C^k, h, w)`.
        shrinkage: `(B, 1, h, w)`, at least 1; used when the slice is remembered.
        selection: `(B, C^k, h, w)` in [0, 1]; used when the slice asks the memory.
        features: Of the decoder and the value encoder.
    """

    key: Tensor
    shrinkage: Tensor
    selection: Tensor
    features: Features


class Segmentation(NamedTuple):
    """What the decoder says of a slice.

    Attributes:
        logits: `(B, K + 1, H, W)`, aggregated, the background first; losses use them.
        probabilities: `(B, K + 1, H, W)`, their softmax.
        hidden: `(B, K, C^h, h, w)`, or None for a network without sensory memory.
    """

    logits: Tensor
    probabilities: Tensor
    hidden: Tensor | None


class XMem(nn.Module):
    """Encoders, key projection and decoder. The memory lives in `InferenceCore`, or in a training step."""

    def __init__(self, config: NetworkConfig | None = None) -> None:
        """Builds the network with the reference's initial weights; no pretrained weights are fetched."""
        super().__init__()
        self.config = config or NetworkConfig()
        self.key_encoder = KeyEncoder(self.config)
        self.value_encoder = ValueEncoder(self.config)
        self.key_proj = KeyProjection(self.config)
        self.decoder = Decoder(self.config)
        if not self.key_proj.key_proj.weight.is_meta:
            self._initialise()
        self.train(False)

    def _initialise(self) -> None:
        for stage in (self.key_encoder, *self._value_stages()):
            initialise_residual(stage)
        # Image channels as in any ResNet; the two mask channels start orthogonal, as when they are appended later
        first = self.value_encoder.conv1
        initialise_residual(nn.Sequential(first))
        with torch.no_grad():
            first.weight[:, 3:] = nn.init.orthogonal_(torch.empty_like(first.weight[:, 3:]).contiguous())
        nn.init.orthogonal_(self.key_proj.key_proj.weight)
        nn.init.zeros_(self.key_proj.key_proj.bias)  # type: ignore[arg-type]
        for module in self.modules():
            if isinstance(module, HiddenUpdater | HiddenReinforcer):
                nn.init.xavier_normal_(module.transform.weight)

    def _value_stages(self) -> tuple[nn.Module, ...]:
        return self.value_encoder.layer1, self.value_encoder.layer2, self.value_encoder.layer3

    def train(self, mode: bool = True) -> Self:
        """Switches to training, but leaves batch norms with their stored statistics, as the method is trained."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.pred.weight.device

    def encode_key(self, image: Tensor) -> EncodedSlice:
        """Encodes slices by themselves: `(B, 3, H, W)`, normalised, H and W multiples of 16."""
        features = self.key_encoder(image)
        key, shrinkage, selection = self.key_proj(features.f16)
        return EncodedSlice(key, shrinkage, selection, features)

    def encode_value(
        self, image: Tensor, f16: Tensor, hidden: Tensor | None, masks: Tensor, *, deep: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Encodes every object of a slice; see `ValueEncoder.forward`."""
        value, hidden = self.value_encoder(image, f16, hidden, masks, deep=deep)
        return value, hidden

    def decode(
        self, features: Features, hidden: Tensor | None, readout: Tensor, *, update_hidden: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Per-object logits `(B, K, H, W)` and the hidden state; see `Decoder.forward`."""
        logits, hidden = self.decoder(features, hidden, readout, update_hidden=update_hidden)
        return logits, hidden

    def segment(
        self,
        features: Features,
        hidden: Tensor | None,
        readout: Tensor,
        *,
        selector: Tensor | None = None,
        update_hidden: bool = True,
    ) -> Segmentation:
        """Decodes every object of a slice and lets them compete.

        Args:
            features: Of the slice.
            hidden: `(B, K, C^h, h, w)`, or None for a network without sensory memory.
            readout: `(B, K, C^v, h, w)`.
            selector: `(B, K)`, 0 for object slots of a batch that hold no object; None if all do.
            update_hidden: Whether to update the hidden state.
        """
        logits, hidden = self.decode(features, hidden, readout, update_hidden=update_hidden)
        probabilities = torch.sigmoid(logits)
        if selector is not None:
            probabilities = probabilities * selector[:, :, None, None]
        return Segmentation(*aggregate(probabilities, dim=1), hidden)

    def new_hidden(self, objects: int, size: tuple[int, int], batch: int = 1) -> Tensor | None:
        """A sensory memory that knows nothing: zeros `(B, K, C^h, h, w)`, or None for a network without one."""
        if self.config.hidden_dim == 0:
            return None
        shape = (batch, objects, self.config.hidden_dim, size[0] // STRIDE, size[1] // STRIDE)
        return torch.zeros(shape, device=self.device)


def with_adapters(network: XMem) -> XMem:
    """The same network with fresh adapters in both encoders, as iMOS starts its training; weights are copied."""
    adapted = XMem(replace(network.config, adapters=True))
    adapted.load_state_dict(adapted.state_dict() | network.state_dict())
    return adapted.to(network.device)
