"""Whole rounds: what was learned is judged, and used only if it is better."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import imos
from imos.errors import UserError
from imos.learning import instrument
from imos.learning.finetuning import Recipe
from imos.learning.judging import measure
from imos.learning.rounds import Lessons, Round, Stage, Standing
from imos.learning.volumes import LabelledVolume, VolumeRef
from imos.network.small import SmallNetwork
from imos.network.weights import WeightsInfo, read_weights, save_weights, sha256
from imos.propagation.model import BUNDLED, NETWORK_PREFIX
from imos.registry.adapter_files import digest
from imos.registry.records import BASE, LabelRef
from imos.registry.store import Registry
from imos.training.packing import read_pack

pytestmark = pytest.mark.slow

Volumes = Callable[..., LabelledVolume]


def refs(volume: Volumes, numbers: range, *, is_wrong: bool = False) -> list[VolumeRef]:
    return [VolumeRef.of(volume(number, is_wrong=is_wrong), f"digest{number}") for number in numbers]


def recipe(weights: Path, steps: int, rate: float | None = None, synthetic: float = 0.0) -> Recipe:
    return Recipe(weights, steps=steps, batch=4, rate=rate, synthetic=synthetic, device="cpu")


def of_one_slice(volume: LabelledVolume) -> LabelledVolume:
    labels = np.zeros_like(volume.labels)
    labels[..., 8] = volume.labels[..., 8]
    return replace(volume, labels=labels)


def test_a_label_of_one_slice_is_nothing_to_learn_from(volume: Volumes, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "models")
    one = of_one_slice(volume(0))
    one.labels[:2, 0, :2] = 2  # what is too small is no object, on however many slices
    with pytest.raises(UserError, match="on two slices"):
        Round(registry, recipe(BUNDLED, 25)).run(Lessons([VolumeRef.of(one, "digest")], (), ()))
    assert registry.champion == BASE


def test_beside_others_a_label_of_one_slice_is_learned_too(volume: Volumes, tmp_path: Path) -> None:
    new = [VolumeRef.of(of_one_slice(volume(0)), "one slice"), VolumeRef.of(volume(1), "whole")]
    record = Round(Registry(tmp_path / "models"), recipe(BUNDLED, 3)).run(Lessons(new, (), ()))
    assert {label.digest for label in record.new} == {"one slice", "whole"}


def test_better_version_is_used_and_says_why(volume: Volumes, spoilt: Path, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "models")
    told: list[Standing] = []
    new, held_out = refs(volume, range(2)), refs(volume, range(10, 15))
    base = digest(spoilt)
    record = Round(registry, recipe(spoilt, 25, rate=2e-2, synthetic=0.25), told.append).run(Lessons(new, (), held_out))

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
    assert digest(spoilt) == base, "what is learned lies beside the base"
    curves = EventAccumulator(str(registry.folder / "logs" / "v0001")).Reload()
    assert curves.Scalars("loss")[-1].step == 25
    (candidate,) = curves.Scalars("j_and_f/candidate")
    assert candidate.step == 25
    assert candidate.value == pytest.approx(record.figures.candidate, abs=1e-6)


def test_wrong_labels_are_learned_and_refused(volume: Volumes, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "models")
    wrong, held_out = refs(volume, range(3), is_wrong=True), refs(volume, range(10, 15))
    record = Round(registry, recipe(BUNDLED, 15, rate=4e-3, synthetic=0.25)).run(Lessons(wrong, (), held_out))

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
    assert [stack.volume for stack in read_pack(registry.folder / "round" / "pack.npz")] == [0]
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


def prepared(registry: Registry, recipe: Recipe, lessons: Lessons) -> Path:
    """A round that is cut off when its training has just begun: its folder."""
    plan = registry.folder / "round" / "plan.json"

    def cut_off() -> bool:
        if plan.is_file():
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        Round(registry, recipe, is_busy=cut_off).run(lessons)
    return plan.parent


def test_what_cannot_be_gone_on_with_is_begun_anew(
    volume: Volumes, spoilt: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry, lessons = Registry(tmp_path / "models"), Lessons(refs(volume, range(1)))
    folder = prepared(registry, recipe(spoilt, 2), lessons)
    (folder / "run").mkdir(exist_ok=True)
    (folder / "run" / "checkpoint.pt").write_bytes(b"garbage")
    with caplog.at_level(logging.WARNING):
        record = Round(registry, recipe(spoilt, 2)).run(lessons)
    assert "It cannot go on, and begins anew: The fine-tuning ended with code" in caplog.text
    assert record.name == "v0001"


def adapter_of(weights: Path, path: Path) -> Path:
    """An adapter as training leaves it, without training."""
    held = read_weights(weights).tensors
    network = SmallNetwork(adapters=True).state_dict()
    tensors = {NETWORK_PREFIX + name: held.get(NETWORK_PREFIX + name, tensor) for name, tensor in network.items()}
    extra = {"kind": "adapter", "base_sha256": sha256(weights)}
    save_weights(path, tensors, WeightsInfo("small", extra=extra))
    return path


def test_a_candidate_of_other_weights_or_code_is_not_taken_up(
    volume: Volumes, spoilt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, lessons = Registry(tmp_path / "models"), Lessons(refs(volume, range(1)))
    weights = tmp_path / "base.safetensors"
    weights.write_bytes(spoilt.read_bytes())

    def is_kept() -> bool:
        """Whether a candidate that a round left is still there when the next one trains."""
        candidate = adapter_of(weights, registry.folder / "round" / "candidate.safetensors")
        prepared(registry, recipe(weights, 2), lessons)
        return candidate.is_file()

    prepared(registry, recipe(weights, 2), lessons)
    weights.write_bytes(BUNDLED.read_bytes())
    assert not is_kept()
    monkeypatch.setattr(instrument, "training", lambda: "newer")
    assert not is_kept()


def test_figures_of_other_code_are_measured_again(
    volume: Volumes, spoilt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(tmp_path / "models")
    lessons = Lessons(refs(volume, range(1)), (), refs(volume, range(10, 11)))

    def judged(candidate: Path) -> int:
        """Volumes that are measured in a round whose training left this candidate."""
        told: list[Standing] = []
        content = candidate.read_bytes()
        (prepared(registry, recipe(spoilt, 2), lessons) / "candidate.safetensors").write_bytes(content)
        Round(registry, recipe(spoilt, 2), told.append).run(lessons)
        return max(one.judged for one in told)

    assert judged(adapter_of(spoilt, tmp_path / "a.safetensors")) == 2, "the candidate and the base, which is in use"
    published = registry.adapter("v0001")
    assert published is not None
    assert judged(published) == 0
    monkeypatch.setattr(instrument, "measuring", lambda device: f"newer {device}")
    assert judged(published) == 2
