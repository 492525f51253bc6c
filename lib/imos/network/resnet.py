"""Residual stages: the ResNet-50 of the key encoder and the ResNet-18 of the value encoder, both cut after stage 3.

Blocks and entry names are torchvision's; what is ours is the optional adapter in every block. Batch norms never leave
evaluation mode (see `XMem.train`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn

from imos.network.adapters import Adapter


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut. The adapter joins before the shortcut."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int, *, adapter: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = projection(channels, width, stride)
        self.adapter = Adapter(width) if adapter else None

    def forward(self, x: Tensor) -> Tensor:
        """`(B, channels, h, w)` → `(B, width, h/stride, w/stride)`."""
        inner = self.bn1(self.conv1(x)).relu_()
        out: Tensor = self.bn2(self.conv2(inner))
        if self.adapter is not None:
            out = out + self.adapter(inner)
        return out.add_(x if self.downsample is None else self.downsample(x)).relu_()


class Bottleneck(nn.Module):
    """1×1, 3×3 (with the stride), 1×1 and a shortcut. The adapter runs beside the 3×3."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int, *, adapter: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.downsample = projection(channels, width * self.expansion, stride)
        self.adapter = Adapter(width, stride) if adapter else None

    def forward(self, x: Tensor) -> Tensor:
        """`(B, channels, h, w)` → `(B, 4·width, h/stride, w/stride)`."""
        inner = self.bn1(self.conv1(x)).relu_()
        out: Tensor = self.bn2(self.conv2(inner)).relu_()
        if self.adapter is not None:
            out = out + self.adapter(inner)
        out = self.bn3(self.conv3(out))
        return out.add_(x if self.downsample is None else self.downsample(x)).relu_()


def projection(channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """The shortcut of a block that changes width or resolution; None where the input itself is the shortcut."""
    if stride == 1 and channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels))


def residual_stage(
    block: Callable[..., nn.Module], channels: int, widths: tuple[int, int], depth: int, stride: int, *, adapter: bool
) -> nn.Sequential:
    """Residual blocks at one resolution.

    Args:
        block: `BasicBlock` or `Bottleneck`.
        channels: Channels that enter the stage.
        widths: The block's inner width and the channels that leave it.
        depth: Number of blocks.
        stride: Stride of the first block.
        adapter: Whether every block has an adapter.
    """
    width, out_channels = widths
    first = block(channels, width, stride, adapter=adapter)
    rest = [block(out_channels, width, 1, adapter=adapter) for _ in range(depth - 1)]
    return nn.Sequential(first, *rest)


def initialise_residual(encoder: nn.Module) -> None:
    """The usual start of a residual network: convolutions N(0, √(2 / (k²·C_out))), batch norms 1 and 0."""
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            kernel_area = module.kernel_size[0] * module.kernel_size[1]
            nn.init.normal_(module.weight, std=math.sqrt(2 / (kernel_area * module.out_channels)))
