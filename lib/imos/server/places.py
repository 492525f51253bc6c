"""Places: where the server keeps its own files."""

from __future__ import annotations

from imos.registry.places import STATE_FOLDER

__all__ = ["STATE_FOLDER"]
