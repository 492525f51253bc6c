"""Tables of calibration, categories and planes, and the TSV of slices, from rows made by hand."""

from __future__ import annotations

import csv
from math import nan

import pytest

from imos.datasets.categories import Categories
from imos.datasets.collection import Modality
from imos.evaluation.experiment import Method, Row
from imos.evaluation.judging import Score, SliceScore
from imos.evaluation.planes import View
from imos.evaluation.sequences import Protocol, Sequence
from imos.evaluation.tables import Table, as_tsv, slices_as_tsv, tables_of


def row(
    label: int, j: float, *, modality: Modality = Modality.CT, method: Method = Method.OURS, view: View = View.OWN
) -> Row:
    """A sequence of two judged slices, of which one has a confidence: that by which J is missed by .1."""
    sure = nan if method is Method.COPY else j - 0.1
    slices = (SliceScore(3, j, j, sure), SliceScore(6, j, j))
    score = Score(j, j, 0.0, j, j, slices)
    return Row(Protocol.LARGEST, method, "set", "case", modality, Sequence(label, 3, 6, 5), score, 1.0, view)


ROWS = [row(1, 0.9), row(2, 0.5), row(3, 0.7, modality=Modality.MRI)]


def table(tables: list[Table], beginning: str) -> Table:
    (found,) = (table for table in tables if table.title.startswith(beginning))
    return found


class TestCalibration:
    def test_by_modality_and_overall(self) -> None:
        found = table(tables_of(ROWS), "calibration of the confidence per slice, ours")
        cells = {line[0]: dict(zip(found.header, line, strict=True)) for line in found.lines}
        assert list(cells) == ["CT", "MRI", "all"]
        assert cells["all"]["slices"] == "3"
        assert cells["all"]["ECE"] == ".100"
        assert cells["all"]["r"] == "1.000"
        assert cells["all"]["without confidence"] == "3"
        assert cells["MRI"]["r"] == "–"

    def test_methods_without_confidence_have_none(self) -> None:
        titles = [table.title for table in tables_of([*ROWS, row(1, 0.4, method=Method.COPY)])]
        assert sum(title.startswith("calibration") for title in titles) == 1


class TestCategories:
    NAMES = Categories(
        {("set", "case", 1): "liver", ("set", "case", 2): "aorta", ("set", "case", 3): "liver"}, frozenset({"liver"})
    )

    def test_unseen_ones_have_a_star(self) -> None:
        found = table(tables_of(ROWS, self.NAMES), "J&F (J / F) by category")
        assert [line[0] for line in found.lines] == ["CT aorta*", "CT liver", "MRI liver", "all"]
        assert found.lines[0][2].startswith(".500 (.000)")

    def test_seen_and_unseen(self) -> None:
        found = table(tables_of(ROWS, self.NAMES), "J&F (J / F) of seen and unseen")
        assert [(line[0], line[1]) for line in found.lines] == [("seen", "2"), ("unseen*", "1"), ("all", "3")]
        assert found.lines[0][2].startswith(".800")

    def test_no_table_without_names(self) -> None:
        assert not any("category" in table.title for table in tables_of(ROWS, Categories()))


class TestPlanes:
    ROWS = (*ROWS, row(1, 0.6, view=View.WALKED_SECOND), row(1, 0.2, view=View.SEEN_THIRD))

    def test_each_has_a_column(self) -> None:
        found = table(tables_of(self.ROWS), "J&F of volumes in the other two planes")
        assert found.lines[0] == ("CT", ".700 (n 2)", ".600 (n 1)", "–", "–", ".200 (n 1)")

    def test_other_tables_are_about_the_own_plane(self) -> None:
        assert tables_of(self.ROWS)[0] == tables_of(ROWS)[0]

    def test_tsv_says_which(self) -> None:
        views = [line["view"] for line in csv.DictReader(as_tsv(self.ROWS).splitlines(), delimiter="\t")]
        assert views == ["own"] * 3 + ["walked-2", "seen-3"]

    def test_slices_are_of_the_own_plane(self) -> None:
        assert slices_as_tsv(self.ROWS) == slices_as_tsv(ROWS)


def test_tsv_of_slices() -> None:
    lines = list(csv.DictReader(slices_as_tsv(ROWS).splitlines(), delimiter="\t"))
    assert len(lines) == 6
    assert [lines[0][name] for name in ("label", "slice", "distance", "J")] == ["1", "3", "-2", "0.90000"]
    assert lines[0]["confidence"] == "0.80000"
    assert lines[1]["confidence"] == ""


@pytest.mark.parametrize("numbers", [0, 1])
def test_columns_are_aligned(numbers: int) -> None:
    text = Table("title", ("", "n", "ours"), (("a", "1", ".9"), ("long", "22", ".8")), numbers).as_text()
    expected = [" n" if numbers else "n", " 1" if numbers else "1", "22"]
    assert [line[6:8].rstrip() for line in text.splitlines()[2:]] == expected
