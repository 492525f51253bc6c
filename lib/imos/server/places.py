"""Places: where the server keeps its own files."""

from __future__ import annotations

STATE_FOLDER = ".imos"
"""Inside the folder of the datastore."""
