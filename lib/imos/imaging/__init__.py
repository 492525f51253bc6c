"""Images and label maps in and out: geometry, formats, planes, grey-value windows. No network and no torch here.

Names are resolved on first use, so that `import imos.imaging` costs nothing and a format's library is loaded only by
who reads that format.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imos.imaging.geometry import label_map_on_grid
    from imos.imaging.image import Image, ImageKind
    from imos.imaging.planes import Plane, plane_axis, thin_axis
    from imos.imaging.reading import read_grid, read_image, read_label_map
    from imos.imaging.windowing import Window, apply_window, choose_window, is_hounsfield
    from imos.imaging.writing import check_writable, write_label_map

__all__ = [
    "Image",
    "ImageKind",
    "Plane",
    "Window",
    "apply_window",
    "check_writable",
    "choose_window",
    "is_hounsfield",
    "label_map_on_grid",
    "plane_axis",
    "read_grid",
    "read_image",
    "read_label_map",
    "thin_axis",
    "write_label_map",
]

_MODULE_OF = {
    "Image": "image",
    "ImageKind": "image",
    "Plane": "planes",
    "Window": "windowing",
    "apply_window": "windowing",
    "check_writable": "writing",
    "choose_window": "windowing",
    "is_hounsfield": "windowing",
    "label_map_on_grid": "geometry",
    "plane_axis": "planes",
    "read_grid": "reading",
    "read_image": "reading",
    "read_label_map": "reading",
    "thin_axis": "planes",
    "write_label_map": "writing",
}


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
