"""Sensory memory: a small hidden state per object that follows it from slice to slice.

The decoder updates it on ordinary slices (`HiddenUpdater`), the value encoder on memory slices (`HiddenReinforcer`,
the "deep" update). Both gates are the same and not quite a GRU: the candidate does not see the gated state.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from imos.network.blocks import fold_objects, unfold_objects


def gated_update(transformed: Tensor, hidden: Tensor) -> Tensor:
    """One step of the hidden state.

    Args:
        transformed: `(B·K, 3·C^h, h, w)`: forget, update and candidate, not yet activated.
        hidden: `(B·K, C^h, h, w)`.

    Returns:
        The next hidden state, `(B·K, C^h, h, w)`. float32: rounding would add up over hundreds of slices.
    """
    forget, update, candidate = transformed.float().chunk(3, dim=1)
    forget, update = torch.sigmoid(forget), torch.sigmoid(update)
    return forget * hidden * (1 - update) + update * torch.tanh(candidate)


class HiddenUpdater(nn.Module):
    """Updates the hidden state from three scales of the decoder.

    Args:
        channels: Channels of the decoder's features at strides 16, 8 and 4; the last includes the logit.
        mid_channels: Width in which the scales are summed.
        hidden_dim: C^h.
    """

    def __init__(self, channels: tuple[int, int, int], mid_channels: int, hidden_dim: int) -> None:
        super().__init__()
        self.g16_conv = nn.Conv2d(channels[0], mid_channels, 1)
        self.g8_conv = nn.Conv2d(channels[1], mid_channels, 1)
        self.g4_conv = nn.Conv2d(channels[2], mid_channels, 1)
        self.transform = nn.Conv2d(mid_channels + hidden_dim, 3 * hidden_dim, 3, padding=1)

    def of_finer_levels(self, g8: Tensor, g4: Tensor, logits: Tensor) -> Tensor:
        """What the levels finer than stride 16 say, `(B·K, C, ·, ·)` each → `(B·K, C_mid, h, w)`."""
        finest = torch.cat([functional.avg_pool2d(g4, 4), functional.avg_pool2d(logits, 4)], dim=1)
        said: Tensor = self.g8_conv(functional.avg_pool2d(g8, 2)) + self.g4_conv(finest)
        return said

    def forward(self, g16: Tensor, finer: Tensor, hidden: Tensor) -> Tensor:
        """The next hidden state.

        Args:
            g16: `(B·K, C, h, w)`.
            finer: What `of_finer_levels` says.
            hidden: `(B, K, C^h, h, w)`.
        """
        scales = self.g16_conv(g16) + finer
        before = fold_objects(hidden)
        after = gated_update(self.transform(torch.cat([scales, before.to(scales.dtype)], dim=1)), before)
        return unfold_objects(after, hidden.shape[1])


class HiddenReinforcer(nn.Module):
    """Updates the hidden state from a new memory value."""

    def __init__(self, value_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.transform = nn.Conv2d(value_dim + hidden_dim, 3 * hidden_dim, 3, padding=1)

    def forward(self, value: Tensor, hidden: Tensor) -> Tensor:
        """`(B, K, C^v, h, w)` and `(B, K, C^h, h, w)` → the next hidden state."""
        seen, before = fold_objects(value), fold_objects(hidden)
        after = gated_update(self.transform(torch.cat([seen, before.to(seen.dtype)], dim=1)), before)
        return unfold_objects(after, hidden.shape[1])
