"""`prepare`: what it writes is what `train` and `evaluate` read, whole or not at all, and taken up where it was."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import Any

import nibabel
import numpy as np
import pytest

from imos import cli
from imos.datasets.collection import Modality, read_collection
from imos.datasets.conversion import data_set_of
from imos.datasets.prepare import DATA_SETS
from imos.datasets.splits import Split, split_of
from imos.evaluation.sequences import Protocol, sequences_of

ROOT = Path(__file__).parents[2]

Make = Callable[..., Any]
Run = Callable[..., Any]

AMOS = tuple(range(1, 13))
"""Numbers that fall into every split."""

MODALITY = {
    "amos22": Modality.CT,
    "camus": Modality.ULTRASOUND,
    "older_camus": Modality.ULTRASOUND,
    "cholecseg8k": Modality.ENDOSCOPY,
    "epfl": Modality.EM,
}


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def times_of(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.nii.gz")}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_name_of_the_command_line_is_a_data_set() -> None:
    assert [data_set_of(name).name for name in DATA_SETS] == list(DATA_SETS)


def test_help_needs_no_numpy() -> None:
    words = [sys.executable, "-X", "importtime", "main.py", "prepare", "--help"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert not imported & {"numpy", "torch", "nibabel", "cv2", "scipy", "PIL"}


@pytest.mark.parametrize("layout", MODALITY)
class TestEveryLayout:
    @pytest.fixture
    def done(self, make: Make, prepared: Run, tmp_path: Path, layout: str) -> tuple[Any, Path]:
        miniature = make(layout, tmp_path / "source", **({"numbers": AMOS} if layout == "amos22" else {}))
        prepared(layout.removeprefix("older_"), miniature.root, tmp_path / "target")
        return miniature, tmp_path / "target"

    def test_the_collection_reads_what_was_published(self, done: tuple[Any, Path], layout: str) -> None:
        miniature, target = done
        seen = set()
        for split in sorted({row["split"] for row in rows_of(target / "sequences.tsv")}):
            for case in read_collection(target, split):
                slices, labels = case.load()
                assert case.group == layout.removeprefix("older_")
                assert case.modality is MODALITY[layout]
                np.testing.assert_array_equal(labels, np.moveaxis(miniature.labels[case.name], 2, 0))
                assert slices.dtype == np.uint8
                if layout != "amos22":  # whose Hounsfield values are windowed
                    np.testing.assert_array_equal(slices, np.moveaxis(miniature.images[case.name], 2, 0))
                seen.add(case.name)
        assert seen == set(miniature.images)

    def test_one_row_a_case_and_label_from_first_to_last_slice(self, done: tuple[Any, Path], layout: str) -> None:
        miniature, target = done
        rows = {(row["case"], int(row["label"])): row for row in rows_of(target / "sequences.tsv")}
        expected = {(name, int(label)) for name, all_ in miniature.labels.items() for label in np.unique(all_) if label}
        assert set(rows) == expected
        for (name, label), row in rows.items():
            areas = np.count_nonzero(miniature.labels[name] == label, axis=(0, 1))
            shown = np.flatnonzero(areas)
            assert (int(row["first"]), int(row["last"])) == (shown[0], shown[-1])
            assert areas[int(row["largest"])] == areas.max() == int(row["pixels"])
            assert int(row["slices"]) == shown.size

    def test_no_patient_is_in_two_splits(self, done: tuple[Any, Path], layout: str) -> None:
        _, target = done
        splits: dict[str, set[str]] = {}
        for row in rows_of(target / "sequences.tsv"):
            splits.setdefault(row["patient"], set()).add(row["split"])
        if layout == "epfl":
            assert splits == {"hippocampus": {"train", "test"}}  # one animal; the published division is kept
        else:
            assert splits == {patient: {split_of(patient)} for patient in splits}

    def test_the_manifest_has_the_hash_of_every_file(self, done: tuple[Any, Path], layout: str) -> None:
        miniature, target = done
        manifest = json.loads((target / "manifest.json").read_text())
        written = dict(manifest["tables"])
        sources = dict(manifest["described_by"])
        for case in manifest["cases"]:
            written |= case["written"]
            sources |= case["sources"]
        assert written == {name: sha256(target / name) for name in files_of(target) if name != "manifest.json"}
        assert sources == {name: sha256(miniature.root / name) for name in sources}
        named = {path for path in files_of(miniature.root) if "Ts" not in path and "testing/" not in path}
        unread = {"camus": {".cfg"}, "older_camus": set(), "cholecseg8k": {"_mask.png"}}.get(layout, set())
        left = {path for path in named - sources.keys() if not path.endswith(tuple(unread) or ("-",))}
        assert {path for path in left if "_sequence." not in path} == set()

    def test_tables_have_the_columns_of_other_collections(self, done: tuple[Any, Path], layout: str) -> None:
        _, target = done
        volumes = (
            "split set case file modality body_part licence licence_read_at source_repo shape spacing_mm orientation"
        )
        volumes += " slice_axis labels label_origin preprocessing kib"
        frames = "split set sequence modality frames labelled_frames labels licence source preprocessing"
        name, columns = ("volumes", volumes) if layout in ("amos22", "epfl") else ("frames", frames)
        first = (target / f"{name}.tsv").read_text().splitlines()[0]
        assert first.split("\t") == columns.split()


class TestAmos22:
    @pytest.fixture
    def amos(self, make: Make, tmp_path: Path) -> Any:
        return make("amos22", tmp_path / "source", numbers=(*AMOS, 507))

    def test_values_and_geometry_are_kept(self, amos: Any, prepared: Run, tmp_path: Path) -> None:
        prepared("amos22", amos.root, tmp_path / "target")
        for row in rows_of(tmp_path / "target/volumes.tsv"):
            written = nibabel.load(tmp_path / "target" / row["file"])
            published = nibabel.load(next(amos.root.glob(f"images*/{row['case']}.nii.gz")))
            np.testing.assert_array_equal(written.affine, published.affine)
            np.testing.assert_array_equal(np.asarray(written.dataobj), amos.images[row["case"]])
            assert written.get_data_dtype() == np.int16
            assert (row["spacing_mm"], row["orientation"], row["slice_axis"]) == ("0.75x0.75x5", "LAS", "2")
            assert json.loads(row["labels"]) == {"6": "liver", "8": "aorta"}

    def test_ct_is_seen_through_the_window_of_soft_tissue(self, amos: Any, prepared: Run, tmp_path: Path) -> None:
        prepared("amos22", amos.root, tmp_path / "target")
        case = read_collection(tmp_path / "target", split_of("amos_0001"))[0]
        slices, _ = case.load()
        hounsfield = np.moveaxis(amos.images[case.name], 2, 0).astype(float)
        np.testing.assert_allclose(slices, ((hounsfield + 160) / 400 * 255).clip(0, 255), atol=0.51)

    def test_mr_uses_the_whole_range(self, amos: Any, prepared: Run, tmp_path: Path) -> None:
        prepared("amos22", amos.root, tmp_path / "target")
        cases = [case for split in Split for case in read_collection(tmp_path / "target", split)]
        (case,) = [case for case in cases if case.name == "amos_0507"]
        slices, labels = case.load()
        assert case.modality is Modality.MRI
        assert (slices.min(), slices.max()) == (0, 255)
        assert slices[labels == 8].mean() > slices[labels == 6].mean() > 100

    def test_evaluate_judges_it(
        self, amos: Any, prepared: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        target, rows = tmp_path / "target", tmp_path / "rows.tsv"
        prepared("amos22", amos.root, target)
        words = ["evaluate", str(target), "--split", "val", "--compare", "copy", "--workers", "1", "-o", str(rows)]
        assert cli.main(words) == 0
        assert "CT" in capsys.readouterr().out
        copied = [row for row in rows_of(rows) if row["method"] == "copy"]
        judged = {(row["case"], row["label"]) for row in rows_of(target / "sequences.tsv") if row["split"] == "val"}
        assert {(row["case"], row["label"]) for row in copied} == judged
        assert all(float(row["J"]) > 0.9 for row in copied)  # tubes: the painted slice fits every other

    def test_rows_of_sequences_are_those_that_evaluate_makes(self, amos: Any, prepared: Run, tmp_path: Path) -> None:
        prepared("amos22", amos.root, tmp_path / "target")
        rows = rows_of(tmp_path / "target/sequences.tsv")
        for split in Split:
            for case in read_collection(tmp_path / "target", split):
                judged = sequences_of(case.load()[1], Protocol.LARGEST, is_video=False)
                listed = [
                    tuple(int(row[column]) for column in ("label", "first", "last", "largest"))
                    for row in rows
                    if row["case"] == case.name
                ]
                assert [(one.label, one.first, one.last, one.painted) for one in judged] == listed

    def test_train_and_pack_cut_from_it(self, amos: Any, prepared: Run, tmp_path: Path) -> None:
        from imos.training.volumes import labelled_stacks

        prepared("amos22", amos.root, tmp_path / "target")
        stacks = labelled_stacks(tmp_path / "target")
        assert len(stacks) == sum(split_of(name) is Split.TRAIN for name in amos.images)
        assert all(stack.objects().size for stack in stacks)


class TestAgain:
    """A second run."""

    @pytest.fixture
    def amos(self, make: Make, tmp_path: Path) -> Any:
        return make("amos22", tmp_path / "source", numbers=AMOS)

    def test_nothing_is_written_twice(self, amos: Any, prepared: Run, tmp_path: Path) -> None:
        target = tmp_path / "target"
        prepared("amos22", amos.root, target)
        before, times = files_of(target), times_of(target)
        prepared("amos22", amos.root, target)
        assert files_of(target) == before
        assert times_of(target) == times

    def test_what_was_damaged_or_deleted_is_written_again(self, amos: Any, prepared: Run, tmp_path: Path) -> None:
        target = tmp_path / "target"
        prepared("amos22", amos.root, target)
        before, times = files_of(target), times_of(target)
        damaged, deleted = sorted(target.rglob("*.seg.nii.gz"))[:2]
        damaged.write_bytes(b"damaged")
        deleted.unlink()
        prepared("amos22", amos.root, target)
        assert files_of(target) == before
        again = {name for name, time in times_of(target).items() if time != times[name]}
        assert again == {name for path in (damaged, deleted) for name in (path.name, path.name.replace(".seg", ""))}

    def test_a_source_that_changed_is_read_again(self, amos: Any, prepared: Run, tmp_path: Path) -> None:
        target = tmp_path / "target"
        prepared("amos22", amos.root, target)
        path = amos.root / "labelsTr/amos_0003.nii.gz"
        file = nibabel.load(path)
        nibabel.save(
            nibabel.Nifti1Image(np.where(np.asarray(file.dataobj) == 8, 1, 0).astype(np.uint8), file.affine), path
        )
        prepared("amos22", amos.root, target)
        names = [row["name"] for row in rows_of(target / "sequences.tsv") if row["case"] == "amos_0003"]
        assert names == ["spleen"]

    def test_a_case_that_is_no_longer_listed_goes(self, amos: Any, prepared: Run, tmp_path: Path) -> None:
        target = tmp_path / "target"
        prepared("amos22", amos.root, target)
        index = amos.root / "dataset.json"
        content = json.loads(index.read_text())
        content["training"] = content["training"][1:]
        index.write_text(json.dumps(content))
        prepared("amos22", amos.root, target)
        assert not [name for name in files_of(target) if "amos_0001" in name]
        assert len(rows_of(target / "volumes.tsv")) == len(AMOS) - 1

    def test_a_limit_and_then_the_rest_is_the_same_as_all_at_once(
        self, amos: Any, prepared: Run, tmp_path: Path
    ) -> None:
        prepared("amos22", amos.root, tmp_path / "steps", "--limit", 5)
        assert [row["case"] for row in rows_of(tmp_path / "steps/volumes.tsv")] == [f"amos_{n:04}" for n in AMOS[:5]]
        prepared("amos22", amos.root, tmp_path / "steps")
        prepared("amos22", amos.root, tmp_path / "steps", "--limit", 2)  # takes nothing away
        prepared("amos22", amos.root, tmp_path / "once")
        assert files_of(tmp_path / "steps") == files_of(tmp_path / "once")

    def test_several_processes_write_the_same(self, amos: Any, prepared: Run, tmp_path: Path) -> None:
        prepared("amos22", amos.root, tmp_path / "one")
        assert cli.main(["prepare", "amos22", str(amos.root), str(tmp_path / "two"), "--workers", "2"]) == 0
        assert files_of(tmp_path / "two") == files_of(tmp_path / "one")

    def test_another_seed_divides_otherwise(self, amos: Any, prepared: Run, refused: Run, tmp_path: Path) -> None:
        prepared("amos22", amos.root, tmp_path / "one")
        prepared("amos22", amos.root, tmp_path / "two", "--seed", 5)
        rows = [{r["case"]: r["split"] for r in rows_of(tmp_path / name / "volumes.tsv")} for name in ("one", "two")]
        assert rows[0] != rows[1]
        assert "--seed 5" in refused("amos22", amos.root, tmp_path / "two")


class TestInterrupted:
    @pytest.mark.parametrize("workers", [1, 2])
    def test_after_a_broken_file_it_goes_on_where_it_was(
        self, make: Make, prepared: Run, refused: Run, tmp_path: Path, workers: int
    ) -> None:
        amos = make("amos22", tmp_path / "source", numbers=AMOS)
        target, broken = tmp_path / "target", amos.root / "labelsTr/amos_0009.nii.gz"
        content = broken.read_bytes()
        broken.write_bytes(content[:50])
        assert "labelsTr/amos_0009.nii.gz" in refused("amos22", amos.root, target, "--workers", workers)
        assert not list(target.glob("*.tsv"))
        times = times_of(target)
        assert "amos_0008.nii.gz" in times
        assert "amos_0009.nii.gz" not in times
        broken.write_bytes(content)
        prepared("amos22", amos.root, target)
        assert {name: time for name, time in times_of(target).items() if name in times} == times
        prepared("amos22", amos.root, tmp_path / "fresh")
        assert files_of(target) == files_of(tmp_path / "fresh")

    @pytest.mark.parametrize(
        ("how", "workers"), [(signal.SIGKILL, 1), (signal.SIGKILL, 2), (signal.SIGINT, 2), (signal.SIGTERM, 2)]
    )
    def test_when_it_is_ended_in_mid_run(
        self, make: Make, prepared: Run, tmp_path: Path, how: signal.Signals, workers: int
    ) -> None:
        amos = make("amos22", tmp_path / "source", numbers=tuple(range(1, 31)), side=120)
        target = tmp_path / "target"
        words = ["prepare", "amos22", str(amos.root), str(target), "--workers", str(workers)]
        running = subprocess.Popen(
            [sys.executable, str(ROOT / "main.py"), *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # What a shell starts in the background, CI too, ignores Ctrl-C, and so would we.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            start_new_session=True,
        )
        try:
            journal = target / ".prepare.jsonl"
            while running.poll() is None and not (journal.is_file() and journal.read_bytes().count(b"\n") > 3):
                sleep(0.01)
            assert running.poll() is None
            if how is signal.SIGINT:  # a terminal sends it to all processes
                os.killpg(running.pid, how)
            else:
                running.send_signal(how)
            code = running.wait(timeout=60)
        finally:
            running.kill()
        assert code == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[how]
        assert not list(target.glob("*.tsv"))
        if how is not signal.SIGKILL:
            assert not [path for path in target.rglob("*") if "partial" in path.name]
        finished = [json.loads(line)["case"] for line in journal.read_text().splitlines()[1:]]
        times = {name: time for name, time in times_of(target).items() if name.split(".")[0] in finished}
        assert 0 < len(finished) < 30
        prepared("amos22", amos.root, target)
        assert {name: time for name, time in times_of(target).items() if name in times} == times
        prepared("amos22", amos.root, tmp_path / "fresh")
        assert files_of(target) == files_of(tmp_path / "fresh")

    def test_killed_in_the_middle_of_a_line_or_a_file(
        self, make: Make, prepared: Run, refused: Run, tmp_path: Path
    ) -> None:
        camus = make("camus", tmp_path / "source", patients=(1, 2, 3))
        target = tmp_path / "target"
        label = camus.root / "database_nifti/patient0002/patient0002_2CH_half_sequence_gt.nii.gz"
        content = label.read_bytes()
        label.write_bytes(b"")
        refused("camus", camus.root, target, "--workers", 1)
        label.write_bytes(content)
        with (target / ".prepare.jsonl").open("a") as journal:
            journal.write('{"case": "patient0002_2CH", "pat')
        frames = next(target.glob("*/frames/camus"))
        (frames / ".0123abcd.partial.patient0002_2CH/images").mkdir(parents=True)
        (target / ".0123abcd.partial.volumes.tsv").write_text("split\t")
        written = target / split_of("patient0002") / "frames/camus/patient0002_2CH/images"
        written.mkdir(parents=True)  # moved to its place, but not in the journal yet
        (written / "00099.png").write_bytes(b"old")
        later = camus.root / "database_nifti/patient0003/patient0003_4CH_half_sequence_gt.nii.gz"
        later.write_bytes(b"")
        refused("camus", camus.root, target, "--workers", 1)  # and a second time
        later.write_bytes(content)
        prepared("camus", camus.root, target)
        prepared("camus", camus.root, tmp_path / "fresh")
        assert files_of(target) == files_of(tmp_path / "fresh")

    def test_a_full_disk_leaves_no_partial_file(
        self, make: Make, prepared: Run, refused: Run, tmp_path: Path, little_space: Callable[[int], Any]
    ) -> None:
        amos = make("amos22", tmp_path / "source", numbers=AMOS, side=64)
        target = tmp_path / "target"
        with little_space(4096):
            line = refused("amos22", amos.root, target, "--workers", 1)
        assert "amos_0001.nii.gz" in line
        assert "the disk is full" in line
        assert set(files_of(target)) == {".prepare.jsonl"}
        prepared("amos22", amos.root, target)
        assert len(rows_of(target / "volumes.tsv")) == len(AMOS)

    def test_a_journal_that_cannot_grow_stays_whole(
        self, make: Make, prepared: Run, refused: Run, tmp_path: Path, little_space: Callable[[int], Any]
    ) -> None:
        cholec = make("cholecseg8k", tmp_path / "source")
        target = tmp_path / "target"
        with little_space(3000):  # enough for a frame of 48 × 32, not for the hashes of a clip
            line = refused("cholecseg8k", cholec.root, target, "--workers", 1)
        assert ".prepare.jsonl" in line
        journal = (target / ".prepare.jsonl").read_bytes()
        assert journal.count(b"\n") == 1
        assert journal.endswith(b"\n")
        prepared("cholecseg8k", cholec.root, target)


class TestRefused:
    @pytest.fixture
    def amos(self, make: Make, tmp_path: Path) -> Any:
        return make("amos22", tmp_path / "source", numbers=AMOS)

    def test_no_source(self, refused: Run, tmp_path: Path) -> None:
        assert "nowhere is not there" in refused("amos22", tmp_path / "nowhere", tmp_path / "target")
        (tmp_path / "amos22.zip").write_bytes(b"PK")
        assert "amos22.zip is no folder. Unpack" in refused("amos22", tmp_path / "amos22.zip", tmp_path / "target")
        assert not (tmp_path / "target").exists()

    def test_another_layout_leaves_no_target(self, refused: Run, make: Make, tmp_path: Path) -> None:
        epfl = make("epfl", tmp_path / "source")
        assert "has no dataset.json" in refused("amos22", epfl.root, tmp_path / "target")
        assert not (tmp_path / "target").exists()

    def test_unknown_set(self, refused: Run, tmp_path: Path) -> None:
        assert "prepare --help" in refused("amos21", tmp_path, tmp_path / "target")

    @pytest.mark.parametrize("words", [("--limit", "0"), ("--limit", "x"), ("--workers", "0"), ("--seed", "x")])
    def test_wrong_numbers(self, refused: Run, tmp_path: Path, words: tuple[str, str]) -> None:
        assert words[0] in refused("amos22", tmp_path, tmp_path / "target", *words)

    def test_a_target_with_something_else_in_it(self, refused: Run, amos: Any, tmp_path: Path) -> None:
        target = tmp_path / "target"
        target.mkdir()
        (target / "thesis.txt").write_text("mine")
        assert "target is not empty" in refused("amos22", amos.root, target)
        assert files_of(target) == {"thesis.txt": b"mine"}

    def test_a_target_that_is_a_file(self, refused: Run, amos: Any, tmp_path: Path) -> None:
        (tmp_path / "target").write_text("mine")
        assert "target is a file" in refused("amos22", amos.root, tmp_path / "target")

    def test_a_collection_of_another_data_set(
        self, refused: Run, prepared: Run, make: Make, amos: Any, tmp_path: Path
    ) -> None:
        epfl = make("epfl", tmp_path / "epfl")
        prepared("epfl", epfl.root, tmp_path / "target")
        before = files_of(tmp_path / "target")
        assert "holds the data set epfl" in refused("amos22", amos.root, tmp_path / "target")
        assert files_of(tmp_path / "target") == before

    @pytest.mark.parametrize("content", ["", "{}", '{"made": {"data_set": "amos22"}}', "[1]"])
    def test_a_manifest_that_is_none(self, refused: Run, amos: Any, tmp_path: Path, content: str) -> None:
        (tmp_path / "target").mkdir()
        (tmp_path / "target" / "manifest.json").write_text(content)
        assert "manifest.json" in refused("amos22", amos.root, tmp_path / "target")

    @pytest.mark.parametrize("where", [".", "imagesTr", "new", ".."])
    def test_a_target_in_the_source_or_around_it(self, refused: Run, amos: Any, where: str) -> None:
        before = files_of(amos.root)
        assert "overlap" in refused("amos22", amos.root, amos.root / where)
        assert files_of(amos.root) == before

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_target_that_may_not_be_written(self, refused: Run, amos: Any, tmp_path: Path) -> None:
        (tmp_path / "locked").mkdir(mode=0o500)
        assert "locked" in refused("amos22", amos.root, tmp_path / "locked" / "target")

    def test_a_manifest_that_was_tampered_with_deletes_nothing_outside(
        self, prepared: Run, amos: Any, tmp_path: Path
    ) -> None:
        target, mine = tmp_path / "target", tmp_path / "mine.txt"
        mine.write_text("mine")
        prepared("amos22", amos.root, target)
        manifest = json.loads((target / "manifest.json").read_text())
        manifest["cases"][0]["written"] = {"../mine.txt": "0" * 64, str(mine): "0" * 64}
        (target / "manifest.json").write_text(json.dumps(manifest))
        prepared("amos22", amos.root, target)
        assert mine.read_text() == "mine"

    def test_the_source_is_only_read(self, prepared: Run, amos: Any, tmp_path: Path) -> None:
        before = files_of(amos.root)
        prepared("amos22", amos.root, tmp_path / "target")
        shutil.rmtree(tmp_path / "target")
        assert files_of(amos.root) == before
