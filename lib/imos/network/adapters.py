"""Conv-Adapters: what iMOS adds to every residual block of both encoders and trains while the block stays frozen.

"Conv. Parallel" of Conv-Adapter as iMOS builds it: a dense 3×3 bottleneck of a quarter of the width, beside the
block's own 3×3 convolution. It ends in ReLU × gate, so that it starts with a small non-negative contribution
and gate 0 gives back the plain network exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

COMPRESSION = 4
INITIAL_GATE = 0.02


class Adapter(nn.Module):
    """A bottleneck beside a 3×3 convolution of the same width.

    Args:
        width: Channels in and out.
        stride: Stride of the convolution that it runs beside.
    """

    def __init__(self, width: int, stride: int = 1) -> None:
        super().__init__()
        narrow = width // COMPRESSION
        self.gate = nn.Parameter(torch.full((1,), INITIAL_GATE))
        self.conv = nn.Conv2d(width, narrow, 3, stride=stride, padding=1)
        self.bn1 = nn.BatchNorm2d(narrow)
        self.convT = nn.ConvTranspose2d(narrow, width, 3, stride=1, padding=1)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, width, h, w)` → `(B, width, h/stride, w/stride)`, to be added to the block's own path."""
        x = torch.relu(self.bn1(self.conv(x)))
        return torch.relu(self.bn2(self.convT(x))) * self.gate
