"""Packed masks: a volume of bits, small enough to keep one of every judged sequence."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Packed:
    """A mask `(D, H, W)`.

    Attributes:
        shape: Its shape.
        data: Its bits, compressed.
    """

    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> Packed:
        """Pack a mask."""
        return cls(mask.shape, zlib.compress(np.packbits(mask).tobytes(), 1))

    def mask(self) -> NDArray[np.bool_]:
        """Unpack it."""
        bits = np.frombuffer(zlib.decompress(self.data), np.uint8)
        return np.unpackbits(bits, count=int(np.prod(self.shape))).reshape(self.shape).astype(bool)
