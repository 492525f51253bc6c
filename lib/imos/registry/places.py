"""Places: where a server keeps the versions of its project."""

from __future__ import annotations

from pathlib import Path

STATE_FOLDER = ".imos"
"""Inside the folder of the datastore: the server's own files."""


def models_folder(studies: Path) -> Path:
    """The registry of a datastore in a folder, unless the server was started with another one (`--conf models`)."""
    return studies / STATE_FOLDER / "models"
