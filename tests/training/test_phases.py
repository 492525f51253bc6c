"""Phases laid over steps and samples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imos.errors import UserError
from imos.training.phases import SMALL_PHASES, Phase, Schedule, parse_phases

shares = st.lists(st.floats(0.05, 1), min_size=1, max_size=5)


@given(shares, st.integers(20, 500), st.integers(1, 6))
def test_samples_change_phase_where_steps_do(shares: list[float], steps: int, fresh: int) -> None:
    phases = [Phase(str(number), share, 64) for number, share in enumerate(shares)]
    by_step, by_sample = Schedule(phases, steps), Schedule(phases, steps, fresh)
    for step in range(steps):
        for sample in range(step * fresh, (step + 1) * fresh):
            assert by_sample.at(sample).phase == by_step.at(step).phase


@given(shares)
def test_phases_take_their_share(shares: list[float]) -> None:
    phases = [Phase(str(number), share, 64) for number, share in enumerate(shares)]
    schedule = Schedule(phases, 1000)
    for phase in phases:
        taken = sum(schedule.at(step).phase == phase for step in range(1000))
        assert taken == pytest.approx(1000 * phase.share / sum(shares), abs=1)


def test_the_last_phase_goes_on() -> None:
    assert Schedule(SMALL_PHASES, 10).at(10**6).phase is SMALL_PHASES[-1]


def test_phases_of_a_command_line() -> None:
    static, long = parse_phases("static:0.2:64:3:0,long:0.8:112:4:3")
    assert static == Phase("static", 0.2, 64, 3, 1, still=True)
    assert long == Phase("long", 0.8, 112, 4, 3)


@pytest.mark.parametrize("text", ["", "long", "long:x:64:3:1", "long:1:60:3:1", "long:1:64:1:1", "long:0:64:3:1"])
def test_others_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="phase"):
        parse_phases(text)
