"""DICOM SEG for an archive and from it: with the names and colours of the objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imos.imaging import Image
from imos.imaging.dicom_seg import write_dicom_seg
from imos.imaging.dicom_segments import Flattened, read_flattened
from imos.imaging.writing import replacing

_MOST_NAMED = 3


def write_segmentation(
    path: Path, labels: NDArray[np.uint16], image: Image, label_info: Any, empty: Sequence[int] = ()
) -> None:
    """Write a label map as DICOM SEG.

    Args:
        path: `.dcm`.
        labels: `(I, J, K)` on the grid of the image.
        image: The DICOM series.
        label_info: What the client said: entries with `name`, and perhaps `idx` and `color`.
        empty: Values without a voxel that are segments all the same.

    Raises:
        UserError: It cannot be written.
    """
    entries = entries_of(label_info, [*(int(value) for value in np.unique(labels) if value), *empty])
    names = {value: str(one["name"]) for value, one in entries.items() if one.get("name")}
    colors = {value: color for value, one in entries.items() if (color := color_of(one.get("color"))) is not None}
    with replacing(path) as beside:
        write_dicom_seg(beside, labels, image, names, colors, empty)


def read_segmentation(path: Path, image: Image) -> tuple[NDArray[np.uint16], dict[str, Any]]:
    """Read a DICOM SEG of any program as a label map.

    Args:
        path: The file.
        image: The series, or its grid.

    Returns:
        `(I, J, K)`, and what is stored with a label: `label_info` as our own clients say it, segments without a voxel
        included, whose values are `empty`; and `notices`, what a label map cannot show.

    Raises:
        UserError: It cannot be read, has no voxel, or lies elsewhere.
    """
    found = read_flattened(path, image)
    counts = np.bincount(found.labels.ravel(order="K"), minlength=2**16)
    described = sorted(found.described, key=lambda one: one.value)
    unseen = [one.value for one in described if not counts[one.value]]
    covered = {value for value, _by in found.hidden}
    return found.labels, {
        "label_info": [
            {"name": one.name, "idx": one.value} | ({} if one.color is None else {"color": list(one.color)})
            for one in described
        ],
        "empty": [value for value in unseen if value not in covered],
        "notices": _notices(found, [value for value in unseen if value in covered]),
    }


def _notices(found: Flattened, vanished: list[int]) -> list[str]:
    """What a label map does not show of a segmentation, in sentences."""
    if not found.hidden:
        return []
    names = {one.value: one.name for one in found.described}
    most = sorted(found.hidden.items(), key=lambda one: -one[1])
    pairs = [f"{names.get(over, over)} over {names.get(under, under)}" for (under, over), _count in most]
    listed = ", ".join(pairs[:_MOST_NAMED]) + (", …" if len(pairs) > _MOST_NAMED else "")
    said = [
        f"Segments of the stored segmentation overlap in {sum(found.hidden.values())} voxels ({listed})."
        " Here a voxel has one label, the later one; what you accept has it, too. The stored"
        " segmentation stays as it is."
    ]
    if vanished:
        hidden = ", ".join(str(names.get(value, value)) for value in vanished[:_MOST_NAMED])
        said.append(f"Nothing is to be seen of {hidden}: other segments lie over all of it.")
    return said


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
