"""DICOM SEG for an archive: with the names and colours that the user gave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imos.imaging import Image, write_label_map


def write_segmentation(path: Path, labels: NDArray[np.uint16], image: Image, label_info: Any) -> None:
    """Write a label map as DICOM SEG.

    Args:
        path: `.dcm`.
        labels: `(I, J, K)` on the grid of the image.
        image: The DICOM series.
        label_info: What the client said: entries with `name`, and perhaps `idx` and `color`.

    Raises:
        UserError: It cannot be written.
    """
    import pydicom

    entries = entries_of(label_info, [int(value) for value in np.unique(labels) if value])
    write_label_map(path, labels, image, {value: str(one["name"]) for value, one in entries.items() if one.get("name")})
    colors = [color_of(one.get("color")) for one in entries.values()]
    if any(color is not None for color in colors):
        dataset = pydicom.dcmread(path)
        for segment, color in zip(dataset.SegmentSequence, colors, strict=True):
            if color is not None:
                segment.RecommendedDisplayCIELabValue = cielab(color)
        dataset.save_as(path)


def entries_of(label_info: Any, values: list[int]) -> dict[int, dict[str, Any]]:
    """Which entry of `label_info` speaks of which value.

    Our own clients say the value as `idx`. 3D Slicer counts all segments there, also those that it did not send, but
    gives those that it sent the values 1, 2, 3 … Of anything else the order counts.
    """
    entries = [one for one in label_info if isinstance(one, dict)] if isinstance(label_info, list) else []
    by_value = {one["idx"]: one for one in entries if isinstance(one.get("idx"), int)}
    if all(value in by_value for value in values):
        return {value: by_value[value] for value in values}
    if all(1 <= value <= len(entries) for value in values):
        return {value: entries[value - 1] for value in values}
    return {value: entries[place] if place < len(entries) else {} for place, value in enumerate(values)}


def color_of(said: Any) -> tuple[int, int, int] | None:
    """Red, green, blue, 0…255; None for what is no colour."""
    if not isinstance(said, list | tuple) or len(said) < 3:
        return None
    if not all(isinstance(channel, int | float) and 0 <= channel <= 255 for channel in said[:3]):
        return None
    return int(said[0]), int(said[1]), int(said[2])


def cielab(color: tuple[int, int, int]) -> list[int]:
    """A colour as DICOM writes it: L*, a*, b* scaled to 16 bits, white point D50."""
    from skimage.color import rgb2lab

    light, a, b = rgb2lab(np.array(color, dtype=np.float64) / 255, illuminant="D50").tolist()
    scaled = (light * 65535 / 100, (a + 128) * 65535 / 255, (b + 128) * 65535 / 255)
    return [round(min(65535, max(0, value))) for value in scaled]
