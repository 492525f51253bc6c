"""The gate: what passes, what does not, and what it says."""

from __future__ import annotations

import numpy as np
import pytest

from imos.learning.gate import FEWEST_VOLUMES, decide, gain
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


def test_interval_is_the_same_every_time() -> None:
    differences = np.array([0.01, 0.03, -0.02, 0.04, 0.02])
    assert gain(differences) == gain(differences)
    assert gain(differences).low < differences.mean() < gain(differences).high
