"""The configuration of an `xmem` network: everything that the shapes in its weights decide.

Nothing here is chosen by hand when weights are loaded: the dimensions are read from the state dict, so that official
XMem, XMem without sensory memory, and iMOS files need no flags.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Dimensions of an `xmem` network.

    Attributes:
        key_dim: Channels of a key and of a selection, C^k.
        value_dim: Channels of a value, C^v.
        hidden_dim: Channels of the sensory memory, C^h; 0 for a network without one.
        adapters: Whether both encoders carry Conv-Adapters (iMOS).
    """

    key_dim: int = 64
    value_dim: int = 512
    hidden_dim: int = 64
    adapters: bool = False

    @classmethod
    def of_weights(cls, weights: Mapping[str, Tensor]) -> NetworkConfig:
        """Reads the dimensions from a state dict.

        Raises:
            KeyError: An entry that decides a dimension is missing; these are not weights of an `xmem` network.
        """
        transform = weights.get("decoder.hidden_update.transform.weight")
        return cls(
            key_dim=weights["key_proj.key_proj.weight"].shape[0],
            value_dim=weights["value_encoder.fuser.block2.conv2.weight"].shape[0],
            hidden_dim=0 if transform is None else transform.shape[0] // 3,  # forget, update, new
            adapters=any(is_adapter_entry(name) for name in weights),
        )


def is_adapter_entry(name: str) -> bool:
    """Whether an entry of a state dict belongs to an adapter."""
    return ".adapter." in name
