"""The version of the server: the package's."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed


def version() -> str:
    """Version of the installed package."""
    try:
        return installed("imos")
    except PackageNotFoundError:
        return "0"
