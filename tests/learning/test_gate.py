"""The gate: what passes, what does not, and what it says."""

from __future__ import annotations

import numpy as np
import pytest

from imos.learning import gate
from imos.learning.gate import FEW, FEWEST_VOLUMES, LUCK, by_luck, decide, gain
from imos.registry.records import LabelRef


def scores(*values: float) -> dict[LabelRef, float]:
    return {LabelRef(f"ct{number}", "d"): value for number, value in enumerate(values)}


BASE = scores(0.70, 0.80, 0.60, 0.75, 0.65, 0.72)


def better(by: float) -> dict[LabelRef, float]:
    return {label: value + by for label, value in BASE.items()}


def test_better_on_every_volume_passes() -> None:
    verdict = decide(better(0.05), better(0.01), BASE, "v0003")
    assert verdict.promoted
    assert verdict.reason.startswith("Better than v0003 by +0.040")
    assert "base by +0.050" in verdict.reason
    assert verdict.figures.volumes == 6
    assert verdict.figures.over_base is not None
    assert verdict.figures.over_base.low == pytest.approx(0.05)


def test_worse_than_the_base_does_not_pass_however_good_against_the_champion() -> None:
    verdict = decide(better(-0.01), better(-0.1), BASE, "v0003")
    assert not verdict.promoted
    assert verdict.reason.startswith("Not promoted: not better than base (-0.010")


def test_better_by_luck_does_not_pass() -> None:
    candidate = dict(zip(BASE, np.add(list(BASE.values()), [0.2, -0.1, 0.02, -0.05, 0.03, -0.02]), strict=True))
    verdict = decide(candidate, BASE, BASE, "base")
    assert not verdict.promoted
    assert "not better by more than chance than base" in verdict.reason


def test_the_same_does_not_pass() -> None:
    assert not decide(BASE, BASE, BASE, "base").promoted


@pytest.mark.parametrize("count", range(FEWEST_VOLUMES))
def test_too_few_volumes_never_pass(count: int) -> None:
    few = dict(list(BASE.items())[:count])
    verdict = decide({label: value + 0.2 for label, value in few.items()}, few, few, "base")
    assert not verdict.promoted
    assert f"{FEWEST_VOLUMES}" in verdict.reason


def test_only_volumes_that_all_were_judged_on_count() -> None:
    fewer = dict(list(BASE.items())[:FEWEST_VOLUMES])
    assert decide(better(0.05), fewer, BASE, "v0001").figures.volumes == FEWEST_VOLUMES


def test_chance_alone_seldom_passes() -> None:
    # 400 candidates that are exactly as good as the champion; one in forty is meant, few volumes make it more.
    random = np.random.default_rng(1)
    for volumes, most in ((5, 0.1), (12, 0.06)):
        passed = [gain(random.normal(0, 0.02, volumes)).low > 0 for _ in range(400)]
        assert np.mean(passed) <= most


@pytest.mark.parametrize("volumes", [5, 8])
def test_a_version_that_is_as_good_seldom_passes_the_whole_gate(volumes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in thirty-two at most, and two and a half standard errors of a share of 600 more; bootstrap alone: .06."""
    monkeypatch.setattr(gate, "DRAWS", 1000)
    random = np.random.default_rng(2)
    champion = scores(*[0.7] * volumes)
    runs = [scores(*(0.7 + random.normal(0, 0.02, volumes))) for _ in range(600)]
    passed = np.mean([decide(one, champion, champion, "base").promoted for one in runs])
    assert passed <= LUCK + 0.018


def test_all_ways_to_sign_the_differences_are_counted() -> None:
    assert by_luck(np.array([0.1, 0.2, 0.3, 0.1, 0.4])) == 1 / 32
    assert by_luck(np.array([0.3, -0.1, 0.2])) == 2 / 8  # as they are, and all three up
    assert by_luck(np.zeros(5)) == 1
    assert by_luck(np.full(FEW, 0.01)) == 2.0**-FEW
    assert by_luck(np.full(FEW + 1, 0.01)) == 0  # the bootstrap decides


def test_five_volumes_pass_only_where_all_are_better() -> None:
    """The bootstrap alone lets one of five be a little worse."""
    five = dict(list(BASE.items())[:5])
    differences = np.array([0.03, 0.04, 0.05, 0.04, -0.001])
    assert gain(differences).low > 0
    candidate = dict(zip(five, np.add(list(five.values()), differences), strict=True))
    assert not decide(candidate, five, five, "base").promoted
    candidate = dict(zip(five, np.add(list(five.values()), np.abs(differences)), strict=True))
    assert decide(candidate, five, five, "base").promoted


def test_series_of_one_patient_count_as_one() -> None:
    whose = {label: f"patient{number // 2}" for number, label in enumerate(BASE)}
    verdict = decide(better(0.05), BASE, BASE, "base", whose)
    assert not verdict.promoted
    assert verdict.reason == "Not promoted: 6 volumes of 3 patients are held out, 5 patients are the least."
    assert verdict.figures.volumes == 6
    ten = {LabelRef(f"mr{number}", "d"): 0.6 for number in range(10)}
    pairs = {label: f"patient{number // 2}" for number, label in enumerate(ten)}
    lifted = {label: score + 0.05 for label, score in ten.items()}
    assert decide(lifted, ten, ten, "base", pairs).reason.endswith("on 10 volumes of 5 patients.")


def test_a_patient_with_many_series_weighs_as_much_as_another() -> None:
    """Eight series of one patient gain, four other patients lose: no reason to use it."""
    base = {LabelRef(f"mr{number}", "d"): 0.6 for number in range(12)}
    whose = dict.fromkeys(list(base)[:8], "one")
    candidate = {label: 0.7 if label in whose else 0.58 for label in base}
    assert gain(np.array([candidate[label] - base[label] for label in base])).low > 0
    verdict = decide(candidate, base, base, "base", whose)
    assert not verdict.promoted
    assert verdict.figures.candidate == pytest.approx((0.7 + 4 * 0.58) / 5)


def test_interval_is_the_same_every_time() -> None:
    differences = np.array([0.01, 0.03, -0.02, 0.04, 0.02])
    assert gain(differences) == gain(differences)
    assert gain(differences).low < differences.mean() < gain(differences).high
