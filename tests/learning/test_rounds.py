"""Whole rounds: what was learned is judged, and used only if it is better."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

import imos
from imos.errors import UserError
from imos.learning.finetuning import Recipe
from imos.learning.judging import measure
from imos.learning.rounds import Lessons, Round, Stage, Standing
from imos.learning.volumes import LabelledVolume, VolumeRef
from imos.registry.records import BASE, LabelRef
from imos.registry.store import Registry

pytestmark = pytest.mark.slow

Volumes = Callable[..., LabelledVolume]


def refs(volume: Volumes, numbers: range, *, is_wrong: bool = False) -> list[VolumeRef]:
    return [VolumeRef.of(volume(number, is_wrong=is_wrong), f"digest{number}") for number in numbers]


def recipe(weights: Path, steps: int, rate: float | None = None) -> Recipe:
    return Recipe(weights, steps=steps, batch=4, rate=rate, device="cpu")


def test_better_version_is_used_and_says_why(volume: Volumes, spoilt: Path, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "models")
    told: list[Standing] = []
    new, held_out = refs(volume, range(2)), refs(volume, range(10, 15))
    record = Round(registry, recipe(spoilt, 25, rate=2e-2), told.append).run(Lessons(new, (), held_out))

    assert record.promoted, record.reason
    assert registry.champion == record.name == "v0001"
    assert registry.moves[-1].reason == record.reason
    assert set(record.new) == {LabelRef("body0", "digest0"), LabelRef("body1", "digest1")}
    assert record.figures.volumes == 5
    adapted = imos.load(spoilt, adapter=registry.adapter("v0001"), device="cpu")
    judged = [measure(adapted, volume(number)) for number in range(10, 15)]
    assert sum(judged) / 5 == pytest.approx(record.figures.candidate, abs=1e-9)  # the file is what was judged
    stages = [one.stage for one in told]
    assert list(dict.fromkeys(stages)) == list(Stage)
    assert told[-1].record == record
    assert [path.name for path in registry.folder.iterdir() if path.name == "round"] == []


def test_wrong_labels_are_learned_and_refused(volume: Volumes, tmp_path: Path) -> None:
    from imos.propagation.model import BUNDLED

    registry = Registry(tmp_path / "models")
    wrong, held_out = refs(volume, range(3), is_wrong=True), refs(volume, range(10, 15))
    record = Round(registry, recipe(BUNDLED, 15, rate=4e-3)).run(Lessons(wrong, (), held_out))

    assert not record.promoted
    assert record.reason.startswith("Not promoted: not better")
    assert record.figures.candidate is not None
    assert record.figures.base is not None
    assert record.figures.candidate <= record.figures.base
    assert registry.champion == BASE
    assert registry.names() == ["v0001"]


def test_broken_label_is_left_out_and_nothing_is_learned_from_none(
    volume: Volumes, spoilt: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> LabelledVolume:
        raise UserError("The label of broken is gone.")

    bad = VolumeRef(LabelRef("broken", "d"), broken)
    registry = Registry(tmp_path / "models")
    with pytest.raises(UserError, match="no label to learn from"):
        Round(registry, recipe(spoilt, 2)).run(Lessons([bad]))
    with caplog.at_level(logging.WARNING):
        record = Round(registry, recipe(spoilt, 2)).run(Lessons([bad, *refs(volume, range(1))]))
    assert [label.image for label in record.new] == ["body0"]
    assert "broken is left out" in caplog.text
    assert record.reason == "Not judged: no accepted label is held out yet, and 5 volumes are the least."


def test_round_that_was_cut_off_is_taken_up_only_for_the_same_labels(
    volume: Volumes, spoilt: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry(tmp_path / "models")

    def cut_off(standing: Standing) -> None:
        if standing.stage is Stage.JUDGING:
            raise KeyboardInterrupt

    lessons = Lessons(refs(volume, range(1)), (), refs(volume, range(10, 11)))
    with pytest.raises(KeyboardInterrupt):
        Round(registry, recipe(spoilt, 2), cut_off).run(lessons)
    assert registry.names() == []
    candidate = registry.folder / "round" / "candidate.safetensors"
    made = candidate.stat().st_mtime_ns
    seen: list[int] = []

    def look(standing: Standing) -> None:
        if standing.stage is Stage.JUDGING:
            seen.append(candidate.stat().st_mtime_ns)
            raise KeyboardInterrupt

    with caplog.at_level(logging.INFO), pytest.raises(KeyboardInterrupt):
        Round(registry, recipe(spoilt, 2), look).run(lessons)
    assert seen == [made]
    assert "A round that was cut off goes on" in caplog.text
    record = Round(registry, recipe(spoilt, 3)).run(lessons)  # another recipe: begun anew
    assert record.name == "v0001"
