"""Windows: which grey values the network gets to see.

CT values are Hounsfield units, and radiologists look at each tissue through its own window; the window is chosen by the
values around the painted object. Other modalities have no unit, so their window follows robust percentiles. Eight-bit
images were windowed by whoever made them, and are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from imos.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imos.imaging.image import Image

_SAMPLES = 2_000_000  # enough for percentiles to .1 %; keeps a 512 x 512 x 1000 volume at a few milliseconds


@dataclass(frozen=True, slots=True)
class Window:
    """Grey values shown as black and as white."""

    low: float
    high: float


LUNG = Window(-1350.0, 150.0)
SOFT_TISSUE = Window(-160.0, 240.0)
BRAIN = Window(-20.0, 100.0)
VESSEL = Window(-150.0, 650.0)
BONE = Window(-450.0, 1350.0)


@dataclass(frozen=True, slots=True)
class _Grays:
    """What an image's own values say about its window, whatever is painted.

    Attributes:
        is_hounsfield: Whether they are Hounsfield units; the rest is not asked for then.
        robust: From the .5th to the 99.7th percentile of all that is not 0, which may be nothing.
        all: From the least to the largest.
    """

    is_hounsfield: bool
    robust: Window | None = None
    all: Window | None = None


_grays: WeakKeyDictionary[Image, _Grays] = WeakKeyDictionary()


def _grays_of(image: Image) -> _Grays:
    """Looked at once an image; a window is chosen for each painted object."""
    found = _grays.get(image)
    if found is None:
        found = _grays[image] = _look_at(image)
    return found


def _look_at(image: Image) -> _Grays:
    if is_hounsfield(image):
        return _Grays(is_hounsfield=True)
    values = _sample(image.voxels)
    if values.size == 0 or float(values.min()) == float(values.max()):
        return _Grays(is_hounsfield=False)
    # The background of MR and microscopy is exactly 0 and can be most of the image.
    low, high = (float(value) for value in np.percentile(values[values != 0], (0.5, 99.7)))
    return _Grays(is_hounsfield=False, robust=Window(low, high), all=Window(float(values.min()), float(values.max())))


def is_hounsfield(image: Image) -> bool:
    """Whether the values are Hounsfield units.

    DICOM says so. A file that names no modality counts as CT when it holds air and soft tissue where Hounsfield units
    put them, and nothing that no CT scanner writes.
    """
    if image.is_rgb or image.voxels.dtype == np.uint8:
        return False
    if image.modality:
        return image.modality == "CT"
    if image.voxels.dtype.kind == "u":
        return False
    values = _sample(image.voxels)
    if values.size == 0:
        return False
    low, high = float(values.min()), float(values.max())
    if not (-32768 <= low <= -500 and 100 <= high <= 32767):
        return False
    air = float((values < -800).mean())
    tissue = float(((values > -150) & (values < 250)).mean())
    return air + tissue > 0.3 and air > 0.002 and tissue > 0.02


def choose_window(image: Image, near: NDArray[Any] | None = None) -> Window:
    """Window in which the painted object and its surroundings are seen best.

    Args:
        image: The whole image.
        near: Values of any shape in and around the painted object. They choose the tissue of a CT, and widen the window
            of other modalities so that the object is never clipped. None: the image alone decides.

    Returns:
        The window; `low` < `high`.

    Raises:
        UserError: The image is constant or holds no number.
    """
    if image.voxels.dtype == np.uint8:
        return Window(0.0, 255.0)
    if near is not None:
        near = _precise(np.asarray(near)).ravel()
        near = near[np.isfinite(near)]
        if near.size == 0:
            near = None
    grays = _grays_of(image)
    if grays.is_hounsfield:
        return SOFT_TISSUE if near is None else _tissue_window(near)
    if grays.robust is None or grays.all is None:
        msg = f"{image.name} shows nothing: all its voxels are equal or not a number. Check the file in a viewer."
        raise UserError(msg)
    low, high = grays.robust.low, grays.robust.high
    if near is not None:
        near_low, near_high = (float(value) for value in np.percentile(near, (1, 99)))
        low, high = min(low, near_low), max(high, near_high)
    return Window(low, high) if high > low else grays.all


def apply_window(values: NDArray[Any], window: Window) -> NDArray[np.uint8]:
    """Grey values as bytes.

    Args:
        values: Any shape, any real type.
        window: `low` becomes 0 and `high` 255; values outside are clipped.

    Returns:
        The same shape. Bytes under the window 0…255 come back as they are, without a copy.
    """
    if values.dtype == np.uint8 and window == Window(0.0, 255.0):
        return values
    scale = 255.0 / (window.high - window.low)
    scaled = _precise(values)
    scaled -= window.low
    scaled *= scale
    np.clip(scaled, 0.0, 255.0, out=scaled)
    np.rint(scaled, out=scaled)
    return scaled.astype(np.uint8)


def _precise(values: NDArray[Any]) -> NDArray[np.floating[Any]]:
    """A copy as numbers that tell any two grey values apart: large integers are not exact in 32 bits."""
    exact = 4 if values.dtype.kind == "f" else 2
    return values.astype(np.float64 if values.dtype.itemsize > exact else np.float32)


def _tissue_window(near: NDArray[np.floating[Any]]) -> Window:
    middle = float(np.median(near))
    if float((near < -400).mean()) > 0.5:
        return LUNG
    if float((near > 150).mean()) > 0.4:
        return BONE if float((near > 500).mean()) > 0.1 or middle > 400 else VESSEL
    low, high = (float(value) for value in np.percentile(near, (2, 98)))
    # Neither fat nor contrast medium around the object: the grey and white matter of a brain, or the inside of a large
    # organ.
    if low > BRAIN.low and high < BRAIN.high:
        return BRAIN
    return SOFT_TISSUE


def _sample(voxels: NDArray[Any]) -> NDArray[np.floating[Any]]:
    step = max(1, round((voxels.size / _SAMPLES) ** (1 / 3)))
    values = _precise(voxels[::step, ::step, ::step]).ravel()
    if voxels.dtype.kind == "f":
        values = values[np.isfinite(values)]
    return values
