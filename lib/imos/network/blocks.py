"""Blocks that work on every object at once: group residual block, CBAM, feature fusion.

A tensor with an object axis is `(B, K, C, h, w)`. Objects share all weights, so blocks fold the object axis into
the batch; `fold_objects` and `unfold_objects` are the only places that do.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def fold_objects(x: Tensor) -> Tensor:
    """`(B, K, C, h, w)` → `(B·K, C, h, w)`."""
    return x.flatten(0, 1)


def unfold_objects(x: Tensor, objects: int) -> Tensor:
    """`(B·K, C, h, w)` → `(B, K, C, h, w)`."""
    return x.reshape(-1, objects, *x.shape[1:])


def for_every_object(x: Tensor, objects: int) -> Tensor:
    """Repeats what all objects share, without a copy: `(B, C, h, w)` → `(B, K, C, h, w)`."""
    return x.unsqueeze(1).expand(-1, objects, -1, -1, -1)


class GroupResidualBlock(nn.Module):
    """Two activated 3×3 convolutions and a shortcut, without norms: `(B, in, h, w)` → `(B, out, h, w)`."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        same = in_channels == out_channels
        self.downsample = None if same else nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """The shortcut takes `x` as it is, not activated."""
        out: Tensor = self.conv2(torch.relu(self.conv1(torch.relu(x))))
        return out + (x if self.downsample is None else self.downsample(x))


class ChannelGate(nn.Module):
    """Weighs each channel by what it holds on average and at most."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels, channels // reduction),
            nn.ReLU(),
            nn.Linear(channels // reduction, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, h, w)` → the same, gated."""
        gate = self.mlp(x.mean(dim=(2, 3))) + self.mlp(x.amax(dim=(2, 3)))
        return x * torch.sigmoid(gate)[:, :, None, None]


class SpatialGate(nn.Module):
    """Weighs each place by its largest and its mean channel."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.ModuleDict({"conv": nn.Conv2d(2, 1, 7, padding=3)})

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, h, w)` → the same, gated."""
        pooled = torch.cat([x.amax(dim=1, keepdim=True), x.mean(dim=1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.spatial["conv"](pooled))


class CBAM(nn.Module):
    """Convolutional block attention: channels first, then places."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.ChannelGate = ChannelGate(channels, reduction)
        self.SpatialGate = SpatialGate()

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, h, w)` → the same, gated twice."""
        gated: Tensor = self.SpatialGate(self.ChannelGate(x))
        return gated


class FeatureFusion(nn.Module):
    """Joins what the image shows with what is known of each object."""

    def __init__(self, image_channels: int, object_channels: int, mid_channels: int, out_channels: int) -> None:
        super().__init__()
        self.block1 = GroupResidualBlock(image_channels + object_channels, mid_channels)
        self.attention = CBAM(mid_channels)
        self.block2 = GroupResidualBlock(mid_channels, out_channels)

    def forward(self, image: Tensor, objects: Tensor) -> Tensor:
        """`(B, C_image, h, w)` and `(B, K, C_object, h, w)` → `(B, K, out, h, w)`."""
        count = objects.shape[1]
        joined = fold_objects(torch.cat([for_every_object(image, count), objects], dim=2))
        fused = self.block1(joined)
        return unfold_objects(self.block2(fused + self.attention(fused)), count)
