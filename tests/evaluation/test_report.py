"""The report: examples, plots, and one HTML file that needs nothing beside it."""

from __future__ import annotations

import csv
import re
from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from imos import cli
from imos.datasets.categories import Categories
from imos.datasets.collection import Modality, read_collection
from imos.errors import UserError
from imos.evaluation import interpolation, walker
from imos.evaluation.annotator import TARGETS, Technique
from imos.evaluation.experiment import Experiment, Method, Row, run_case
from imos.evaluation.judging import Score
from imos.evaluation.packed import Packed
from imos.evaluation.pictures import OURS, TRUE, Rank, choose_examples, draw_example
from imos.evaluation.plots import Plot
from imos.evaluation.report_html import report
from imos.evaluation.sequences import Protocol, Sequence
from imos.evaluation.tables import Table
from imos.propagation.sheet import PAINTED


def row(case: str, quality: float, modality: Modality = Modality.CT, found: np.ndarray | None = None) -> Row:
    score = Score(quality, quality, 0.0, quality, quality)
    kept = Packed.of(np.zeros((6, 32, 32), bool) if found is None else found)
    return Row(Protocol.LARGEST, Method.OURS, "set", case, modality, Sequence(1, 1, 4, 2), score, 0.0, found=kept)


class TestExamples:
    def test_best_median_and_worst(self) -> None:
        rows = [row(name, quality) for name, quality in zip("abcde", (0.3, 0.9, 0.5, 0.1, 0.6), strict=True)]
        examples = choose_examples(rows)[Modality.CT]
        assert [(example.rank, example.row.case) for example in examples] == [
            (Rank.BEST, "b"),
            (Rank.MEDIAN, "c"),
            (Rank.WORST, "d"),
        ]

    def test_few_are_shown_once_each(self) -> None:
        two = choose_examples([row("a", 0.3), row("b", 0.9)])[Modality.CT]
        assert [(example.rank, example.row.case) for example in two] == [(Rank.BEST, "b"), (Rank.WORST, "a")]
        assert len(choose_examples([row("a", 0.3)])[Modality.CT]) == 1

    def test_every_modality_has_its_own(self) -> None:
        rows = [row("a", 0.3), row("b", 0.9, Modality.MRI)]
        assert list(choose_examples(rows)) == [Modality.CT, Modality.MRI]


def colours(png: bytes) -> np.ndarray:
    return np.asarray(Picture.open(BytesIO(png)).convert("RGB")).reshape(-1, 3)


class TestPicture:
    @pytest.mark.parametrize("group", ["phantom_mr", "phantom_ct", "phantom_video"])
    def test_both_outlines_and_the_painted_slice(self, collection: Path, group: str) -> None:
        (case,) = (case for case in read_collection(collection, "val") if case.group == group)
        _, labels = case.load()
        found = np.roll(labels == 1, 4, axis=1)
        seen = colours(draw_example(case, row(case.name, 0.5, found=found)))
        for colour in (TRUE, OURS, PAINTED):
            assert (np.abs(seen.astype(int) - colour).max(1) < 12).any()

    def test_ours_lies_on_the_truth_where_both_agree(self, collection: Path) -> None:
        case = read_collection(collection, "val")[0]
        _, labels = case.load()
        seen = colours(draw_example(case, row(case.name, 1.0, found=labels == 1))).astype(int)
        true, ours = ((np.abs(seen - colour).max(1) < 12).sum() for colour in (TRUE, OURS))
        assert ours > 2 * true > 0  # the painted slice alone shows the truth


def test_packed_masks_come_back() -> None:
    mask = np.random.default_rng(0).random((5, 7, 9)) > 0.5
    np.testing.assert_array_equal(Packed.of(mask).mask(), mask)


class Elements(HTMLParser):
    """Which elements are open, and where the page points to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


class TestPage:
    def test_elements_are_closed_and_text_is_escaped(self) -> None:
        table = Table("J<F", ("", "n"), (("<b>", "1"),))
        page = report("a & b", ["<i>"], [table], [Plot("p", 'plot "p"', b"png")], [])
        assert Elements(page).open == []
        assert "a &amp; b" in page
        assert "&lt;b&gt;" in page
        assert "<b>" not in page
        assert "<i>" not in page

    def test_sections_without_content_are_left_out(self) -> None:
        page = report("title", [], [Table("t", ("", "n"), ())], [], [])
        assert "Plots" not in page
        assert "Pictures" not in page


@pytest.fixture(scope="module")
def _optional() -> None:
    try:
        interpolation.check_installed()
        walker.check_installed()
    except UserError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("_optional")
def test_whole_path(collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(collection), "--annotate", "--planes", "--workers", "1", "--device", "cpu"]
    files = {name: tmp_path / f"{name}.tsv" for name in ("output", "slices", "effort")}
    words += [word for name, path in files.items() for word in (f"--{name}", str(path))]
    assert cli.main([*words, "--html", str(tmp_path / "r.html"), "--plots", str(tmp_path / "plots")]) == 0
    said = capsys.readouterr().out
    for title in ("calibration of the confidence", "other two planes", "until Dice .90", "over those with itk"):
        assert title in said

    page = (tmp_path / "r.html").read_text()
    parsed = Elements(page)
    assert parsed.open == []
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in parsed.links)
    pictures = [b64decode(data) for data in re.findall(r"base64,([^\"]+)\"", page)]
    # three plots; one sequence of MRI and of CT, two of endoscopy
    assert len(pictures) == 3 + 1 + 1 + 2
    for png in pictures:
        assert min(Picture.open(BytesIO(png)).size) > 100
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"distance.png", "calibration.png", "effort.png"}
    assert {path.name for path in tmp_path.iterdir()} == {*(path.name for path in files.values()), "r.html", "plots"}

    rows = {name: list(csv.DictReader(path.read_text().splitlines(), delimiter="\t")) for name, path in files.items()}
    assert {line["technique"] for line in rows["effort"]} == set(Technique)
    assert {line["set"] for line in rows["effort"]} == {"phantom_mr", "phantom_ct"}
    for line in rows["effort"]:
        counts = [int(line[f"painted_until_{target:.2f}"]) for target in TARGETS]
        assert 1 <= counts[0] <= counts[1] <= int(line["slices"]) == 4
    for line in rows["output"]:
        own = [
            float(part["J"]) for part in rows["slices"] if (part["set"], part["label"]) == (line["set"], line["label"])
        ]
        if line["view"] == "own":
            assert float(line["J"]) == pytest.approx(np.mean(own), abs=1e-4)
    assert {line["view"] for line in rows["output"]} == {"own", "walked-2", "walked-3", "seen-2", "seen-3"}


def test_only_the_techniques_asked_for(collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "effort.tsv"
    words = ["evaluate", str(collection), "--annotate", "--compare", "copy", "--sets", "phantom_mr", "--workers", "1"]
    assert cli.main([*words, "--effort", str(out)]) == 0
    assert "copy" in capsys.readouterr().out
    found = {line["technique"] for line in csv.DictReader(out.read_text().splitlines(), delimiter="\t")}
    assert found == {"ours", "ours-even"}


def test_report_of_a_method_without_confidence(collection: Path) -> None:
    case = read_collection(collection, "val")[0]
    rows = run_case(case, Experiment((Method.COPY,)), None).rows
    assert not choose_examples(rows)
    assert not Categories()
