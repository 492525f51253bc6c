"""Weights files: what is in them, whether it fits, and how they are written.

Our own files are safetensors with metadata that says what they are. Foreign `.pth` files (official XMem and iMOS
weights, training checkpoints) are read without running any code that they might contain. Loading is always strict: a
network with one entry left at its initial value gives masks that look plausible and are wrong.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from imos.errors import UserError
from imos.network.config import NetworkConfig
from imos.network.xmem import XMem

XMEM = "xmem"  # the name of this configuration in metadata
MASK_ENTRY = "value_encoder.conv1.weight"
UNKNOWN = "unknown"
OWN_FIELDS = ("configuration", "version", "data", "licence")


@dataclass(frozen=True, slots=True)
class WeightsInfo:
    """What a weights file says about itself.

    Attributes:
        configuration: Which network it is for: `xmem` or `small`.
        version: Of the weights.
        data: What they were trained on.
        licence: Of the weights.
        extra: Anything else, by name.
    """

    configuration: str
    version: str = UNKNOWN
    data: str = UNKNOWN
    licence: str = UNKNOWN
    extra: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_metadata(cls, metadata: Mapping[str, str], configuration: str) -> WeightsInfo:
        """From a safetensors header; `configuration` holds where the header does not say."""
        own = {name: metadata[name] for name in OWN_FIELDS if name in metadata}
        extra = {name: text for name, text in metadata.items() if name not in OWN_FIELDS}
        return cls(**({"configuration": configuration} | own), extra=extra)

    def metadata(self) -> dict[str, str]:
        """As a safetensors header."""
        return dict(self.extra) | {name: str(getattr(self, name)) for name in OWN_FIELDS}


@dataclass(frozen=True, slots=True)
class Weights:
    """A weights file in memory.

    Attributes:
        path: Where it was read from.
        tensors: The state dict, floating point entries as float32.
        info: What the file says about itself.
    """

    path: Path
    tensors: dict[str, Tensor]
    info: WeightsInfo


def read_weights(path: str | os.PathLike[str]) -> Weights:
    """Reads a `.safetensors`, `.pth` or `.pt` file onto the CPU.

    Raises:
        UserError: The file is missing, of another kind, unreadable, or holds no weights.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no weights file {path}. Check the path.")
    if path.suffix == ".safetensors":
        tensors, metadata = _read_safetensors(path)
    elif path.suffix in {".pth", ".pt"}:
        tensors, metadata = _read_pickle(path), {}
    else:
        raise UserError(f"{path.name} is not a weights file. Give a .safetensors or .pth file.")
    if not tensors:
        raise UserError(f"{path.name} holds no weights. Give a file with a network's state dict.")
    tensors = {name: as_stored(tensor) for name, tensor in tensors.items()}
    if not all(tensor.sum().isfinite() for tensor in tensors.values()):
        raise UserError(f"{path.name} holds weights that are no numbers: its training failed. Take an earlier file.")
    guess = XMEM if "key_proj.key_proj.weight" in tensors else UNKNOWN
    return Weights(path, tensors, WeightsInfo.of_metadata(metadata, guess))


def as_stored(tensor: Tensor) -> Tensor:
    """Floating point as float32, and every entry with memory of its own, which training needs."""
    return (tensor.float() if tensor.is_floating_point() else tensor).contiguous()


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _damaged(path) from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what the file looks like; what matters is whether it can be read
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path.name} is damaged or holds more than weights, which could run code when opened."
            " Save only the network's state dict, as .pth or .safetensors."
        ) from error
    # A damaged zip, an empty file and damaged bytes inside a zip each raise something else
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise _damaged(path) from error
    if isinstance(content, Mapping) and isinstance(content.get("network"), Mapping):
        content = content["network"]  # a training checkpoint: {it, network, optimizer, scheduler}
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(entry, Tensor) for name, entry in content.items()
    ):
        raise UserError(f"{path.name} holds no state dict. Give a file with a network's weights, name by name.")
    return dict(content)


def _damaged(path: Path) -> UserError:
    return UserError(f"{path.name} is damaged or not a weights file. Download or copy it again.")


def load_xmem(path: str | os.PathLike[str]) -> tuple[XMem, WeightsInfo]:
    """An `xmem` network from a file, on the CPU and in evaluation mode.

    Raises:
        UserError: The file cannot be read, or its weights are not those of an `xmem` network, entry by entry.
    """
    weights = read_weights(path)
    return xmem_from_weights(weights), weights.info


def xmem_from_weights(weights: Weights) -> XMem:
    """An `xmem` network with weights that were read.

    Its dimensions, adapters and sensory memory follow from the entries.

    Raises:
        UserError: These are not the weights of an `xmem` network, entry by entry.
    """
    if weights.info.configuration != XMEM:
        raise UserError(
            f"{weights.path.name} holds weights of configuration '{weights.info.configuration}', not '{XMEM}'."
            f" Give a file of configuration '{XMEM}'."
        )
    tensors = for_several_objects(weights.tensors)
    try:
        config = NetworkConfig.of_weights(tensors)
    except (KeyError, IndexError) as error:
        raise UserError(
            f"{weights.path.name} does not hold weights of configuration '{XMEM}' ({error} is missing or misshapen)."
            " Give an XMem or iMOS file."
        ) from error
    with torch.device("meta"):
        network = XMem(config)
    load_strictly(network, tensors, weights.path.name)
    return network


def load_strictly(network: torch.nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Gives a network its weights; every entry must be there, none may be left over, all shapes must agree.

    Args:
        network: It may be on the meta device; it takes the tensors themselves, without a copy.
        tensors: The state dict.
        name: Of the file, for the message.

    Raises:
        UserError: Naming the first entries that do not fit.
    """
    expected = network.state_dict()
    problems = [
        _first("missing", [entry for entry in expected if entry not in tensors]),
        _first("not known", [entry for entry in tensors if entry not in expected]),
        _first(
            "of another shape",
            [
                f"{entry} {tuple(tensors[entry].shape)} instead of {tuple(tensor.shape)}"
                for entry, tensor in expected.items()
                if entry in tensors and tensors[entry].shape != tensor.shape
            ],
        ),
    ]
    if any(problems):
        raise UserError(
            f"{name} holds weights of another network: {'; '.join(filter(None, problems))}."
            " Give weights of this configuration."
        )
    network.load_state_dict(tensors, assign=True)


def _first(what: str, entries: list[str], shown: int = 3) -> str:
    if not entries:
        return ""
    listed = ", ".join(entries[:shown]) + (", …" if len(entries) > shown else "")
    return f"{len(entries)} {'entry is' if len(entries) == 1 else 'entries are'} {what} ({listed})"


def for_several_objects(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the single-object network made those of the multi-object one, which then ignores other objects.

    For one object both give the same. Other weights come back as they are.
    """
    mask_weight = tensors.get(MASK_ENTRY)
    if mask_weight is None or mask_weight.dim() != 4 or mask_weight.shape[1] != 4:
        return dict(tensors)
    zeros = mask_weight.new_zeros(mask_weight.shape[0], 1, *mask_weight.shape[2:])
    return dict(tensors) | {MASK_ENTRY: torch.cat([mask_weight, zeros], dim=1)}


def save_weights(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], info: WeightsInfo) -> None:
    """Writes a safetensors file; it appears complete or not at all, and a file that is there stays until then.

    Raises:
        UserError: The file cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        own = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        partial.touch(exist_ok=False)
        mode = partial.stat().st_mode  # as of any new file; safetensors makes files that only their owner can read
        save_file(own, partial, info.metadata())
        partial.chmod(mode)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"Cannot write {path} ({error}). Check the folder and the free space.") from error
    finally:
        partial.unlink(missing_ok=True)


def sha256(path: str | os.PathLike[str]) -> str:
    """The file's SHA-256, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
