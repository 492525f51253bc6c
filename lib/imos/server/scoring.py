"""Scoring: how good what was found first (`original`) was, against what was accepted (`final`).

MONAI Label runs these in a process beside the server. They write a file of their own: its table of labels belongs to
the server alone.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import HTTPException
from monailabel.interfaces.tasks.scoring import ScoringMethod
from numpy.typing import NDArray

from imos.errors import UserError
from imos.imaging import Plane, plane_axis, read_image, read_label_map
from imos.imaging.writing import replacing
from imos.metrics import boundary_f, dice, jaccard
from imos.server.places import STATE_FOLDER

if TYPE_CHECKING:
    from monailabel.interfaces.datastore import Datastore

logger = logging.getLogger(__name__)

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure of two masks `(H, W)` or `(I, J, K)`.

    Attributes:
        description: For clients.
        of: Measures.
        by_slice: Whether slices are measured, and their mean taken; else the volume as one.
    """

    description: str
    of: Callable[[Mask, Mask], float]
    by_slice: bool


MEASURES = {
    "j": Measure("J (intersection over union) of original against final, mean over slices", jaccard, True),
    "f": Measure("F (agreement of outlines) of original against final, mean over slices", boundary_f, True),
    "dice": Measure("Dice of original against final, over the volume", dice, False),
}


def scoring_methods(datastore: Datastore) -> dict[str, ScoringMethod]:
    """All methods by the name under which clients ask for them."""
    folder = Path(datastore._datastore_path) / STATE_FOLDER / "scores"
    return {name: LabelScoring(name, measure, folder) for name, measure in MEASURES.items()}


class LabelScoring(ScoringMethod):
    """One measure of every image that has both labels.

    Args:
        name: Of the measure.
        measure: What is measured.
        folder: Where scores are kept.
    """

    def __init__(self, name: str, measure: Measure, folder: Path) -> None:
        super().__init__(measure.description)
        self._measure = measure
        self._file = folder / f"{name}.json"

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, float]:
        """Score; image id → mean over the objects of the final label."""
        tags = str(request.get("y_pred") or "original"), str(request.get("y") or "final")
        found: dict[str, float] = {}
        for image in datastore.list_images():
            labels = datastore.get_labels_by_image_id(image)
            if all(tag in labels for tag in tags):
                try:
                    found[image] = self._score(datastore, image, labels, tags)
                except (UserError, HTTPException) as error:
                    logger.warning("%s is not scored: %s", image, getattr(error, "detail", error))
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self._file) as beside:
            beside.write_text(json.dumps(found, indent=1), "utf-8")
        return found

    def _score(self, datastore: Datastore, image: str, labels: Mapping[str, str], tags: tuple[str, str]) -> float:
        content = read_image(Path(datastore.get_image_uri(image)))
        first, final = (read_label_map(Path(datastore.get_label_uri(labels[tag], tag)), content) for tag in tags)
        axis = plane_axis(content, Plane.AUTO)
        scores = []
        for value in np.unique(final[final > 0]):
            pair = (np.moveaxis(array == value, axis, 0) for array in (first, final))
            scores.append(score_of(self._measure, *pair))
        return float(np.mean(scores)) if scores else 1.0


def score_of(measure: Measure, found: Mask, true: Mask) -> float:
    """One object's score.

    Args:
        measure: What is measured.
        found: `(D, H, W)`.
        true: `(D, H, W)`.
    """
    if not measure.by_slice:
        return measure.of(found, true)
    shown = np.flatnonzero((found | true).any(axis=(1, 2)))
    return float(np.mean([measure.of(found[index], true[index]) for index in shown])) if shown.size else 1.0
