"""`python main.py benchmark`: what is timed works, and the figures are put together rightly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from imos import cli
from imos.benchmark import benchmark
from imos.benchmark.cases import make_case
from imos.benchmark.goals import Goal, growth, linearity
from imos.benchmark.measure import CORRECTIONS, Measured, Task, measure, measure_apart
from imos.benchmark.table import show, write_plot, write_table

MEASURED = Measured(Task(256, 100, 1), 1.0, 0.1, 2.0, 100, 0.99, [0.2], 13.0, 400.0, 0.0)


@pytest.mark.parametrize("objects", [1, 4, 9])
def test_every_object_is_in_one_piece_on_every_slice_and_brighter_than_the_rest(objects: int) -> None:
    case = make_case(96, 12, objects)
    for labels, voxels in zip(case.labels, case.voxels, strict=True):
        assert set(np.unique(labels)) == set(range(objects + 1))
        for value in range(1, objects + 1):
            assert ndimage.label(labels == value)[1] == 1
            assert voxels[labels == value].mean() > voxels[labels == 0].mean() + 100
    assert case.image.shape == (96, 96, 12)


def test_a_case_is_the_same_each_time() -> None:
    one, other = make_case(64, 5, 2), make_case(64, 5, 2)
    assert np.array_equal(one.voxels, other.voxels)
    assert np.array_equal(one.labels, other.labels)


def test_a_measurement_in_a_process_of_its_own_finds_the_objects() -> None:
    found = measure_apart(Task(96, 9, 2))
    assert found.task == Task(96, 9, 2)
    assert found.dice > 0.8
    assert found.reached == 9
    assert 0 < found.first < found.all
    assert found.per_slice == pytest.approx(found.all / 16)
    assert found.peak_mb > found.volume_mb > 0


@pytest.mark.slow
def test_corrections_are_timed_between_prompts() -> None:
    found = measure(Task(64, 90, 1, corrects=True))
    assert len(found.corrections) == len(CORRECTIONS)
    assert max(found.corrections) < found.all


def test_a_line_has_r_squared_one_and_a_parabola_less() -> None:
    slices = [50, 100, 200, 400]
    assert linearity(slices, [0.3 + 0.02 * count for count in slices]) == pytest.approx(1)
    assert linearity(slices, [count**2 for count in slices]) < 0.98


def test_growth_is_below_one_where_objects_share_work() -> None:
    eight = replace(MEASURED, task=replace(MEASURED.task, objects=8), all=8.0)
    assert growth(MEASURED, eight) == pytest.approx(0.5)


def test_goals_say_whether_they_are_met() -> None:
    assert Goal("seconds", 3.0, 3.0).met
    assert not Goal("seconds", 3.0, 3.01).met
    assert Goal("R²", 0.98, 0.99, "", at_least=True).met
    assert "MISSED" in str(Goal("R²", 0.98, 0.97, "", at_least=True))


def test_table_and_plot_are_written(tmp_path: Path) -> None:
    table = [MEASURED, replace(MEASURED, task=Task(256, 50, 1), all=1.0), replace(MEASURED, task=Task(256, 100, 4))]
    write_table(tmp_path / "benchmark.tsv", table)
    write_plot(tmp_path / "benchmark.png", table)
    header, first, *_ = (tmp_path / "benchmark.tsv").read_text("utf-8").splitlines()
    row = dict(zip(header.split("\t"), first.split("\t"), strict=True))
    assert row["all s"] == "2.00"
    assert row["ms/slice/object"] == "20.2"
    assert (tmp_path / "benchmark.png").stat().st_size > 5000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["benchmark.png", "benchmark.tsv"]
    assert len(show(table).splitlines()) == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--slices", "ten"], "is no list of numbers"),
        (["--repeats", "0"], "0 is less than 1"),
        (["--slices", "1,50"], "there is nothing to propagate to"),
        (["-o", "nowhere"], "is not a folder"),
        (["--reference", "nowhere"], "is no checkout of XMem"),
        (["--quik"], "did you mean --quick?"),
    ],
)
def test_mistakes_are_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["benchmark", *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_prints_goals_limits_and_flow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"FULL_SIDE": 64, "HALF_SIDE": 32, "USUAL_SLICES": 90, "QUICK_SLICES": (5, 9, 12)}
    for name, value in small.items():
        monkeypatch.setattr(benchmark, name, value)
    real = benchmark.measure_apart
    monkeypatch.setattr(benchmark, "measure_apart", lambda task: real(replace(task, objects=min(task.objects, 2))))
    assert cli.main(["benchmark", "--quick", "--repeats", "1", "-o", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "90 slices of 64², eight objects" in said
    assert "One core:" in said
    assert "Optical flow of whole slices of 64²" in said
    assert (tmp_path / "benchmark.tsv").is_file()
