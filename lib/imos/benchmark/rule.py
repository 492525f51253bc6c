"""Weights that are a function of an entry's name and shape alone, so that 62 million of them need not be stored.

They keep activations and probabilities of a usual size, which random weights do not: with those the similarities of
XMem's memory overflow, and there is nothing to compare.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_GAINS = {
    "key_proj.key_proj.weight": 0.5,
    "key_proj.d_proj.weight": 0.4,
    "key_proj.e_proj.weight": 0.6,
    "decoder.pred.weight": 0.35,
}
_STRONG = ("key_encoder.", *(f"value_encoder.{part}." for part in ("conv1", "layer1", "layer2", "layer3")))


def uniform_numbers(name: str, count: int) -> NDArray[np.float64]:
    """`count` numbers in [-1, 1) that depend on the name alone (splitmix64 seeded with its CRC-32)."""
    start = np.uint64(zlib.crc32(name.encode()) * 0x100000001B3 % 2**64)
    z = np.arange(1, count + 1, dtype=np.uint64)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z += start
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    z >>= np.uint64(11)
    return z * 2.0**-52 - 1


def rule_tensor(name: str, shape: list[int]) -> Tensor:
    """One entry of the state dict of `xmem`."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    values = uniform_numbers(name, math.prod(shape))
    *_, last = name.split(".")
    if last == "bias" or last == "running_mean":
        values *= 0.05
    elif last == "running_var":
        values = 1 + 0.25 * values
    elif last == "gate":
        values = 0.5 * (1 + 0.2 * values)
    elif len(shape) == 1:
        ends_block = ".adapter." not in name and (
            name.endswith("bn3.weight") or (name.startswith("value_encoder.layer") and name.endswith("bn2.weight"))
        )
        values = (0.5 if ends_block else 1) * (1 + 0.2 * values)
    else:
        fan = shape[0] * math.prod(shape[2:]) if ".convT." in name else math.prod(shape[1:])
        gain = _GAINS.get(name) or (
            0.4 if name.endswith(".transform.weight") else 1.25 if name.startswith(_STRONG) else 0.9
        )
        values *= gain * math.sqrt(3 / fan)
    return torch.from_numpy(values.astype(np.float32).reshape(shape))
