"""The network of `small`: a memory network that corrects the untrained floor, in the object's region of interest.

Same family as `xmem`: key encoder (frozen, efficientnet.py), key projection with shrinkage and selection, value
encoder, anisotropic similarity, sensory memory with both update forms, decoder with skips. It differs where that pays:
its decoder also sees cues (the flow-warped previous mask, the previous picture, the target model's score), its output
is a residual to the floor's log odds, so that step 0 equals the floor, and two heads say whether the object is there
and how good the mask is. Group normalisation in all trained parts: batches are small and differ from use.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from imos.network.adapters import Adapter
from imos.network.efficientnet import CHANNELS
from imos.network.sensory import gated_update

KEY, VALUE, HIDDEN = 32, 64, 32
CUES = 7
"""Channels of the cues: picture, warped previous picture, their difference, prior's log odds / 4, score / 4, painted
picture, painted mask in [-1, 1]."""
PRIOR, SCORE = 3, 4
"""Places of the floor's two parts among the cues, both divided by 4."""

WIDTHS = (40, 56, 96)
"""Decoder channels at strides 4, 8, 16."""

PATCH = 4
"""The decoder's finest stride: cues enter it, and log odds leave it, as patches of 4×4 grid pixels."""


class Maps(NamedTuple):
    """Normalised maps of the key encoder: `f4` (B, 24, S/4, S/4), `f8` (B, 40, …), `f16` (B, 112, …)."""

    f4: Tensor
    f8: Tensor
    f16: Tensor


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
    """Two 3×3 convolutions with group normalisation, and a shortcut; an adapter beside the second one if wanted."""

    def __init__(self, channels: int, *, adapter: bool = False) -> None:
        super().__init__()
        self.adapter = Adapter(channels) if adapter else None
        self.norm1, self.norm2 = _norm(channels), _norm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        y = functional.relu(self.norm2(self.conv1(functional.relu(self.norm1(x)))))
        residual: Tensor = self.conv2(y)
        if self.adapter is not None:
            residual = residual + self.adapter(y)
        return x + residual


class ValueEncoder(nn.Module):
    """Value of one object on one slice, from the picture, its mask and the key encoder's deepest map."""

    def __init__(self) -> None:
        super().__init__()
        channels = 2 * PATCH * PATCH
        layers: list[nn.Module] = [nn.PixelUnshuffle(PATCH), nn.Conv2d(channels, 32, 1), _norm(32), nn.ReLU()]
        channels = 32
        for width in (48, VALUE):
            layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1), _norm(width), nn.ReLU()]
            channels = width
        self.stem = nn.Sequential(*layers)
        self.merge = nn.Conv2d(VALUE + CHANNELS[3] + HIDDEN, VALUE, 1)
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
    """All trained parts of `small`.

    Args:
        adapters: With Conv-Adapters in the decoder's two finer blocks. The encoders have none: what they give is made
            once an image, whatever adapters are loaded, and is the target model's too; nor has the coarsest block, of
            which the heads judge.
    """

    def __init__(self, *, adapters: bool = False) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(1, channels) for channels in CHANNELS[1:])
        self.key = nn.Conv2d(CHANNELS[3], KEY, 3, padding=1)
        self.shrinkage = nn.Conv2d(CHANNELS[3], 1, 3, padding=1)
        self.selection = nn.Conv2d(CHANNELS[3], KEY, 3, padding=1)
        self.value_encoder = ValueEncoder()
        w4, w8, w16 = WIDTHS
        self.in16 = nn.Conv2d(CHANNELS[3] + VALUE + HIDDEN + CUES, w16, 1)
        self.block16 = Residual(w16)
        self.up8, self.up4 = nn.Conv2d(w16, w8, 1), nn.Conv2d(w8, w4, 1)
        self.skip8 = nn.Conv2d(CHANNELS[2] + CUES, w8, 1)
        self.skip4 = nn.Conv2d(CHANNELS[1] + CUES * PATCH * PATCH, w4, 1)
        self.block8, self.block4 = Residual(w8, adapter=adapters), Residual(w4, adapter=adapters)
        self.norm4 = _norm(w4)
        self.out = nn.Conv2d(w4, PATCH * PATCH + 2, 3, padding=1)
        self.update = nn.Conv2d(w16 + HIDDEN, 3 * HIDDEN, 3, padding=1)
        self.heads = nn.Sequential(nn.Linear(2 * w16 + 4, 64), nn.ReLU(), nn.Linear(64, 2))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.get_parameter("bias"))
        nn.init.orthogonal_(self.key.weight)
        nn.init.zeros_(self.key.get_parameter("bias"))

    def normalise(self, f4: Tensor, f8: Tensor, f16: Tensor) -> Maps:
        """The key encoder's maps at strides 4, 8, 16, each normalised over its channels and pixels."""
        return Maps(*(norm(level) for norm, level in zip(self.norms, (f4, f8, f16), strict=True)))

    def train(self, mode: bool = True) -> SmallNetwork:
        """Training mode, in which the adapters' batch norms stay as they are, as in iMOS."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, Adapter):
                module.eval()
        return self

    def encode_key(self, deep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Key `(B, 32, h, w)`, shrinkage `(B, 1, h, w)` ≥ 1 and selection `(B, 32, h, w)` of the deepest map."""
        return self.key(deep), self.shrinkage(deep).square() + 1, self.selection(deep).sigmoid()

    def decode(self, maps: Maps, readout: Tensor, hidden: Tensor, cues: Tensor) -> Decoded:
        """Correct the floor.

        The last convolution says, for every patch, how much more or less to trust the floor's two parts, and for every
        grid pixel what else to add. Zero weights there leave the floor as it is.

        Args:
            maps: Of the slice, normalised.
            readout: `(B, 64, S/16, S/16)` from the memory.
            hidden: `(B, 32, S/16, S/16)` sensory memory.
            cues: `(B, 7, S, S)`, see `CUES`.
        """
        patches = functional.pixel_unshuffle(cues, PATCH)
        cues4 = functional.avg_pool2d(cues, PATCH)
        cues8 = functional.avg_pool2d(cues4, 2)
        cues16 = functional.avg_pool2d(cues8, 2)
        x16 = self.block16(self.in16(torch.cat([maps.f16, readout, hidden, cues16], 1)))
        x8 = self.block8(_up(self.up8(x16)) + self.skip8(torch.cat([maps.f8, cues8], 1)))
        x4 = self.block4(_up(self.up4(x8)) + self.skip4(torch.cat([maps.f4, patches], 1)))
        out = self.out(functional.relu(self.norm4(x4)))
        trust = functional.interpolate(out[:, -2:], scale_factor=PATCH, mode="bilinear", align_corners=False)
        parts = cues[:, (PRIOR, SCORE)] * trust
        residual = functional.pixel_shuffle(out[:, :-2], PATCH) + 4 * parts.sum(1, keepdim=True)
        after = gated_update(self.update(torch.cat([x16, hidden], 1)), hidden)
        heads = self._judge(x16, cues, residual)
        return Decoded(residual, after, heads[:, 0], heads[:, 1])

    def _judge(self, x16: Tensor, cues: Tensor, residual: Tensor) -> Tensor:
        # float32: four numbers decide where the object ends; and bfloat16 gains nothing on vectors
        with torch.autocast(x16.device.type, enabled=False):
            x16, cues, residual = x16.float(), cues.float(), residual.detach().float()
            prior = functional.avg_pool2d((4 * cues[:, PRIOR : PRIOR + 1]).sigmoid(), 16)
            weight = prior / prior.sum((2, 3), keepdim=True).clamp_min(1e-3)
            here = (x16 * weight).sum((2, 3))
            probability = (4 * cues[:, PRIOR] + 1.8 * cues[:, SCORE] + residual[:, 0]).sigmoid()
            inside = probability.sum((1, 2)).clamp_min(1.0)
            numbers = torch.stack(
                [
                    probability.mean((1, 2)) * 4,
                    (probability * cues[:, SCORE]).sum((1, 2)) / inside,
                    (probability * (2 * probability - 1).abs()).sum((1, 2)) / inside,
                    probability.amax((1, 2)),
                ],
                1,
            )
            judged: Tensor = self.heads(torch.cat([here, x16.mean((2, 3)), numbers], 1))
        return judged


def _up(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def has_adapters(names: Iterable[str]) -> bool:
    """Whether entries of a state dict are those of a network with adapters."""
    return any(is_adapter(name) for name in names)


def is_adapter(name: str) -> bool:
    """Whether an entry belongs to an adapter."""
    return "adapter" in name
