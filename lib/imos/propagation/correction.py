"""What the memory network adds to the floor during one pass."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imos.network.memory import Memory, MemorySettings
from imos.network.small import HIDDEN, Maps
from imos.network.steps import Encoded, Steps

MEMORY = MemorySettings(max_slices=8, min_slices=4, prototypes=128, max_long_term=2048)
MEMORY_EVERY = 3
"""Slices between two that are remembered; the first three steps are all remembered, as in training."""


class Asked(NamedTuple):
    """What the decoder is given on a slice, see `SmallNetwork.decode`.

    Attributes:
        maps: Of the slice.
        readout: From the memory.
        hidden: Sensory memory.
        cues: `(1, 7, S, S)` float32.
    """

    maps: Maps
    readout: Tensor
    hidden: Tensor
    cues: Tensor


class Corrected(NamedTuple):
    """What the network says of a slice.

    Attributes:
        residual: `(S, S)` log odds to add to the floor's.
        heads: Log odds that the object is there, and of J.
        asked: What it was given.
    """

    residual: NDArray[np.float32]
    heads: tuple[float, float]
    asked: Asked


class Correction:
    """Memory and sensory state of one object during one pass.

    Args:
        steps: The networks of `small`.
        encoded: The painted slice's region.
        picture: `(S, S)` gray uint8, that region.
        mask: `(S, S)` float32, the painted object.
    """

    def __init__(self, steps: Steps, encoded: Encoded, picture: NDArray[np.uint8], mask: NDArray[np.float32]) -> None:
        self._steps = steps
        self._memory = Memory(MEMORY)
        self._time = 0
        deepest = encoded.maps.f16
        self._hidden = deepest.new_zeros(1, HIDDEN, *deepest.shape[2:])
        self._painted = np.stack([_signed(picture), 2 * mask - 1])
        self._encoded = encoded
        self._remember(picture, mask, deep=True)

    def correct(
        self,
        encoded: Encoded,
        picture: NDArray[np.uint8],
        warped: NDArray[np.float32],
        prior: NDArray[np.float32],
        score: NDArray[np.float32],
    ) -> Corrected:
        """What to add to the floor's log odds on the next slice.

        Args:
            encoded: The slice.
            picture: `(S, S)` gray uint8.
            warped: `(S, S)` float32, 0…255, the previous picture carried by the flow.
            prior: `(S, S)` log odds of the prior.
            score: `(S, S)` target model.
        """
        self._time += 1
        self._encoded = encoded
        readout = self._memory.read(encoded.key.key[0], encoded.key.selection[0])
        current, before = _signed(picture), _signed(warped)
        cues = np.stack([current, before, current - before, prior / 4, score / 4, *self._painted])[None]
        asked = Asked(encoded.maps, readout, self._hidden, torch.from_numpy(cues))
        decoded = self._steps.decode(*asked)
        self._hidden = decoded.hidden
        heads = float(decoded.existence), float(decoded.quality)
        return Corrected(decoded.residual[0, 0].cpu().numpy(), heads, asked)

    def remember(self, picture: NDArray[np.uint8], probability: NDArray[np.float32]) -> None:
        """Add the slice that was just corrected to the memory, if it is its turn."""
        if self._time < 3 or self._time % MEMORY_EVERY == 0:
            self._remember(picture, probability, deep=self._time % MEMORY_EVERY == 0)

    def _remember(self, picture: NDArray[np.uint8], probability: NDArray[np.float32], *, deep: bool) -> None:
        gray, mask = (torch.from_numpy(plane)[None, None] for plane in (_signed(picture), probability))
        value: Tensor
        value, reinforced = self._steps.value(gray, mask, self._encoded.maps.f16, self._hidden)
        if deep:
            self._hidden = reinforced
        key, shrinkage, selection = self._encoded.key
        self._memory.add(key[0], shrinkage[0], selection[0], value, self._time)


def _signed(picture: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
    """0…255 to [-1, 1]."""
    return picture.astype(np.float32) / 127.5 - 1
