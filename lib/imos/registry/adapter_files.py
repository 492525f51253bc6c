"""Adapter files: what a safetensors file says about itself, read and written without loading its weights.

Nothing here needs torch: listing versions, moving the alias and carrying a file to another server work wherever Python
does.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path

from imos.errors import UserError

RECORD = "imos_record"
"""Entry of a file's metadata that holds what the registry knew about it when it was published."""

_LENGTH = struct.Struct("<Q")
_LONGEST_HEADER = 100 * 2**20  # as the safetensors library has it


def read_metadata(path: Path) -> dict[str, str]:
    """What an adapter file says about itself.

    Raises:
        UserError: It is missing, damaged, no safetensors file, or holds no adapter.
    """
    header, _ = _split(path)
    found = header.get("__metadata__", {})
    if not isinstance(found, dict) or found.get("kind") != "adapter":
        raise UserError(f"{path.name} is not an adapter file. Give a file that `finetune` or `weights export` wrote.")
    return {str(name): str(value) for name, value in found.items()}


def with_metadata(path: Path, more: Mapping[str, str]) -> bytes:
    """An adapter file's content with entries added to its metadata; the weights are the same bytes.

    Raises:
        UserError: As `read_metadata`.
    """
    metadata = read_metadata(path) | dict(more)
    header, weights = _split(path)
    header["__metadata__"] = metadata
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=True).encode()
    text += b" " * (-len(text) % 8)  # the format wants the weights to begin at a multiple of eight
    return _LENGTH.pack(len(text)) + text + weights


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _split(path: Path) -> tuple[dict[str, object], bytes]:
    """The header and the bytes behind it, which must be exactly those that the header promises."""
    try:
        content = path.read_bytes()
        (length,) = _LENGTH.unpack_from(content)
        if length > min(_LONGEST_HEADER, len(content) - _LENGTH.size):
            raise ValueError(length)
        header = json.loads(content[_LENGTH.size : _LENGTH.size + length])
        ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
    except FileNotFoundError as error:
        raise UserError(f"There is no adapter file {path}. Check the path.") from error
    except (OSError, struct.error, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise _damaged(path) from error
    weights = content[_LENGTH.size + length :]
    if not ends or max(ends) != len(weights):
        raise _damaged(path)
    return header, weights


def _damaged(path: Path) -> UserError:
    return UserError(f"{path.name} is damaged or not a safetensors file. Copy it again.")
