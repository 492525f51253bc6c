"""The command line does what design, section 4 says. What it does with bad input: test_errors_cli.py."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image as Picture
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

import imos
from imos import cli
from imos.imaging import read_label_map
from imos.metrics import dice
from imos.network.config import NetworkConfig
from imos.network.xmem import XMem
from imos.propagation.result import Progress

ROOT = Path(__file__).parents[1]


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


def labels_of(path: Path) -> np.ndarray[Any, Any]:
    return np.asarray(nibabel.load(path).dataobj)


class TestPropagate:
    @pytest.fixture(scope="class")
    @staticmethod
    def done(scan: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("done")
        outputs = ("-o", folder / "out.nii.gz", "--report", folder / "report.json", "--sheet", folder / "sheet.png")
        assert run("propagate", scan.image, scan.prompt, *outputs) == 0
        return folder

    def test_the_volume_is_segmented_on_the_images_grid(self, scan: Any, done: Path) -> None:
        out = nibabel.load(done / "out.nii.gz")
        assert np.allclose(out.affine, nibabel.load(scan.image).affine)
        assert out.get_data_dtype() == np.uint8
        found = labels_of(done / "out.nii.gz")
        assert found.shape == scan.labels.shape
        assert set(np.unique(found)) == {0, 1, 2}
        assert dice(found == 1, scan.labels == 1) > 0.85
        assert dice(found == 2, scan.labels == 2) > 0.85

    def test_painted_slice_comes_back_voxel_for_voxel(self, scan: Any, done: Path) -> None:
        assert np.array_equal(labels_of(done / "out.nii.gz")[:, :, 8], scan.labels[:, :, 8])

    def test_report_has_every_field_of_the_contract(self, done: Path) -> None:
        report = json.loads((done / "report.json").read_text())
        assert report["seconds"] > 0
        assert report["load_seconds"] > 0
        assert 50 < report["peak_memory_mb"] < 8000
        assert report["device"].startswith(("cpu", "cuda"))
        assert report["weights"]["name"]
        assert len(report["weights"]["sha256"]) == 64
        assert [item["label"] for item in report["objects"]] == [1, 2]
        for item in report["objects"]:
            assert item["prompts"] == [8]
            assert item["confidence"]["8"] == 1
            assert all(0 <= value <= 1 for value in item["confidence"].values())
            assert len(item["confidence"]) > 10
            assert item["suggested"] is None or 0 <= item["suggested"] < 16

    def test_contact_sheet_is_a_picture(self, done: Path) -> None:
        with Picture.open(done / "sheet.png") as sheet:
            assert sheet.width == 1680
            assert sheet.height > 400

    def test_others_may_read_them_as_far_as_the_umask_says(self, done: Path, tmp_path: Path) -> None:
        (tmp_path / "any").touch()
        assert {path.stat().st_mode for path in done.iterdir()} == {(tmp_path / "any").stat().st_mode}

    def test_nothing_else_is_left(self, done: Path) -> None:
        assert sorted(path.name for path in done.iterdir()) == ["out.nii.gz", "report.json", "sheet.png"]

    @pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha"])
    def test_every_suffix_holds_the_same_labels(self, scan: Any, done: Path, tmp_path: Path, suffix: str) -> None:
        out = tmp_path / f"out{suffix}"
        assert run("propagate", scan.image, scan.prompt, "-o", out, "--first", 7, "--last", 9) == 0
        found = read_label_map(out, imos.read(scan.image))[:, :, 7:10]
        assert np.array_equal(found, labels_of(done / "out.nii.gz")[:, :, 7:10])

    def test_large_label_values_are_kept(self, scan: Any, tmp_path: Path) -> None:
        prompt = scan.write(tmp_path / "prompt.nii.gz", scan.painted(8).astype(np.uint16) * 30000)
        assert run("propagate", scan.image, prompt, "-o", tmp_path / "out.nii.gz", "--first", 7, "--last", 9) == 0
        out = nibabel.load(tmp_path / "out.nii.gz")
        assert out.get_data_dtype() == np.uint16
        assert set(np.unique(np.asarray(out.dataobj))) == {0, 30000, 60000}

    def test_slice_limits_are_kept(self, scan: Any, tmp_path: Path) -> None:
        assert run("propagate", scan.image, scan.prompt, "-o", tmp_path / "out.nii.gz", "--first", 7, "--last", 10) == 0
        shown = labels_of(tmp_path / "out.nii.gz").any(axis=(0, 1))
        assert np.flatnonzero(shown).tolist() == [7, 8, 9, 10]

    @pytest.mark.parametrize(("painted", "limit"), [(0, ("--last", 2)), (15, ("--first", 13))], ids=["first", "last"])
    def test_a_slice_at_the_edge_may_be_painted(
        self, scan: Any, tmp_path: Path, painted: int, limit: tuple[str, int]
    ) -> None:
        prompt = scan.write(tmp_path / "prompt.nii.gz", scan.painted(painted))
        assert run("propagate", scan.image, prompt, "-o", tmp_path / "out.nii.gz", *limit) == 0
        found = labels_of(tmp_path / "out.nii.gz")
        assert np.array_equal(found[:, :, painted], scan.labels[:, :, painted])
        assert found[:, :, 1 if painted == 0 else 14].any()

    def test_the_plane_may_be_named(self, scan: Any, tmp_path: Path) -> None:
        only = np.zeros_like(scan.labels)
        only[17] = scan.labels[17]
        prompt = scan.write(tmp_path / "prompt.nii.gz", only)
        words = ("--plane", "sagittal", "--first", 15, "--last", 19, "--report", tmp_path / "report.json")
        assert run("propagate", scan.image, prompt, "-o", tmp_path / "out.nii.gz", *words) == 0
        assert np.array_equal(labels_of(tmp_path / "out.nii.gz")[17], scan.labels[17])
        (found,) = json.loads((tmp_path / "report.json").read_text())["objects"]
        assert found["axis"] == 0
        assert found["prompts"] == [17]

    def test_frames_give_a_folder_with_one_picture_a_frame(self, scan: Any, tmp_path: Path) -> None:
        (tmp_path / "frames").mkdir()
        (tmp_path / "painted").mkdir()
        for index in range(4):
            gray = np.clip(scan.voxels[:, :, index + 8] / 3, 0, 255).astype(np.uint8)
            Picture.fromarray(np.stack([gray, gray // 2, gray], axis=2)).save(tmp_path / "frames" / f"f{index}.png")
        Picture.fromarray(scan.labels[:, :, 8]).save(tmp_path / "painted" / "f0.png")
        words = ("--sheet", tmp_path / "sheet.png")
        assert run("propagate", tmp_path / "frames", tmp_path / "painted", "-o", tmp_path / "out", *words) == 0
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"f{index}.png" for index in range(4)]
        with Picture.open(tmp_path / "out" / "f0.png") as first:
            assert np.array_equal(np.asarray(first), scan.labels[:, :, 8])
        with Picture.open(tmp_path / "out" / "f3.png") as last:
            assert dice(np.asarray(last) == 1, scan.labels[:, :, 11] == 1) > 0.7

    def test_four_dimensions_are_a_video_with_time(self, scan: Any, tmp_path: Path) -> None:
        image = scan.write(tmp_path / "cine.nii.gz", scan.voxels[:, :, None, 6:11])
        prompt = scan.write(tmp_path / "prompt.nii.gz", scan.painted(8)[:, :, None, 6:11])
        assert run("propagate", image, prompt, "-o", tmp_path / "out.nii.gz", "--time") == 0
        found = labels_of(tmp_path / "out.nii.gz").squeeze()
        assert found.shape == (48, 40, 5)
        assert found.any(axis=(0, 1)).all()

    def test_a_dicom_series_gives_a_dicom_seg(self, scan: Any, tmp_path: Path) -> None:
        series = tmp_path / "series"
        series.mkdir()
        file = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
        for index in range(5):
            plane = np.ascontiguousarray(scan.voxels[:, :, index + 6].T)
            file.Rows, file.Columns = plane.shape
            file.PixelData = plane.tobytes()
            file.ImagePositionPatient = [0.0, 0.0, 2.0 * index]
            file.InstanceNumber = 5 - index
            file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            file.save_as(series / f"{index}.dcm")
        image = imos.read(series)
        body = np.zeros(image.shape, np.uint8)
        body[:, :, 2] = image.voxels[:, :, 2] - image.voxels[:, :, 2].min() > 500
        prompt = scan.write(tmp_path / "prompt.nii.gz", body, image.affine)
        assert run("propagate", series, prompt, "-o", tmp_path / "out.dcm") == 0
        found = read_label_map(tmp_path / "out.dcm", image)
        assert np.array_equal(found[:, :, 2], body[:, :, 2])
        assert found.any(axis=(0, 1)).all()

    def test_as_a_program_it_says_what_it_did_and_nothing_on_standard_error(self, scan: Any, tmp_path: Path) -> None:
        words = ["propagate", str(scan.image), str(scan.prompt), "-o", "out.nii.gz", "--last", "10"]
        words += ["--report", "report.json"]
        done = subprocess.run(
            [sys.executable, str(ROOT / "main.py"), *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("out.nii.gz: 2 objects in ")
        assert "slices/s" in done.stdout
        # of this process, not of the one that started it
        assert 50 < json.loads((tmp_path / "report.json").read_text())["peak_memory_mb"] < 1500

    def test_report_names_the_weights_file_that_was_used(self, done: Path) -> None:
        weights = json.loads((done / "report.json").read_text())["weights"]
        (shipped,) = (file for file in (ROOT / "weights").iterdir() if file.name == weights["name"])
        assert weights["sha256"] == hashlib.sha256(shipped.read_bytes()).hexdigest()


class TestForeignWeights:
    """XMem's and iMOS's own files; made up, with every entry that theirs have."""

    @pytest.mark.parametrize("kind", ["XMem", "XMem for one object", "iMOS"])
    def test_they_segment_the_volume(self, scan: Any, tmp_path: Path, kind: str) -> None:
        torch.manual_seed(0)
        weights = XMem(NetworkConfig(adapters=kind == "iMOS")).state_dict()
        weights["decoder.pred.bias"] += 2  # sees the object everywhere
        if kind == "XMem for one object":
            weights["value_encoder.conv1.weight"] = weights["value_encoder.conv1.weight"][:, :4].clone()
        torch.save(weights, tmp_path / "foreign.pth")
        del weights
        words = (
            "--weights",
            tmp_path / "foreign.pth",
            "--first",
            7,
            "--last",
            10,
            "--report",
            tmp_path / "report.json",
        )
        prompt = scan.write(tmp_path / "prompt.nii.gz", (scan.painted(8) == 1).astype(np.uint8))
        assert run("propagate", scan.image, prompt, "-o", tmp_path / "out.nii.gz", *words) == 0
        (tmp_path / "foreign.pth").unlink()
        found = labels_of(tmp_path / "out.nii.gz")
        assert np.array_equal(found[:, :, 8] == 1, scan.labels[:, :, 8] == 1)
        assert np.flatnonzero(found.any(axis=(0, 1))).tolist() == [7, 8, 9, 10]
        report = json.loads((tmp_path / "report.json").read_text())
        assert report["weights"]["name"] == "foreign.pth"
        assert sorted(report["objects"][0]["confidence"]) == ["10", "7", "8", "9"]


class TestProgressLine:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def test_a_terminal_sees_a_bar_with_slices_a_second(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cli.ProgressLine, "TERMINAL_INTERVAL", 0.0)
        stream = self.Terminal()
        with cli.ProgressLine(stream) as line:
            line(Progress(done=20, total=40, label=3, index=7))
        assert "20/40 slices" in stream.getvalue()
        assert "slices/s" in stream.getvalue()
        assert stream.getvalue().endswith("\r\x1b[K")  # and it goes away

    def test_a_log_is_not_flooded(self) -> None:
        stream = io.StringIO()
        with cli.ProgressLine(stream) as line:
            for number in range(1000):
                line(Progress(done=number, total=1000, label=1, index=number))
        assert stream.getvalue() == ""

    def test_a_long_run_writes_plain_lines_into_a_log(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cli.ProgressLine, "LOG_INTERVAL", 0.0)
        stream = io.StringIO()
        with cli.ProgressLine(stream) as line:
            line(Progress(done=1, total=2, label=1, index=1))
        assert stream.getvalue().count("\n") == 1
        assert "\r" not in stream.getvalue()


class TestDice:
    def test_each_label_and_the_mean_are_printed(
        self, scan: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        half = scan.labels.copy()
        half[half == 2] = 0
        assert run("dice", scan.write(tmp_path / "half.nii.gz", half), scan.truth) == 0
        rows = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert rows == [["label", "Dice"], ["1", "1.0000"], ["2", "0.0000"], ["mean", "0.5000"]]

    def test_labels_are_compared_where_they_lie_in_the_patient(
        self, scan: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        affine = nibabel.load(scan.truth).affine
        flip = np.eye(4)
        flip[0, 0], flip[0, 3] = -1, scan.labels.shape[0] - 1
        flipped = scan.write(tmp_path / "flipped.nii.gz", scan.labels[::-1].copy(), affine @ flip)
        assert run("dice", flipped, scan.truth) == 0
        assert capsys.readouterr().out.split()[-2:] == ["mean", "1.0000"]

    def test_any_two_label_maps_can_be_compared(
        self, scan: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Also of one slice, full of one label, and against nothing."""
        one = scan.write(tmp_path / "one.nii.gz", np.full((6, 5, 1), 3, np.uint8))
        nothing = scan.write(tmp_path / "nothing.nii.gz", np.zeros((6, 5, 1), np.uint8))
        assert run("dice", one, one) == 0
        assert capsys.readouterr().out.split()[-2:] == ["mean", "1.0000"]
        assert run("dice", nothing, one) == 0
        assert capsys.readouterr().out.split()[-2:] == ["mean", "0.0000"]


class TestServe:
    def test_it_becomes_the_monai_label_server(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        called: list[list[str]] = []
        monkeypatch.setattr(os, "execv", lambda _, command: called.append(command))
        run("serve", "--studies", tmp_path, "--port", 8123, "--conf", "device", "cpu")
        (command,) = called
        assert command[:5] == [sys.executable, "-m", "monailabel.main", "start_server", "--app"]
        assert Path(command[5]) == ROOT / "apps" / "imos"
        rest = ["--studies", str(tmp_path), "--host", "127.0.0.1", "--port", "8123", "--conf", "device", "cpu"]
        assert command[6:] == rest

    def test_with_an_archive_of_its_own_it_becomes_the_program_that_starts_it(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        called: list[list[str]] = []
        monkeypatch.setattr(os, "execv", lambda _, command: called.append(command))
        run("serve", "--studies", tmp_path, "--orthanc", tmp_path / "pacs", "--orthanc-port", 8043)
        (command,) = called
        assert command[:5] == [sys.executable, "-m", "imos.server.local_archive", "--port", "8043"]
        folders = command.index("--")
        assert command[folders + 1 : folders + 3] == [str(tmp_path / "pacs"), str(tmp_path)]
        assert command[folders + 3 : folders + 7] == [sys.executable, "-m", "monailabel.main", "start_server"]
        assert "--studies" not in command  # the archive's address is known only once it runs


class TestVerbs:
    def test_a_new_verb_is_one_row(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        module: Any = ModuleType("a_new_verb")
        module.add_arguments = lambda parser: parser.add_argument("number", type=int)
        module.run = lambda args: args.number
        monkeypatch.setitem(sys.modules, "a_new_verb", module)
        monkeypatch.setitem(cli.VERBS, "count", cli.Verb("count to a number", "a_new_verb"))
        assert run("count", 7) == 7
        assert run("--help") == 0
        assert "count to a number" in capsys.readouterr().out

    @pytest.mark.parametrize("verb", cli.VERBS)
    def test_every_verb_has_help(self, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="0"):
            run(verb, "--help")
        assert cli.VERBS[verb].summary.split()[0] in capsys.readouterr().out.lower()

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("--version") == 0
        assert capsys.readouterr().out.startswith("imos ")


def test_a_real_terminal_shows_the_bar(scan: Any, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    words = ["propagate", str(scan.image), str(scan.prompt), "-o", str(tmp_path / "out.nii.gz")]
    with subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), *words], stdout=subprocess.DEVNULL, stderr=theirs
    ) as running:
        os.close(theirs)
        seen = b""
        try:
            while part := os.read(ours, 4096):
                seen += part
        except OSError:  # Linux says so when the other end is closed
            pass
        os.close(ours)
    assert running.returncode == 0
    assert "slices/s" in seen.decode()
