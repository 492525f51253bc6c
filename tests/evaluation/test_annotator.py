"""The simulated annotator: counts that are known beforehand, and his way of working."""

from __future__ import annotations

from math import isnan
from pathlib import Path

import numpy as np
import pytest

import imos
from imos.datasets.collection import Case, Modality
from imos.errors import UserError
from imos.evaluation import interpolation
from imos.evaluation.annotator import (
    Effort,
    GapFiller,
    SessionFiller,
    Step,
    Technique,
    annotate_case,
    middle_of_greatest_gap,
    simulate,
)
from imos.evaluation.efforts import COLUMNS, effort_tables, efforts_as_tsv, total
from imos.evaluation.experiment import WeightsChoice
from imos.evaluation.sequences import Sequence
from imos.imaging import Image, ImageKind
from imos.propagation.states import SliceState

NOWHERE = Path("case.nii.gz")


def cone(depth: int = 20, size: int = 96) -> np.ndarray:
    """A cone `(D, H, W)` whose radius grows from 20 by one a slice: the last slice is the largest."""
    y, x = np.mgrid[:size, :size]
    return np.stack([(y - 48) ** 2 + (x - 48) ** 2 < (20 + k) ** 2 for k in range(depth)])


class Painted:
    """Makes nothing but what was painted; proposes what it was given."""

    def __init__(self, shape: tuple[int, ...], proposals: list[int] | None = None) -> None:
        self.made = np.zeros(shape, bool)
        self.order: list[int] = []
        self._proposals = proposals or []

    def paint(self, index: int, mask: np.ndarray) -> None:
        self.made[index] = mask
        self.order.append(index)

    def volume(self) -> np.ndarray:
        return self.made

    def proposal(self) -> int | None:
        return self._proposals.pop(0) if self._proposals else None


class Perfect(Painted):
    """Makes the truth of any one slice."""

    def __init__(self, truth: np.ndarray) -> None:
        super().__init__(truth.shape)
        self._truth = truth

    def volume(self) -> np.ndarray:
        return self._truth


BOX = np.zeros((10, 8, 8), bool)
BOX[2:8, 2:6, 2:6] = True
WHOLE_BOX = Sequence(1, first=2, last=7, painted=2)


class TestLoop:
    def test_perfect_method_needs_one_slice(self) -> None:
        steps, accepted, outside = simulate(Perfect(BOX), BOX, WHOLE_BOX)
        assert (steps, accepted, outside) == ((Step(1, 1.0),), 1.0, 0)

    def test_method_that_does_nothing_needs_all_slices_for_95(self) -> None:
        steps, accepted, _ = simulate(Painted(BOX.shape), BOX, WHOLE_BOX)
        # n of 6 equal slices: Dice 2n / (n + 6), .909 with 5 and 1 with 6
        assert [step.dice for step in steps] == pytest.approx([2 * n / (n + 6) for n in range(1, 7)])
        assert accepted == 0
        effort = Effort(Technique.OURS, "set", "case", Modality.CT, WHOLE_BOX, steps, accepted, 0)
        assert effort.painted_until(0.90) == 5
        assert effort.painted_until(0.95) == 6

    def test_without_proposals_he_halves_the_greatest_gap(self) -> None:
        filler = Painted(BOX.shape)
        simulate(filler, BOX, WHOLE_BOX)
        assert filler.order == [2, 5, 3, 6, 4, 7]

    def test_proposals_are_followed_and_repeated_ones_are_not(self) -> None:
        filler = Painted(BOX.shape, [7, 7, 4])
        simulate(filler, BOX, WHOLE_BOX)
        assert filler.order[:4] == [2, 7, 4, 5]

    def test_proposals_beyond_the_object_count(self) -> None:
        filler = Painted(BOX.shape, [9, 0])
        steps, _, outside = simulate(filler, BOX, WHOLE_BOX)
        assert outside == 2
        assert [step.painted for step in steps] == [1, 2, 3, 4, 5, 6]
        assert steps[2].dice == steps[0].dice

    def test_slices_painted_from_the_start_count_at_once(self) -> None:
        steps, accepted, _ = simulate(Painted(BOX.shape), BOX, WHOLE_BOX, (2, 4, 7))
        assert steps[0] == Step(3, pytest.approx(6 / 9))
        assert isnan(accepted)

    def test_never_more_than_the_object_has(self) -> None:
        effort = Effort(Technique.OURS, "set", "case", Modality.CT, WHOLE_BOX, (Step(6, 0.4),), 0.0, 3)
        assert effort.painted_until(0.90) == 6


@pytest.mark.parametrize(
    ("painted", "expected"),
    [([5], 2), ([0], 5), ([9], 4), ([0, 9], 4), ([3, 9], 6), (range(10), None), ([5, 20], 2), ([4, 5], 1)],
)
def test_middle_of_greatest_gap(painted: list[int], expected: int | None) -> None:
    assert middle_of_greatest_gap(painted, 0, 9) == expected


class TestGaps:
    def test_only_new_gaps_are_filled(self) -> None:
        asked: list[tuple[range, bool, bool]] = []

        def between(gap: range, lower: np.ndarray | None, upper: np.ndarray | None) -> np.ndarray:
            asked.append((gap, lower is not None, upper is not None))
            return np.ones((len(gap), 8, 8), bool)

        filler = GapFiller((10, 8, 8), 2, 7, between)
        filler.paint(4, BOX[4])
        assert filler.volume()[2:8].any((1, 2)).all()
        assert not filler.volume()[[0, 1, 8, 9]].any()
        assert asked == [(range(2, 4), False, True), (range(5, 8), True, False)]
        filler.paint(6, BOX[6])
        made = filler.volume()
        assert asked[2:] == [(range(5, 6), True, True), (range(7, 8), True, False)]
        np.testing.assert_array_equal(made[[4, 6]], BOX[[4, 6]])


class TestInterpolation:
    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        try:
            interpolation.check_installed()
        except UserError as error:
            pytest.skip(str(error))

    def efforts(self, labels: np.ndarray) -> list[Effort]:
        case = Case("set", "case", Modality.CT, NOWHERE, 0, False, NOWHERE)
        slices = np.zeros(labels.shape, np.uint8)
        return list(annotate_case(case, slices, labels.astype(np.uint8), [Technique.ITK], WeightsChoice().load()))

    def test_linear_cone_needs_its_first_and_last_slice(self) -> None:
        (effort,) = self.efforts(cone())
        assert [effort.painted_until(target) for target in (0.90, 0.95)] == [2, 2]
        assert isnan(effort.accepted)

    def test_double_cone_needs_its_largest_slice_too(self) -> None:
        (effort,) = self.efforts(np.concatenate([cone(12), cone(12)[::-1]]))
        assert effort.painted_until(0.90) == 3
        assert effort.steps[0].painted == 3


def annotated(contrast: float, drift: float) -> dict[Technique, Effort]:
    """A ball in noise whose middle drifts to and fro, annotated with our method, by its proposals and evenly."""
    k, y, x = np.mgrid[:16, :48, :48]
    middle = 24 + drift * np.sin(k / 2)
    labels = (((k - 8) * 1.8) ** 2 + (y - middle) ** 2 + (x - 24) ** 2 < 12**2).astype(np.uint8)
    noise = np.random.default_rng(0).normal(0, 8, labels.shape)
    slices = (80 + contrast * labels + 20 * np.sin(x / 4) + noise).clip(0, 255).astype(np.uint8)
    case = Case("set", "case", Modality.MRI, NOWHERE, 0, False, NOWHERE)
    model = WeightsChoice(device="cpu").load()
    found = annotate_case(case, slices, labels, [Technique.OURS, Technique.EVEN], model)
    return {effort.technique: effort for effort in found}


@pytest.fixture(scope="module")
def hard() -> dict[Technique, Effort]:
    return annotated(contrast=3, drift=6)


class TestOurs:
    def test_object_that_is_plain_to_see_needs_one_slice(self) -> None:
        for effort in annotated(contrast=100, drift=1).values():
            assert effort.painted_until(0.90) == 1
            assert effort.accepted > 0.8

    def test_object_that_cannot_be_seen_needs_more(self, hard: dict[Technique, Effort]) -> None:
        for effort in hard.values():
            assert 1 < effort.painted_until(0.90) < effort.slices
            assert effort.steps[-1].dice >= 0.95
            assert [step.painted for step in effort.steps] == list(range(1, len(effort.steps) + 1))

    def test_both_start_from_the_same_slice_with_the_same_volume(self, hard: dict[Technique, Effort]) -> None:
        proposed, even = hard[Technique.OURS], hard[Technique.EVEN]
        assert proposed.steps[0] == even.steps[0]
        assert proposed.accepted == even.accepted
        assert proposed.steps != even.steps

    def test_a_proposed_slice_without_the_object_is_said_to_be_absent(self) -> None:
        labels = np.zeros((9, 40, 40), bool)
        labels[3:6, 12:26, 12:26] = True
        slices = np.moveaxis(60 + 80 * labels, 0, 2).astype(np.uint8)
        image = Image(slices, np.eye(4), ImageKind.VOLUME, "case")
        session = imos.Session(WeightsChoice(device="cpu").load(), image)
        filler = SessionFiller(session, proposes=True)
        filler.paint(4, labels[4])
        filler.volume()
        assert filler.proposal() == session.result.suggested[1]
        filler.paint(6, labels[6])
        made = filler.volume()
        assert session.result.states[1][6] is SliceState.ABSENT
        assert not made[6:].any()
        np.testing.assert_array_equal(made[4], labels[4])


def made_efforts() -> list[Effort]:
    long, short = Sequence(1, 0, 9, 4), Sequence(2, 0, 4, 2)
    return [
        Effort(Technique.OURS, "a", "one", Modality.CT, long, (Step(1, 0.8), Step(2, 0.96)), 5 / 9, 0),
        Effort(Technique.OURS, "a", "one", Modality.CT, short, (Step(1, 0.91), Step(2, 0.92), Step(3, 0.95)), 1.0, 1),
        Effort(Technique.ITK, "a", "one", Modality.CT, long, (Step(3, 0.7), Step(4, 0.91), Step(8, 0.97)), np.nan, 0),
        Effort(Technique.ITK, "a", "one", Modality.CT, short, (Step(3, 0.91), Step(5, 1.0)), np.nan, 0),
    ]


class TestTables:
    def test_mean_median_and_the_share_of_itk(self) -> None:
        tables = {table.title: table for table in effort_tables(made_efforts())}
        painted = tables["simulated annotator, slices painted until Dice .90: mean / median over objects"]
        assert painted.header == ("", "n", "ours", "itk")
        assert painted.lines[0] == ("CT", "2", "1.50 / 1.5", "3.50 / 3.5")
        share = tables["simulated annotator, all painted slices until Dice .95 over those with itk"]
        assert share.lines[-1] == ("all", "2", "5 / 13 = 0.38", "13 / 13 = 1.00")
        assert total(made_efforts(), Technique.OURS, 0.90) == 3

    def test_accepted_slices_are_counted_over_slices(self) -> None:
        table = next(table for table in effort_tables(made_efforts()) if "accepted" in table.title)
        assert table.lines[0] == ("CT", "2", ".692", "–")  # (5 + 4) of (9 + 4)

    def test_tsv(self) -> None:
        lines = efforts_as_tsv(made_efforts()).splitlines()
        assert lines[0].split("\t") == list(COLUMNS)
        assert len(lines) == 5
        first = dict(zip(COLUMNS, lines[1].split("\t"), strict=True))
        assert (first["technique"], first["painted_until_0.90"], first["painted_until_0.95"]) == ("ours", "2", "2")
        assert first["dice"] == "1:0.8000 2:0.9600"

    def test_nobody_annotated(self) -> None:
        assert effort_tables([]) == []
