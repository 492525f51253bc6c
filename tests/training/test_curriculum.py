"""The paper's phases over the steps and clips of a run, long or short."""

from __future__ import annotations

import pytest

from imos.errors import UserError
from imos.training.curriculum import PAPER_PHASES, PAPER_STEPS, ClipPhase, Curriculum, of_phases, resized
from imos.training.losses import kept_fraction
from imos.training.phases import parse_phases


@pytest.fixture
def paper() -> Curriculum:
    return Curriculum(PAPER_PHASES, PAPER_STEPS)


def test_phases_begin_where_the_papers_do(paper: Curriculum) -> None:
    names = {step: paper.at(step).phase.name for step in (0, 149_999, 150_000, 309_999, 310_000, 419_999)}
    assert list(names.values()) == ["static", "static", "long", "long", "short", "short"]
    assert paper.at(150_000).iteration == 0


def test_learning_rate_drops_where_the_papers_does(paper: Curriculum) -> None:
    drops = [step for step in range(1, PAPER_STEPS) if paper.at(step).rate_factor < paper.at(step - 1).rate_factor]
    assert drops == [150_000 + 120_000, 310_000 + 80_000]


def test_slices_lie_further_apart_and_nearer_in_the_end(paper: Curriculum) -> None:
    gaps = [paper.at(150_000 + iteration).gap for iteration in (0, 14_999, 15_000, 45_000, 134_999, 135_000, 159_999)]
    assert gaps == [1, 1, 2, 3, 3, 1, 1]


def test_last_ten_thousand_steps_are_the_tail(paper: Curriculum) -> None:
    assert [paper.at(step).is_tail for step in (149_999, 299_999, 300_000, 409_999, 410_000)] == [
        *(False, False, True),
        *(False, True),
    ]


def test_loss_hardens_as_in_the_paper_and_sooner_in_a_shorter_run(paper: Curriculum) -> None:
    assert paper.warm_up == (20_000, 70_000)
    short = Curriculum(PAPER_PHASES, 4200)
    assert short.warm_up == (200, 700)
    assert kept_fraction(450, short.warm_up) == pytest.approx(kept_fraction(45_000))
    assert kept_fraction(1, Curriculum(PAPER_PHASES, 3).warm_up) <= 1  # not divided by nothing


def test_every_clip_belongs_to_the_phase_of_its_step() -> None:
    phases = [
        ClipPhase("static", 1, batch=6, still=True),
        ClipPhase("long", 2, batch=2),
        ClipPhase("short", 1, batch=4),
    ]
    curriculum = Curriculum(phases, 9)
    number = 0
    for step in range(9):
        assert curriculum.clips_before(step) == number
        for _ in range(curriculum.at(step).phase.batch):
            assert curriculum.at_clip(number) == curriculum.at(step)
            number += 1


def test_every_phase_gets_a_step() -> None:
    curriculum = Curriculum(PAPER_PHASES, 3)
    assert [curriculum.at(step).phase.name for step in range(3)] == ["static", "long", "short"]
    with pytest.raises(UserError, match="2 steps are too few for 3 phases"):
        Curriculum(PAPER_PHASES, 2)


def test_phases_of_a_command_line_keep_what_the_paper_does() -> None:
    static, long = of_phases(parse_phases("static:0.3:64:3:0,long:0.7:96:8:15"))
    assert (static.still, static.references, static.objects, static.size) == (True, 2, 1, 64)
    assert (long.references, long.objects, long.frames, long.size) == (3, 3, 8, 96)
    assert long.gaps == (5, 10, 15, 5)  # XMem's for natural videos


def test_sizes_can_be_chosen() -> None:
    static, long, _ = resized(PAPER_PHASES, 96, 5, 2)
    assert (static.size, static.frames, static.batch) == (96, 3, 2)
    assert (long.size, long.frames, long.batch) == (96, 5, 2)
    assert resized(PAPER_PHASES, None, None, None) == list(PAPER_PHASES)


@pytest.mark.parametrize(("size", "frames", "said"), [(100, None, "multiple of 16"), (None, 1, "at least 2 slices")])
def test_impossible_sizes_are_refused(size: int | None, frames: int | None, said: str) -> None:
    with pytest.raises(UserError, match=said):
        resized(PAPER_PHASES, size, frames, None)
