"""Judging a version on held-out volumes: J&F from one painted slice, as `evaluate` measures it.

Each object of a volume is painted on its largest slice and carried by a session, through the same path as in use. A
volume's figure is the mean over its objects: volumes are what is compared, because slices and objects of one patient
are not independent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING

import numpy as np

import imos
from imos.errors import UserError
from imos.evaluation.judging import judge
from imos.evaluation.sequences import Protocol, sequences_of
from imos.imaging import ImageKind
from imos.learning.volumes import LabelledVolume, VolumeRef
from imos.propagation.existence import UNTAUGHT, Evidence, Judge
from imos.registry.records import LabelRef

if TYPE_CHECKING:
    from imos.propagation.model import Model

logger = logging.getLogger(__name__)


def measure(model: Model, volume: LabelledVolume, wait: Callable[[], None] = lambda: None) -> float | None:
    """J&F of one volume; None where no object is on four slices or more.

    Args:
        model: Loaded weights.
        volume: Image and accepted label.
        wait: Called after every slice, and may take its time.
    """
    is_video = volume.image.kind is ImageKind.VIDEO
    scores = []
    session = imos.Session(model, volume.image)
    judged = []
    for value in volume.values:
        axis = volume.axis_of(value)
        labels = (np.moveaxis(volume.labels, axis, 0) == value).astype(np.uint8)
        for sequence in sequences_of(labels, Protocol.LARGEST, is_video=is_video):
            painted = np.zeros(volume.image.shape, np.uint16)
            np.moveaxis(painted, axis, 0)[sequence.painted][labels[sequence.painted] > 0] = value
            session.paint_volume(painted, plane=volume.plane_of(value))
            judged.append((value, axis, sequence))
    if not judged:
        return None
    found = session.propagate(on_progress=lambda _: wait()).labels
    for value, axis, sequence in judged:
        predicted, true = ((np.moveaxis(array, axis, 0) == value).astype(np.uint8) for array in (found, volume.labels))
        scores.append(judge(predicted, true, sequence).j_and_f)
    return float(np.mean(scores))


class _Waiting(Judge):
    """The same judge, which lets a pass wait."""

    def __init__(self, judge: Judge, wait: Callable[[], None]) -> None:
        super().__init__(judge.existence, judge.quality)
        self._wait = wait

    def of(self, evidence: Evidence) -> tuple[float, float]:
        """As that one judges."""
        self._wait()
        return super().of(evidence)


def _waiting(model: Model, wait: Callable[[], None]) -> Model:
    """A model of `small` whose passes wait between slices.

    They run side by side in threads, ahead of who asks for their slices, so each of them must wait for itself. Passes
    of `xmem` run one at a time and no further than somebody asks.
    """
    judges = (_Waiting(judge or UNTAUGHT, wait) for judge in (model.judge, model.floor_judge))
    return model.but(**dict(zip(("judge", "floor_judge"), judges, strict=True)))


def measure_all(
    load: Callable[[], Model],
    volumes: Iterable[VolumeRef],
    known: MutableMapping[LabelRef, float],
    before_each: Callable[[], None] = lambda: None,
    wait: Callable[[], None] = lambda: None,
) -> dict[LabelRef, float]:
    """J&F of every volume that can be judged.

    Args:
        load: Loads the weights; called once, and not at all where everything is known.
        volumes: Held-out volumes.
        known: What was measured before with these very weights; what is measured now is added.
        before_each: Called before each volume that is measured.
        wait: Called on every slice, in any thread: measuring stands still as long as it takes.
    """
    model: Model | None = None
    found: dict[LabelRef, float] = {}
    for volume in volumes:
        score = known.get(volume.label)
        if score is None:
            before_each()
            try:
                content = volume.load()
            except UserError as error:
                logger.warning("%s cannot judge: %s", volume.label.image, error)
                continue
            model = model or _waiting(load(), wait)
            score = measure(model, content, wait)
        if score is not None:
            found[volume.label] = known[volume.label] = score
    return found
