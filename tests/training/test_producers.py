"""Samples are a pure function of seed and number: whoever makes them, and however many do."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from imos.errors import UserError
from imos.network.weights import read_weights
from imos.propagation.model import BUNDLED, ENCODER_PREFIX
from imos.training.packing import Source, training_stacks
from imos.training.phases import Phase, Schedule
from imos.training.producers import SampleMaker, StackChoice, produce
from imos.training.run import TrainSettings, batches
from imos.training.samples import Sample

SMALL = Schedule([Phase("only", 1.0, 64, frames=3)], 1)
SEED = 5


@pytest.fixture(scope="module")
def encoder() -> dict[str, Tensor]:
    tensors = read_weights(BUNDLED).tensors
    return {
        name.removeprefix(ENCODER_PREFIX): tensor for name, tensor in tensors.items() if name.startswith(ENCODER_PREFIX)
    }


@pytest.fixture(scope="module")
def maker(collection: Path, encoder: dict[str, Tensor]) -> SampleMaker:
    return SampleMaker(Source(collection), encoder, SMALL, SEED)


def assert_same(one: Sample, other: Sample) -> None:
    for field in fields(Sample):
        first, second = getattr(one, field.name), getattr(other, field.name)
        for left, right in zip(first, second, strict=True):
            np.testing.assert_array_equal(left, right)


def test_shapes(maker: SampleMaker) -> None:
    sample = maker.make(0)
    assert sample.pictures.shape == sample.masks.shape == (3, 64, 64)
    assert sample.flows.shape == (2, 64, 64, 2)
    assert sample.scores.shape == (2, 32, 32)
    assert [level.shape[0] for level in sample.maps] == [3] * 3
    assert sample.masks[0].any()


def test_supervoxels_of_labelled_and_other_volumes_are_cut_from_too(partly_labelled: Path) -> None:
    source = Source(partly_labelled, holds_out=False, synthetic_share=0.0, supervoxel_share=0.5)
    choices = [StackChoice(source, SEED) for _ in range(2)]
    kinds = []
    for number in range(30):
        (stacks, _), (same, _) = (choice.of(number, np.random.default_rng(number)) for choice in choices)
        assert all(np.array_equal(one.labels, other.labels) for one, other in zip(stacks, same, strict=True))
        kinds.append(len(stacks) == 1)
    assert 5 < sum(kinds) < 25


def test_the_first_samples_are_coarse(collection: Path, encoder: dict[str, Tensor]) -> None:
    maker = SampleMaker(
        Source(collection), encoder, Schedule([Phase("coarse", 0.5, 48), Phase("fine", 0.5, 64)], 4), SEED
    )
    assert [maker.make(number).pictures.shape[1] for number in range(4)] == [48, 48, 64, 64]


def test_held_out_volumes_are_not_trained_on(collection: Path, encoder: dict[str, Tensor]) -> None:
    volumes = training_stacks(Source(collection))
    makers = [SampleMaker(Source(collection), encoder, SMALL, SEED, cases=cases) for cases in ("train", "monitor")]
    trained, held_out = ([stack.slices.mean() for stack in maker.stacks] for maker in makers)
    for number, views in enumerate(volumes):
        means = [view.slices.mean() for view in views]
        assert all((mean in held_out) == (number % 8 == 5) == (mean not in trained) for mean in means)


def test_a_sample_depends_on_nothing_made_before(
    collection: Path, encoder: dict[str, Tensor], maker: SampleMaker
) -> None:
    fresh = SampleMaker(Source(collection), encoder, SMALL, SEED)
    later = fresh.make(7)
    for number in range(8):
        sample = maker.make(number)
    assert_same(later, sample)


def test_another_seed_gives_other_samples(collection: Path, encoder: dict[str, Tensor], maker: SampleMaker) -> None:
    other = SampleMaker(Source(collection), encoder, SMALL, SEED + 1)
    assert not np.array_equal(maker.make(0).pictures, other.make(0).pictures)


def test_order_does_not_depend_on_the_workers(collection: Path, encoder: dict[str, Tensor], maker: SampleMaker) -> None:
    samples = produce(Source(collection), encoder, SMALL, SEED, first=3, workers=2)
    try:
        for number in range(3, 8):
            assert_same(next(samples), maker.make(number))
    finally:
        samples.close()


def test_collection_too_small_to_hold_something_out(
    collection: Path, tmp_path: Path, encoder: dict[str, Tensor]
) -> None:
    small = shutil.copytree(collection, tmp_path / "small")
    table = (small / "volumes.tsv").read_text().splitlines()
    (small / "volumes.tsv").write_text("\n".join(table[:-2]) + "\n")
    with pytest.raises(UserError, match="gives 5 volumes to train on, and 6 are the least"):
        SampleMaker(Source(small), encoder, SMALL, SEED, cases="monitor")


class TestBatches:
    SETTINGS = TrainSettings(batch=6, fresh=2, steps=20, phases=(Phase("only", 1.0, 64),))
    TWO_PHASES = replace(SETTINGS, phases=(Phase("coarse", 0.35, 48), Phase("fine", 0.65, 64)))

    def stream(self, first: int) -> Iterator[Sample]:
        number = first
        while True:
            yield number
            number += 1

    def test_a_restart_draws_the_same_batches(self) -> None:
        unbroken = batches(self.stream(0), self.SETTINGS, step=0, filled=0)
        expected = [next(unbroken) for _ in range(20)]
        resumed = batches(self.stream(0), self.SETTINGS, step=9, filled=18)
        assert [next(resumed) for _ in range(11)] == expected[9:]

    def test_also_when_the_pool_is_full(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("imos.training.run.POOL", 10)
        unbroken = batches(self.stream(0), self.SETTINGS, step=0, filled=0)
        expected = [next(unbroken) for _ in range(20)]
        resumed = batches(self.stream(18 - 10), self.SETTINGS, step=9, filled=10)
        assert [next(resumed) for _ in range(11)] == expected[9:]

    @pytest.mark.parametrize("step", [5, 7, 8, 12])
    def test_also_around_the_change_of_the_grid(self, step: int) -> None:
        settings = self.TWO_PHASES
        unbroken = batches(self.stream(0), settings, step=0, filled=0)
        expected = [next(unbroken) for _ in range(20)]
        filled = settings.filled(step)
        resumed = batches(self.stream(2 * step - filled), settings, step=step, filled=filled)
        assert [next(resumed) for _ in range(20 - step)] == expected[step:]

    def test_coarse_samples_are_not_drawn_after_the_change(self) -> None:
        stream = batches(self.stream(0), self.TWO_PHASES, step=0, filled=0)
        drawn = [next(stream) for _ in range(20)]
        assert all(max(batch) < 14 for batch in drawn[:7])
        assert all(min(batch) >= 14 for batch in drawn[7:])

    def test_new_samples_come_first_and_old_ones_from_the_pool(self) -> None:
        stream = batches(self.stream(0), self.SETTINGS, step=0, filled=0)
        for step in range(20):
            batch = next(stream)
            assert batch[:2] == [2 * step, 2 * step + 1]
            assert len(batch) == 6
            assert max(batch) == 2 * step + 1
