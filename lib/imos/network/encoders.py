"""The two encoders: what a slice looks like (key encoder), and what an object on it looks like (value encoder)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from imos.network.blocks import FeatureFusion, fold_objects, for_every_object, unfold_objects
from imos.network.config import NetworkConfig
from imos.network.resnet import BasicBlock, Bottleneck, residual_stage
from imos.network.sensory import HiddenReinforcer

IMAGE_CHANNELS = 1024  # of the key encoder at stride 16


class Features(NamedTuple):
    """The key encoder's features of a slice at strides 16, 8 and 4: `(B, 1024 | 512 | 256, ·, ·)`."""

    f16: Tensor
    f8: Tensor
    f4: Tensor


class KeyEncoder(nn.Module):
    """ResNet-50 up to stride 16, on the image alone."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        adapter = config.adapters
        self.res2 = residual_stage(Bottleneck, 64, (64, 256), depth=3, stride=1, adapter=adapter)
        self.layer2 = residual_stage(Bottleneck, 256, (128, 512), depth=4, stride=2, adapter=adapter)
        self.layer3 = residual_stage(Bottleneck, 512, (256, IMAGE_CHANNELS), depth=6, stride=2, adapter=adapter)

    def forward(self, image: Tensor) -> Features:
        """`(B, 3, H, W)`, normalised, H and W multiples of 16."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(image))))
        f4 = self.res2(x)
        f8 = self.layer2(f4)
        return Features(self.layer3(f8), f8, f4)


class KeyProjection(nn.Module):
    """Key, shrinkage and selection of a slice from its features."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.key_proj = nn.Conv2d(IMAGE_CHANNELS, config.key_dim, 3, padding=1)
        self.d_proj = nn.Conv2d(IMAGE_CHANNELS, 1, 3, padding=1)
        self.e_proj = nn.Conv2d(IMAGE_CHANNELS, config.key_dim, 3, padding=1)

    def forward(self, f16: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Projects `(B, 1024, h, w)`.

        Returns:
            Key `(B, C^k, h, w)`, shrinkage `(B, 1, h, w)` at least 1, selection `(B, C^k, h, w)` in [0, 1].
        """
        return self.key_proj(f16), self.d_proj(f16).square() + 1, torch.sigmoid(self.e_proj(f16))


class ValueEncoder(nn.Module):
    """ResNet-18 up to stride 16, one pass an object, on the image, the object's mask and the sum of all other masks.

    Attributes:
        at_once: Objects that are encoded together up to the fusion; None: all.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.at_once: int | None = None
        self.conv1 = nn.Conv2d(3 + 2, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        adapter = config.adapters
        self.layer1 = residual_stage(BasicBlock, 64, (64, 64), depth=2, stride=1, adapter=adapter)
        self.layer2 = residual_stage(BasicBlock, 64, (128, 128), depth=2, stride=2, adapter=adapter)
        self.layer3 = residual_stage(BasicBlock, 128, (256, 256), depth=2, stride=2, adapter=adapter)
        self.fuser = FeatureFusion(IMAGE_CHANNELS, 256, config.value_dim, config.value_dim)
        self.hidden_reinforce = HiddenReinforcer(config.value_dim, config.hidden_dim) if config.hidden_dim > 0 else None

    def forward(
        self, image: Tensor, f16: Tensor, hidden: Tensor | None, masks: Tensor, *, deep: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Encodes every object of a slice.

        Args:
            image: `(B, 3, H, W)`, normalised.
            f16: `(B, 1024, h, w)`, the key encoder's features of the same slice.
            hidden: `(B, K, C^h, h, w)`, or None for a network without sensory memory.
            masks: `(B, K, H, W)` in [0, 1].
            deep: Whether to update the hidden state.

        Returns:
            The value, `(B, K, C^v, h, w)`, and the hidden state, as it came if `deep` is False.
        """
        count = masks.shape[1]
        others = masks.sum(dim=1, keepdim=True) - masks if count > 1 else torch.zeros_like(masks)
        seen = torch.cat([for_every_object(image, count), masks.unsqueeze(2), others.unsqueeze(2)], dim=2)
        folded = fold_objects(seen)
        x = torch.cat([self._encode(some) for some in folded.split(self.at_once or len(folded))])
        value = self.fuser(f16, unfold_objects(x, count))
        if deep and hidden is not None and self.hidden_reinforce is not None:
            hidden = self.hidden_reinforce(value, hidden)
        return value, hidden

    def _encode(self, seen: Tensor) -> Tensor:
        """`(n, 5, H, W)` → `(n, 256, h, w)`."""
        # Pooling comes before the activation here, unlike in the key encoder
        x = torch.relu(self.maxpool(self.bn1(self.conv1(seen))))
        deep: Tensor = self.layer3(self.layer2(self.layer1(x)))
        return deep
