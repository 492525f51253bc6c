"""The decoder: from a readout, the hidden state and the slice's features to one mask per object."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from imos.network.blocks import FeatureFusion, GroupResidualBlock, fold_objects, unfold_objects
from imos.network.config import NetworkConfig
from imos.network.encoders import IMAGE_CHANNELS, Features
from imos.network.sensory import HiddenUpdater


class Upsampling(nn.Module):
    """Doubles the resolution and adds the slice's features of that resolution."""

    def __init__(self, skip_channels: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.skip_conv = nn.Conv2d(skip_channels, in_channels, 3, padding=1)
        self.out_conv = GroupResidualBlock(in_channels, out_channels)

    def forward(self, skip: Tensor, coarse: Tensor) -> Tensor:
        """`(B, C_in, 2h, 2w)`, convolved once for all objects, and `(B·K, C_in, h, w)` → `(B·K, C_out, 2h, 2w)`."""
        count = coarse.shape[0] // skip.shape[0]
        fine = functional.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
        unfold_objects(fine, count).add_(skip.unsqueeze(1))
        out: Tensor = self.out_conv(fine)
        return out


class Decoder(nn.Module):
    """Readout and hidden state, up to stride 4, to one logit map an object.

    Attributes:
        at_once: Objects of a slice that are taken to the finer levels together; None: all. On a CPU one after the other
            is faster, as its maps stay in the caches.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.at_once: int | None = None
        self.fuser = FeatureFusion(IMAGE_CHANNELS, config.value_dim + config.hidden_dim, 512, 512)
        self.hidden_update = (
            HiddenUpdater((512, 256, 256 + 1), 256, config.hidden_dim) if config.hidden_dim > 0 else None
        )
        self.up_16_8 = Upsampling(512, 512, 256)
        self.up_8_4 = Upsampling(256, 256, 256)
        self.pred = nn.Conv2d(256, 1, 3, padding=1)

    def forward(
        self, features: Features, hidden: Tensor | None, readout: Tensor, *, update_hidden: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Decodes every object of a slice.

        Args:
            features: Of the slice.
            hidden: `(B, K, C^h, h, w)`, or None for a network without sensory memory.
            readout: `(B, K, C^v, h, w)`.
            update_hidden: Whether to update the hidden state.

        Returns:
            Logits, `(B, K, H, W)`, each object by itself, and the hidden state, as it came if `update_hidden` is False.
        """
        count = readout.shape[1]
        known = readout if hidden is None else torch.cat([readout, hidden.to(readout.dtype)], dim=2)
        g16 = fold_objects(self.fuser(features.f16, known))
        skips = self.up_16_8.skip_conv(features.f8), self.up_8_4.skip_conv(features.f4)
        updater = self.hidden_update if update_hidden and hidden is not None else None
        together = self.at_once if self.at_once is not None and len(readout) == 1 else len(g16)
        made = [self._finer(some, skips, updater) for some in g16.split(together)]
        logits = torch.cat([logit for logit, _ in made])
        if updater is not None and hidden is not None:
            hidden = updater(g16, torch.cat([scales for _, scales in made if scales is not None]), hidden)
        logits = functional.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
        return unfold_objects(logits, count).squeeze(2), hidden

    def _finer(
        self, g16: Tensor, skips: tuple[Tensor, Tensor], updater: HiddenUpdater | None
    ) -> tuple[Tensor, Tensor | None]:
        """Logits at stride 4, and what the hidden state is told of the finer levels."""
        g8 = self.up_16_8(skips[0], g16)
        g4 = self.up_8_4(skips[1], g8)
        logits: Tensor = self.pred(torch.relu(g4))
        return logits, None if updater is None else updater.of_finer_levels(g8, g4, logits)
