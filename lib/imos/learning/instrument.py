"""The instrument: what a figure depends on beside weights and label, so that only like is compared with like.

After an update of imos a version may score otherwise than before. A figure that was measured by other code, or on
another kind of device, is measured again; and what other code left of a round is not gone on with.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import imos

_MEASURES = ("imaging", "metrics", "network", "propagation", "evaluation", "learning")
_TRAINS = (*_MEASURES, "training")


def measuring(device: str) -> str:
    """Names what measures.

    Args:
        device: `auto`, `cpu` or `cuda`.
    """
    import torch

    place = "cpu"
    if device != "cpu" and torch.cuda.is_available():
        place = torch.cuda.get_device_name()
    return f"{_code(_MEASURES)} {place}"


def training() -> str:
    """Names what trains; it does the same on every device."""
    return _code(_TRAINS)


@cache
def _code(packages: tuple[str, ...]) -> str:
    """Digest of our own code and of the versions of what computes for it."""
    import cv2
    import numpy as np
    import scipy
    import torch

    digest = hashlib.sha256()
    for library in (cv2, np, scipy, torch):
        digest.update(f"{library.__name__} {library.__version__}\n".encode())
    root = Path(imos.__file__).parent
    for package in packages:
        for file in sorted((root / package).rglob("*.py")):
            digest.update(f"{file.relative_to(root)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:32]
