"""Colours as DICOM writes them: L*, a*, b* scaled to 16 bits, white point D50."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

Color = tuple[int, int, int]
"""Red, green, blue, 0…255."""


def cielab(color: Color) -> list[int]:
    """A colour as DICOM writes it."""
    from skimage.color import rgb2lab

    light, a, b = rgb2lab(np.array(color, dtype=np.float64) / 255, illuminant="D50").tolist()
    scaled = (light * 65535 / 100, (a + 128) * 65535 / 255, (b + 128) * 65535 / 255)
    return [round(min(65535, max(0, value))) for value in scaled]


def color_of_cielab(said: Sequence[int] | None) -> Color | None:
    """The colour that DICOM means; None where it says none."""
    from skimage.color import lab2rgb

    if said is None or len(said) != 3:
        return None
    light, a, b = (float(value) for value in said)
    lab = np.array([light * 100 / 65535, a * 255 / 65535 - 128, b * 255 / 65535 - 128])
    # Colours that no screen shows come out beyond the range.
    red, green, blue = np.rint(np.clip(lab2rgb(lab, illuminant="D50"), 0, 1) * 255).astype(int).tolist()
    return red, green, blue
