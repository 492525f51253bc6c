"""What annotating costs with the loop and without it: painted slices against accepted volumes.

For every set the loop learns from the first volumes of its stream, as if somebody had accepted them; then the simulated
annotator (evaluation/annotator.py) paints the judges' volumes, with what was learned and with nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import imos
from imos.datasets.collection import Case
from imos.evaluation.annotator import TARGETS, Effort, Technique, annotate_case
from imos.learning.finetuning import Recipe
from imos.learning.rounds import Lessons, Round
from imos.learning.volumes import LabelledVolume, VolumeRef
from imos.registry.store import Registry

TARGET = TARGETS[0]
"""Dice at which the annotator is content."""

COLUMNS = ("set", "accepted", "objects", "painted", "painted without the loop", "slices", "untouched")


def effort(
    recipe: Recipe, stream: dict[str, list[Case]], judges: dict[str, list[Case]], accept: Sequence[int]
) -> Iterator[list[str]]:
    """A row for every set and number of accepted volumes.

    Args:
        recipe: Of a round.
        stream: Volumes of each set that are accepted one after another.
        judges: Volumes of each set that are annotated.
        accept: Numbers of accepted volumes.

    Yields:
        The header; then, a mean over objects each: slices painted until Dice .90, the same without the loop, slices of
        the object, share of the others that could be accepted untouched after one painted slice.
    """
    yield list(COLUMNS)
    for name, cases in stream.items():
        without = _annotated(recipe.weights, None, judges[name])
        yield _row(name, 0, without, without)
        for count in accept:
            volumes = [LabelledVolume.of_case(case) for case in cases[:count]]
            with TemporaryDirectory() as folder:
                registry = Registry(Path(folder))
                record = Round(registry, recipe).run(Lessons([VolumeRef.of(one) for one in volumes]))
                found = _annotated(recipe.weights, registry.adapter(record.name), judges[name])
            yield _row(name, len(volumes), found, without)


def _annotated(weights: Path, adapter: Path | None, cases: Sequence[Case]) -> list[Effort]:
    model = imos.load(weights, adapter=adapter, device="cpu")
    return [
        found
        for case in cases
        if not case.is_video
        for found in annotate_case(case, *case.load(), [Technique.OURS], model, until=TARGET)
    ]


def _row(name: str, accepted: int, found: Sequence[Effort], without: Sequence[Effort]) -> list[str]:
    painted, before = (
        float(np.mean([one.painted_until(TARGET) for one in efforts])) if efforts else float("nan")
        for efforts in (found, without)
    )
    others = sum(one.slices - 1 for one in found)
    untouched = sum(one.accepted * (one.slices - 1) for one in found) / others if others else float("nan")
    slices = float(np.mean([one.slices for one in found])) if found else float("nan")
    return [
        name, str(accepted), str(len(found)), f"{painted:.2f}", f"{before:.2f}", f"{slices:.1f}", f"{untouched:.3f}",
    ]  # fmt: skip
