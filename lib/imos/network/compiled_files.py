"""Compiled networks on disk, so that a process starts without compiling them again.

They lie in the user's cache folder (`$XDG_CACHE_HOME/imos`, else `~/.cache/imos`; `IMOS_CACHE` names another one, and
`IMOS_CACHE=` alone none). What is there is only ever a copy: it may be deleted at any time, and where it cannot be read
or written the networks are compiled as if there were none.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from torch import Tensor

MOST_FILES = 24
"""The oldest go when there are more; 1 to 4 MB each."""
_DIGEST = 32
"""Bytes before the network: its SHA-256, so that a damaged file is never computed with."""


def name_of(parts: Iterable[str], weights: Mapping[str, Tensor]) -> str:
    """A name that changes with what a compiled network depends on: code, weights, this processor and `parts`."""
    digest = hashlib.sha256("\n".join([*parts, _processor()]).encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):  # what the networks are is written there
        digest.update(file.read_bytes())
    for name, tensor in weights.items():
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def read(name: str) -> bytes | None:
    """What was written under a name; None where there is nothing, or something damaged."""
    folder = _folder()
    if folder is None:
        return None
    path = folder / f"{name}.blob"
    with suppress(OSError):
        whole = path.read_bytes()
        os.utime(path)  # the newest stay
        content = whole[_DIGEST:]
        return content if hashlib.sha256(content).digest() == whole[:_DIGEST] else None
    return None


def write(name: str, content: bytes) -> None:
    """Keep a compiled network; where that is not possible, nothing happens."""
    folder = _folder()
    if folder is None:
        return
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder, suffix=".partial", delete=False) as file:
            try:
                file.write(hashlib.sha256(content).digest() + content)
                file.close()
                os.replace(file.name, folder / f"{name}.blob")
            except OSError:
                os.unlink(file.name)
                return
        by_age = sorted(folder.glob("*.blob"), key=lambda path: path.stat().st_mtime)
        for path in by_age[:-MOST_FILES]:
            path.unlink()


def _folder() -> Path | None:
    wish = os.environ.get("IMOS_CACHE")
    if wish is not None:
        return Path(wish) if wish else None
    home = os.environ.get("XDG_CACHE_HOME")
    with suppress(RuntimeError):  # no home
        return (Path(home) if home else Path.home() / ".cache") / "imos"
    return None


def _processor() -> str:
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        lines = dict(line.split(":", 1) for line in file.read().split("\n\n")[0].splitlines() if ":" in line)
        wanted = {name.strip(): value.strip() for name, value in lines.items()}
        return f"{wanted.get('model name', '')} {wanted.get('flags', '')}"
    return platform.processor()
