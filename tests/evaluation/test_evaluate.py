"""`python main.py evaluate` on a miniature collection: figures that can be counted by hand, and one-line refusals."""

from __future__ import annotations

import csv
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import psutil
import pytest

from imos import cli
from imos.datasets.collection import read_collection
from imos.errors import UserError
from imos.evaluation import evaluate
from imos.evaluation.annotator import Technique
from imos.evaluation.experiment import Experiment, Method, Row, run_cases
from imos.evaluation.sequences import Protocol
from imos.evaluation.tables import as_text, as_tsv
from imos.metrics import boundary_f

COPY_ONLY = Experiment((Method.COPY,))


@pytest.fixture(scope="module")
def copied(collection: Path) -> dict[tuple[str, int], Row]:
    """Rows of `copy`, by set and label."""
    finished = run_cases(read_collection(collection, "val"), COPY_ONLY, workers=1)
    return {(row.group, row.sequence.label): row for _, found in finished for row in found.rows}


class TestFiguresByHand:
    """The steps are 8 pixels wide and 4, 8, 8, 2 pixels high on slices 1 to 4; slice 2 is painted."""

    @pytest.mark.parametrize("group", ["phantom_mr", "phantom_ct"])
    def test_j_and_leak(self, copied: dict[tuple[str, int], Row], group: str) -> None:
        row = copied[group, 1]
        assert (row.sequence.first, row.sequence.last, row.sequence.painted) == (1, 4, 2)
        assert row.score.j == pytest.approx((4 / 8 + 8 / 8 + 2 / 8) / 3)
        assert row.score.leak == pytest.approx(2 * 64 / (32 + 64 + 64 + 16))

    def test_f(self, copied: dict[tuple[str, int], Row]) -> None:
        def step(height: int) -> np.ndarray:
            mask = np.zeros((32, 32), bool)
            mask[10 : 10 + height, 12:20] = True
            return mask

        expected = [boundary_f(step(8), step(height)) for height in (4, 8, 2)]
        assert copied["phantom_mr", 1].score.f == pytest.approx(np.mean(expected))

    def test_passes(self, copied: dict[tuple[str, int], Row]) -> None:
        score = copied["phantom_mr", 1].score
        assert 3 * score.j_and_f == pytest.approx(2 * score.forward + score.backward)

    def test_moving_frames(self, copied: dict[tuple[str, int], Row]) -> None:
        # 10 pixels wide, d = 1…5 frames away: (10 - d) pixels in common of (10 + d)
        assert copied["phantom_video", 1].score.j == pytest.approx(
            np.mean([(10 - distance) / (10 + distance) for distance in range(1, 6)])
        )
        assert copied["phantom_video", 2].score.j_and_f == 1

    def test_leak_before_a_label_comes(self, copied: dict[tuple[str, int], Row]) -> None:
        assert copied["phantom_video", 2].score.leak == pytest.approx(1 / 5)


def test_protocol_first_paints_the_first_slice(collection: Path) -> None:
    experiment = Experiment((Method.COPY,), (Protocol.FIRST,))
    finished = run_cases(read_collection(collection, "val"), experiment, workers=1)
    rows = {(row.group, row.sequence.label): row for _, found in finished for row in found.rows}
    assert set(rows) == {("phantom_mr", 1), ("phantom_ct", 1), ("phantom_video", 1)}  # label 2 is not on frame 0
    assert rows["phantom_mr", 1].sequence.painted == 1
    assert rows["phantom_mr", 1].score.j == pytest.approx((0.5 + 0.5 + 16 / 32) / 3)


class TestTables:
    def test_mean_and_population_std_by_modality(self, copied: dict[tuple[str, int], Row]) -> None:
        text = as_text(list(copied.values()))
        values = [copied["phantom_video", label].score.j_and_f for label in (1, 2)]
        line = next(line for line in text.splitlines() if line.startswith("endoscopy "))
        assert line.split()[1:4] == ["2", f"{np.mean(values):.3f}"[1:], f"({np.std(values):.3f})".replace("0.", ".")]

    def test_all_sets_have_a_line(self, copied: dict[tuple[str, int], Row]) -> None:
        lines = as_text(list(copied.values())).splitlines()
        for name in ("MRI phantom_mr", "CT phantom_ct", "endoscopy phantom_video"):
            assert sum(line.startswith(name) for line in lines) == 1

    def test_leak_is_mean_and_median(self, copied: dict[tuple[str, int], Row]) -> None:
        text = as_text(list(copied.values())).split("leak by modality")[1]
        assert "endoscopy  2  0.10 / 0.10" in text
        assert "MRI        1  0.73 / 0.73" in text

    def test_tsv_has_one_line_a_sequence(self, copied: dict[tuple[str, int], Row]) -> None:
        lines = list(csv.DictReader(as_tsv(copied.values()).splitlines(), delimiter="\t"))
        assert len(lines) == 4
        by_place = {(line["set"], line["label"]): line for line in lines}
        assert by_place["phantom_mr", "1"]["J"] == "0.58333"
        assert by_place["phantom_mr", "1"]["protocol"] == "largest"

    def test_perfect_and_zero_are_readable(self, copied: dict[tuple[str, int], Row]) -> None:
        row = copied["phantom_video", 2]
        assert "1.000 (.000)" in as_text([row])


class TestCommandLine:
    def test_whole_path_with_two_processes(
        self, collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "results.tsv"
        words = ["evaluate", str(collection), "--compare", "floor,copy", "--protocol", "both"]
        causes = tmp_path / "causes.md"
        words += ["--workers", "2", "-o", str(out), "--causes", str(causes), "--device", "cpu"]
        assert cli.main(words) == 0
        assert causes.read_text().startswith("7 sequences.")
        said = capsys.readouterr()
        assert "3/3" in said.err
        for word in ("ours", "floor", "copy", "protocol largest", "protocol first", "MRI", "endoscopy phantom_video"):
            assert word in said.out
        rows = list(csv.DictReader(out.read_text().splitlines(), delimiter="\t"))
        assert len(rows) == 3 * (4 + 3)
        ours = [float(row["J&F"]) for row in rows if row["method"] == "ours" and row["set"] == "phantom_video"]
        copied = [float(row["J&F"]) for row in rows if row["method"] == "copy" and row["set"] == "phantom_video"]
        assert np.mean(ours) > np.mean(copied)
        assert sorted(tmp_path.iterdir()) == [causes, out]

    def test_only_the_sets_asked_for(self, collection: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["evaluate", str(collection), "--sets", "phantom_ct", "--workers", "1"]) == 0
        said = capsys.readouterr().out
        assert "phantom_ct" in said
        assert "phantom_mr" not in said

    def test_names_agree_with_the_enums(self) -> None:
        assert set(evaluate.BASELINES) == set(Method) - {Method.OURS}
        assert set(evaluate.ANNOTATED) == set(Technique) - {Technique.OURS, Technique.EVEN}
        assert set(evaluate.PROTOCOLS) == {*Protocol, "both"}

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (("--split", "vla"), "has no case of split 'vla'. Its splits: train, val."),
            (("--compare", "flw"), "there is no method 'flw': did you mean flow?"),
            (("--compare", "xyz"), "there is no method 'xyz': there are floor, flow, copy, walker, itk."),
            (("--compare", ","), "names are missing"),
            (("--sets", "phantom_mt"), "has no set 'phantom_mt': did you mean phantom_mr?"),
            (("--protocol", "last"), "invalid choice: 'last'"),
            (("--workers", "0"), "'0' is no number of processes"),
            (("--weights", "nowhere.safetensors"), "there is no weights file nowhere.safetensors"),
            (("--adapter", "nowhere.safetensors"), "there is no adapter file nowhere.safetensors"),
            (("-o", "nowhere/results.tsv"), "cannot write nowhere/results.tsv: nowhere is not a folder"),
            (
                ("--compare", "itk"),
                "itk interpolates between painted slices, so one is not enough: ask for it with --anno",
            ),
            (("--effort", "effort.tsv"), "--effort is about the simulated annotator: ask for him with --annotate."),
            (("--html", "nowhere/report.html"), "cannot write nowhere/report.html: nowhere is not a folder"),
            (("--html", "lib"), "--html lib is a folder. Name a file."),
            (("--plots", "README.md"), "--plots README.md is a file, but plots go to a folder."),
            (("-o", "a.tsv", "--slices", "./a.tsv"), "--slices a.tsv would overwrite -o. Choose another name."),
            (("--protocl", "first"), "there is no option --protocl: did you mean --protocol?"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
    )
    def test_refused_in_one_line(
        self, collection: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], expected: str
    ) -> None:
        assert cli.main(["evaluate", str(collection), *words]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.count("\n") == 1
        assert expected in said.err

    @pytest.mark.parametrize("there", [False, True], ids=["no folder", "no tables"])
    def test_no_collection(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], there: bool) -> None:
        assert cli.main(["evaluate", str(tmp_path if there else tmp_path / "nowhere")]) == 2
        said = capsys.readouterr().err
        assert ("neither volumes.tsv nor frames.tsv" if there else "there is no folder") in said
        assert said.count("\n") == 1


def test_what_is_wrong_in_a_worker_reaches_the_user(collection: Path, tmp_path: Path) -> None:
    shutil.copy(collection / "volumes.tsv", tmp_path)  # but not the volumes
    with pytest.raises(UserError, match="Cannot read"):
        list(run_cases(read_collection(tmp_path, "val"), COPY_ONLY, workers=2))


def test_killed_evaluation_leaves_no_process(collection: Path, root: Path) -> None:
    words = [sys.executable, "main.py", "evaluate", str(collection), "--workers", "2"]
    run = subprocess.Popen(words, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    workers: list[Any] = []
    while len(workers) < 2 and run.poll() is None:
        sleep(0.05)
        workers = [child for child in psutil.Process(run.pid).children() if "spawn_main" in " ".join(child.cmdline())]
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert workers
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive
