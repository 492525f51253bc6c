"""The network of `small`: a memory network that corrects the untrained floor, in the object's region of interest.

Same family as `xmem`: key encoder (frozen, efficientnet.py), key projection with shrinkage and selection, value
encoder, anisotropic similarity, sensory memory with both update forms, decoder with skips. It differs where that pays:
its decoder also sees cues (the flow-warped previous mask, the previous picture, the target model's score), its output
is a residual to the floor's log odds, so that step 0 equals the floor, and two heads say whether the object is there
and how good the mask is. Group normalisation in all trained parts: batches are small and differ from use.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from imos.network.efficientnet import CHANNELS, Pyramid
from imos.network.sensory import gated_update

KEY, VALUE, HIDDEN = 32, 64, 32
CUES = 5
"""Channels of the cues: picture, warped previous picture, their difference, prior's log odds / 4, score / 4."""

WIDTHS = (16, 32, 48, 96)
"""Decoder channels at strides 2, 4, 8, 16."""


class Decoded(NamedTuple):
    """What the decoder says of one object on one slice.

    Attributes:
        residual: `(B, 1, S, S)` log odds to add to the floor's.
        hidden: `(B, 32, S/16, S/16)` sensory memory after the slice.
        existence: `(B,)` log odds that the object is on this slice.
        quality: `(B,)` log odds of the predicted J.
    """

    residual: Tensor
    hidden: Tensor
    existence: Tensor
    quality: Tensor


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(8, channels)


class Residual(nn.Module):
    """Two 3×3 convolutions with group normalisation, and a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(channels), _norm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        y = self.conv1(functional.relu(self.norm1(x)))
        residual: Tensor = self.conv2(functional.relu(self.norm2(y)))
        return x + residual


class ValueEncoder(nn.Module):
    """Value of one object on one slice, from the picture, its mask and the key encoder's deepest map."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.PixelUnshuffle(2)]
        channels = 2 * 4
        for width in (24, 32, 48):
            layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1), _norm(width), nn.ReLU()]
            channels = width
        self.stem = nn.Sequential(*layers)
        self.merge = nn.Conv2d(48 + CHANNELS[3] + HIDDEN, VALUE, 1)
        self.block = Residual(VALUE)
        self.reinforce = nn.Conv2d(VALUE + HIDDEN, 3 * HIDDEN, 3, padding=1)

    def forward(self, picture: Tensor, mask: Tensor, deep: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Encode.

        Args:
            picture: `(B, 1, S, S)` gray in [-1, 1].
            mask: `(B, 1, S, S)` probability.
            deep: `(B, 112, S/16, S/16)` normalised map of the key encoder.
            hidden: `(B, 32, S/16, S/16)` sensory memory.

        Returns:
            Value `(B, 64, S/16, S/16)`, and the sensory memory after the deep update.
        """
        x = self.stem(torch.cat([picture, 2 * mask - 1], 1))
        value = self.block(self.merge(torch.cat([x, deep, hidden], 1)))
        return value, gated_update(self.reinforce(torch.cat([value, hidden], 1)), hidden)


class SmallNetwork(nn.Module):
    """All trained parts of `small`."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(1, channels) for channels in CHANNELS)
        self.key = nn.Conv2d(CHANNELS[3], KEY, 3, padding=1)
        self.shrinkage = nn.Conv2d(CHANNELS[3], 1, 3, padding=1)
        self.selection = nn.Conv2d(CHANNELS[3], KEY, 3, padding=1)
        self.value_encoder = ValueEncoder()
        w2, w4, w8, w16 = WIDTHS
        self.in16 = nn.Conv2d(CHANNELS[3] + VALUE + HIDDEN + CUES, w16, 1)
        self.block16 = Residual(w16)
        self.up8, self.up4, self.up2 = nn.Conv2d(w16, w8, 1), nn.Conv2d(w8, w4, 1), nn.Conv2d(w4, w2, 1)
        self.skip8 = nn.Conv2d(CHANNELS[2] + CUES, w8, 1)
        self.skip4 = nn.Conv2d(CHANNELS[1] + CUES, w4, 1)
        self.skip2 = nn.Conv2d(CHANNELS[0] + 4 * CUES, w2, 3, padding=1)
        self.block8, self.block4 = Residual(w8), Residual(w4)
        # one convolution: at stride 2 each costs as much as all of the rest
        self.norm2, self.conv2 = _norm(w2), nn.Conv2d(w2, w2, 3, padding=1)
        self.out = nn.Conv2d(w2, 4, 3, padding=1)
        self.update = nn.Conv2d(w16 + HIDDEN, 3 * HIDDEN, 3, padding=1)
        self.heads = nn.Sequential(nn.Linear(2 * w16 + 4, 64), nn.ReLU(), nn.Linear(64, 2))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.get_parameter("bias"))
        nn.init.orthogonal_(self.key.weight)
        nn.init.zeros_(self.key.get_parameter("bias"))

    def normalise(self, pyramid: Pyramid) -> Pyramid:
        """The key encoder's maps, each normalised over its channels and pixels."""
        return Pyramid(*(norm(level) for norm, level in zip(self.norms, pyramid, strict=True)))

    def encode_key(self, deep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Key `(B, 32, h, w)`, shrinkage `(B, 1, h, w)` ≥ 1 and selection `(B, 32, h, w)` of the deepest map."""
        return self.key(deep), self.shrinkage(deep).square() + 1, self.selection(deep).sigmoid()

    def decode(self, pyramid: Pyramid, readout: Tensor, hidden: Tensor, cues: Tensor) -> Decoded:
        """Correct the floor.

        Args:
            pyramid: Normalised maps of the slice.
            readout: `(B, 64, S/16, S/16)` from the memory.
            hidden: `(B, 32, S/16, S/16)` sensory memory.
            cues: `(B, 5, S, S)`, see `CUES`.
        """
        cues4 = functional.avg_pool2d(cues, 4)
        cues8 = functional.avg_pool2d(cues4, 2)
        cues16 = functional.avg_pool2d(cues8, 2)
        x16 = self.block16(self.in16(torch.cat([pyramid.f16, readout, hidden, cues16], 1)))
        x8 = self.block8(_up(self.up8(x16)) + self.skip8(torch.cat([pyramid.f8, cues8], 1)))
        x4 = self.block4(_up(self.up4(x8)) + self.skip4(torch.cat([pyramid.f4, cues4], 1)))
        fine = torch.cat([pyramid.f2, functional.pixel_unshuffle(cues, 2)], 1)
        x2 = _up(self.up2(x4)) + self.skip2(fine)
        x2 = x2 + self.conv2(functional.relu(self.norm2(x2)))
        residual = functional.pixel_shuffle(self.out(functional.relu(x2)), 2)
        after = gated_update(self.update(torch.cat([x16, hidden], 1)), hidden)
        heads = self._judge(x16, cues, residual)
        return Decoded(residual, after, heads[:, 0], heads[:, 1])

    def _judge(self, x16: Tensor, cues: Tensor, residual: Tensor) -> Tensor:
        # float32: four numbers decide where the object ends; and bfloat16 gains nothing on vectors
        with torch.autocast(x16.device.type, enabled=False):
            x16, cues, residual = x16.float(), cues.float(), residual.detach().float()
            prior = functional.avg_pool2d((4 * cues[:, 3:4]).sigmoid(), 16)
            weight = prior / prior.sum((2, 3), keepdim=True).clamp_min(1e-3)
            here = (x16 * weight).sum((2, 3))
            probability = (4 * cues[:, 3] + 1.8 * cues[:, 4] + residual[:, 0]).sigmoid()
            inside = probability.sum((1, 2)).clamp_min(1.0)
            numbers = torch.stack(
                [
                    probability.mean((1, 2)) * 4,
                    (probability * cues[:, 4]).sum((1, 2)) / inside,
                    (probability * (2 * probability - 1).abs()).sum((1, 2)) / inside,
                    probability.amax((1, 2)),
                ],
                1,
            )
            judged: Tensor = self.heads(torch.cat([here, x16.mean((2, 3)), numbers], 1))
        return judged


def _up(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
