"""A registry in a folder of its own, and adapter files that are real ones, only small."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from imos.registry.store import Registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models")


@pytest.fixture
def adapter(tmp_path: Path) -> Callable[..., Path]:
    """Writes adapter files that differ by a number."""

    def write(number: int = 0, **metadata: str) -> Path:
        path = tmp_path / f"adapter{number}.safetensors"
        weights = np.arange(6, dtype=np.float16).reshape(2, 3) + np.float16(number)
        save_file({"network.out.bias": weights}, path, {"kind": "adapter", "base_sha256": "b" * 64} | metadata)
        return path

    return write
