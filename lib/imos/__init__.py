"""iMOS: paint one slice, get the volume.

The public face of the library:

    import imos

    model = imos.load()                                  # bundled weights
    session = imos.Session(model, imos.read("ct.nii.gz"))
    session.paint(plane="axial", index=42, labels=mask)  # set, then ask
    result = session.propagate(on_progress=print)        # result.labels, result.confidence[label][slice]

Everything is imported when it is first used: `import imos` alone costs neither torch nor numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from imos.errors import UserError

if TYPE_CHECKING:
    from imos.imaging import Image, Plane
    from imos.imaging import read_image as read
    from imos.propagation.model import Model, load
    from imos.propagation.result import Progress, Result
    from imos.propagation.session import Session
    from imos.propagation.states import SliceState

__all__ = ["Image", "Model", "Plane", "Progress", "Result", "Session", "SliceState", "UserError", "load", "read"]

_HOMES = {
    "Image": ("imos.imaging", "Image"),
    "Model": ("imos.propagation.model", "Model"),
    "Plane": ("imos.imaging", "Plane"),
    "Progress": ("imos.propagation.result", "Progress"),
    "Result": ("imos.propagation.result", "Result"),
    "Session": ("imos.propagation.session", "Session"),
    "SliceState": ("imos.propagation.states", "SliceState"),
    "load": ("imos.propagation.model", "load"),
    "read": ("imos.imaging", "read_image"),
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        msg = f"module 'imos' has no attribute {name!r}"
        raise AttributeError(msg)
    module, attribute = _HOMES[name]
    value: object = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted(__all__)
