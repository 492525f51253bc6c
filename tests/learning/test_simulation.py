"""`python main.py simulate`: the loop without people, on the miniature collection."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from imos import cli
from imos.datasets.collection import read_collection
from imos.learning import plots, simulation
from imos.learning.volumes import LabelledVolume


def rows(path: Path) -> list[dict[str, str]]:
    header, *lines = (line.split("\t") for line in path.read_text("utf-8").splitlines())
    return [dict(zip(header, line, strict=True)) for line in lines]


@pytest.mark.slow
def test_gains_are_measured_on_the_judges_of_every_set(collection: Path, tmp_path: Path) -> None:
    output = tmp_path / "gains.tsv"
    words = ["simulate", str(collection), "gains", "--sets", "phantom_mr", "--stream", "val", "--judges", "val"]
    drawn = tmp_path / "gains.png"
    assert cli.main([*words, "--accept", "1", "--steps", "2", "-o", str(output), "--plot", str(drawn)]) == 0
    assert drawn.read_bytes().startswith(b"\x89PNG")
    (row,) = rows(output)
    assert (row["set"], row["accepted"]) == ("phantom_mr", "1")
    assert 0 < float(row["base"]) <= 1
    assert float(row["gain"]) == pytest.approx(float(row["after"]) - float(row["base"]), abs=0.0011)
    assert float(row["other: phantom_mr"]) == pytest.approx(float(row["gain"]), abs=0.0011)


@pytest.mark.slow
def test_effort_is_counted_with_the_loop_and_without(collection: Path, tmp_path: Path) -> None:
    output = tmp_path / "effort.tsv"
    words = ["simulate", str(collection), "effort", "--sets", "phantom_mr", "--stream", "val", "--judges", "val"]
    assert cli.main([*words, "--accept", "1", "--steps", "2", "-o", str(output)]) == 0
    base, first = rows(output)
    assert (base["accepted"], first["accepted"]) == ("0", "1")
    assert base["painted"] == base["painted without the loop"] == first["painted without the loop"]
    assert int(base["objects"]) == int(first["objects"]) > 0
    for row in (base, first):
        assert 1 <= float(row["painted"]) <= float(row["slices"])
        assert 0 <= float(row["untouched"]) <= 1


@pytest.mark.slow
def test_rounds_report_every_version_and_the_frozen_figure_of_the_one_in_use(collection: Path, tmp_path: Path) -> None:
    output = tmp_path / "rounds.tsv"
    words = ["simulate", str(collection), "rounds", "--sets", "phantom_mr", "--stream", "train", "--judges", "val"]
    assert cli.main([*words, "--rounds", "1", "--wrong", "1", "--steps", "1", "-o", str(output)]) == 0
    base, first = rows(output)
    assert base["version"] == "base"
    assert (first["accepted"], first["labels"], first["version"]) == ("phantom_mr/balls1", "wrong", "v0001")
    assert first["used"] == "no"  # two volumes judge in the miniature: too few for the gate
    assert "5 are the least" in first["reason"]
    assert first["frozen J&F in use"] == base["frozen J&F in use"]


def test_wrong_labels_lie_elsewhere_and_are_as_many(collection: Path) -> None:
    case = next(case for case in read_collection(collection, "train") if not case.is_video)
    slices, labels = case.load()
    volume = LabelledVolume.of_slices("one", slices, labels)
    wrong = simulation._wrong(volume)
    assert np.array_equal(np.bincount(wrong.labels.ravel()), np.bincount(volume.labels.ravel()))
    both = np.count_nonzero((wrong.labels > 0) & (volume.labels > 0))
    assert both < 0.3 * np.count_nonzero(volume.labels)
    assert wrong.name != volume.name


def test_volumes_are_taken_from_the_sets_in_turn(collection: Path) -> None:
    cases = read_collection(collection, "train")[:3]
    assert simulation._in_turn({"a": cases[:2], "b": cases[2:]}) == [cases[0], cases[2], cases[1]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gains", "--sets", "nothing"], "there is no set 'nothing' in the split 'train'"),
        (["gains", "--sets", "phantom_mr", "--accept", "many"], "is no list of numbers"),
        (["gain", "--sets", "phantom_mr"], "gains"),
        (["gains", "--sets", "phantom_mr", "-o", "nowhere/x.tsv"], "Create it first"),
    ],
)
def test_mistakes_are_one_line(
    collection: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["simulate", str(collection), *words, "--stream", "train"]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("what", "table"),
    [
        ("gains", "set accepted base after;a 1 .5 .6;a 5 .5 .7;b 1 .4 .3"),
        ("rounds", "round labels used frozen_J&F_in_use;0 - yes .5;1 right yes .6;2 wrong no .6;3 right no .6"),
        ("effort", "set accepted painted painted_without_the_loop;a 0 4 4;a 1 3 4;b 0 2 2"),
    ],
)
def test_every_table_has_a_plot(what: str, table: str) -> None:
    lines = [[word.replace("_", " ") for word in line.split()] for line in table.split(";")]
    assert plots.plot(what, lines).startswith(b"\x89PNG")
