"""Labels: what was accepted goes to the datastore, and which image comes next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imos.imaging import Image, write_label_map
from imos.server.effort import Made
from imos.server.snapshots import ImageObject
from imos.server.temporary import temporary_folder
from imos.server.workbench import Workbench

FINAL, ORIGINAL = "final", "original"


def store(
    bench: Workbench,
    image_id: str,
    labels: NDArray[np.uint16],
    image: Image,
    objects: Sequence[ImageObject],
    client: str,
    made: Made,
) -> str:
    """Store a label map as an image's label with the tag `final`, and what was found first as `original`.

    Args:
        bench: Where to.
        image_id: The image.
        labels: `(I, J, K)` on its grid.
        image: The image, for the grid.
        objects: What the values are called, ascending; those without a voxel are kept as empty ones.
        client: Who accepted it.
        made: How it came about.

    Returns:
        Id of the label.

    Raises:
        UserError: It cannot be written.
    """
    info: dict[str, Any] = {
        # In the order of the values: who writes a DICOM SEG names the values present in this order.
        "label_info": [
            {"name": one.name or f"object {one.value}", "idx": one.value}
            | ({"color": list(one.color)} if one.color is not None else {})
            for one in objects
        ],
        "empty": sorted({one.value for one in objects}.difference(map(int, np.unique(labels)))),
        "client_id": client,
        "axes": {str(value): axis for value, axis in made.axes.items()},
        "effort": asdict(made.effort),
        "slices": made.slices,
    }
    with temporary_folder() as folder:
        file = Path(folder) / "label.nii.gz"
        if made.original is not None:  # first: of two labels stored in one second the final one counts
            write_label_map(file, made.original, image)
            bench.datastore.save_label(image_id, str(file), ORIGINAL, {"label_info": info["label_info"]})
        write_label_map(file, labels, image)
        return str(bench.datastore.save_label(image_id, str(file), FINAL, info))


def next_unlabelled(bench: Workbench, after: str | None) -> str | None:
    """The first image without a final label behind another one; starts again at the first."""
    waiting = sorted(bench.datastore.get_unlabeled_images())
    if after is not None:
        done = bench.image_id(after)
        waiting = [image for image in waiting if image > done] + [image for image in waiting if image < done]
    return waiting[0] if waiting else None


def uids(bench: Workbench, image_id: str) -> tuple[str, str]:
    """Study and series of an image; empty where it has none."""
    if bench.catalog is not None:
        return bench.catalog.uids(image_id)
    info = bench.datastore.get_image_info(image_id)
    return str(info.get("StudyInstanceUID", "")), str(info.get("SeriesInstanceUID", ""))
