"""Bad input: exit code 2 and one line that says what is wrong, and no partial file, whatever happens."""

from __future__ import annotations

import os
import pty
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

import imos.imaging
from imos import cli

ROOT = Path(__file__).parents[1]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command line that must be refused; its one line comes back."""

    def run(*words: object) -> str:
        code = cli.main([str(word) for word in words])
        said = capsys.readouterr()
        assert code == 2, said.err
        assert said.out == ""
        assert said.err.count("\n") == 1
        assert said.err.startswith("error: ")
        return said.err.removeprefix("error: ").strip()

    return run


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """An output path in a folder of its own, which must be empty in the end."""
    folder = tmp_path / "outputs"
    folder.mkdir()
    yield folder / "out.nii.gz"
    assert list(folder.iterdir()) == []


class TestWords:
    def test_unknown_verb(self, refused: Any) -> None:
        assert refused("propogate") == "there is no verb 'propogate': did you mean propagate?"

    def test_verb_unlike_any(self, refused: Any) -> None:
        assert "propagate, dice, serve" in refused("xyz")

    @pytest.mark.parametrize(
        ("typed", "meant"), [("--ouput", "--output"), ("--wieghts", "--weights"), ("--sheets", "--sheet")]
    )
    def test_mistyped_option(self, refused: Any, typed: str, meant: str) -> None:
        assert refused("propagate", "a", "b", f"{typed}=x") == f"there is no option {typed}: did you mean {meant}?"

    def test_options_are_not_abbreviated(self, refused: Any) -> None:
        # A program that calls `--re` would break on the day there is a second option that starts so.
        assert "--report" in refused("propagate", "a", "b", "-o", "c.nii", "--rep", "d.json")

    @pytest.mark.parametrize(
        "words",
        [
            ("propagate",),
            ("propagate", "a", "b"),
            ("propagate", "a", "b", "c", "-o", "d.nii"),
            ("propagate", "a", "b", "-o", "c.nii", "--plane", "axal"),
            ("propagate", "a", "b", "-o", "c.nii", "--first", "two"),
            ("propagate", "a", "b", "-o", "c.nii", "--first", "-1"),
            ("propagate", "a", "b", "-o", "c.nii", "--device", "tpu"),
            ("serve", "--studies", "/", "--port", "http"),
        ],
        ids=lambda words: " ".join(words[1:]) or "nothing",
    )
    def test_wrong_arguments_name_the_help(self, refused: Any, words: tuple[str, ...]) -> None:
        assert f"{words[0]} --help" in refused(*words)

    def test_first_behind_last(self, refused: Any, scan: Any, out: Path) -> None:
        assert "Swap them" in refused("propagate", scan.image, scan.prompt, "-o", out, "--first", 9, "--last", 3)

    def test_limits_outside_the_image(self, refused: Any, scan: Any, out: Path) -> None:
        refused("propagate", scan.image, scan.prompt, "-o", out, "--last", 99)

    def test_painted_slice_outside_the_limits(self, refused: Any, scan: Any, out: Path) -> None:
        refused("propagate", scan.image, scan.prompt, "-o", out, "--first", 10)

    def test_time_of_a_volume(self, refused: Any, scan: Any, out: Path) -> None:
        assert "time" in refused("propagate", scan.image, scan.prompt, "-o", out, "--plane", "time")

    def test_cuda_where_there_is_none(self, refused: Any, scan: Any, out: Path) -> None:
        import torch

        if torch.cuda.is_available():
            pytest.skip("this machine has one")
        line = refused("propagate", scan.image, scan.prompt, "-o", out, "--device", "cuda")
        assert "cuda" in line.lower() or "gpu" in line.lower()


class TestImage:
    def test_missing(self, refused: Any, scan: Any, out: Path, tmp_path: Path) -> None:
        assert "nowhere.nii" in refused("propagate", tmp_path / "nowhere.nii", scan.prompt, "-o", out)

    @pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha", ".dcm"])
    @pytest.mark.parametrize("content", [b"", b"no image at all" * 40], ids=["empty", "unreadable"])
    def test_empty_or_unreadable(
        self, refused: Any, scan: Any, out: Path, tmp_path: Path, suffix: str, content: bytes
    ) -> None:
        broken = tmp_path / f"broken{suffix}"
        broken.write_bytes(content)
        assert "broken" in refused("propagate", broken, scan.prompt, "-o", out)

    @pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
    def test_truncated(self, refused: Any, scan: Any, out: Path, tmp_path: Path, suffix: str) -> None:
        whole = tmp_path / f"whole{suffix}"
        imos.imaging.write_label_map(whole, scan.labels, imos.read(scan.image))
        if suffix.startswith(".nii"):  # noise, so that the compressed file is long, too
            nibabel.save(nibabel.Nifti1Image(scan.voxels, np.eye(4)), whole)
        content = whole.read_bytes()
        (tmp_path / f"half{suffix}").write_bytes(content[: len(content) * 6 // 10])
        assert "half" in refused("propagate", tmp_path / f"half{suffix}", scan.prompt, "-o", out)

    def test_empty_folder(self, refused: Any, scan: Any, out: Path, tmp_path: Path) -> None:
        (tmp_path / "none").mkdir()
        assert "none" in refused("propagate", tmp_path / "none", scan.prompt, "-o", out)

    @pytest.mark.parametrize("value", [7.0, np.nan], ids=["constant", "nan"])
    def test_that_shows_nothing(self, refused: Any, scan: Any, out: Path, tmp_path: Path, value: float) -> None:
        image = scan.write(tmp_path / "flat.nii.gz", np.full(scan.labels.shape, value, np.float32))
        assert "flat" in refused("propagate", image, scan.prompt, "-o", out)

    def test_one_slice(self, refused: Any, scan: Any, out: Path, tmp_path: Path) -> None:
        image = scan.write(tmp_path / "one.nii.gz", scan.voxels[:, :, 8:9])
        prompt = scan.write(tmp_path / "prompt.nii.gz", scan.labels[:, :, 8:9])
        assert "one" in refused("propagate", image, prompt, "-o", out)

    def test_four_dimensions_without_time(self, refused: Any, scan: Any, out: Path, tmp_path: Path) -> None:
        image = scan.write(tmp_path / "cine.nii.gz", np.stack([scan.voxels] * 3, axis=3))
        assert "cine" in refused("propagate", image, scan.prompt, "-o", out)


class TestPrompt:
    def test_missing(self, refused: Any, scan: Any, out: Path, tmp_path: Path) -> None:
        assert "nowhere.nii" in refused("propagate", scan.image, tmp_path / "nowhere.nii", "-o", out)

    def test_nothing_painted(self, refused: Any, scan: Any, out: Path, tmp_path: Path) -> None:
        prompt = scan.write(tmp_path / "blank.nii.gz", np.zeros_like(scan.labels))
        assert "paint" in refused("propagate", scan.image, prompt, "-o", out).lower()

    def test_somewhere_else(self, refused: Any, scan: Any, out: Path, tmp_path: Path) -> None:
        affine = nibabel.load(scan.image).affine.copy()
        affine[:3, 3] += 5000
        prompt = scan.write(tmp_path / "far.nii.gz", scan.painted(8), affine)
        assert "far" in refused("propagate", scan.image, prompt, "-o", out)

    @pytest.mark.parametrize("value", [70000, -3])
    def test_label_out_of_range(self, refused: Any, scan: Any, out: Path, tmp_path: Path, value: int) -> None:
        prompt = scan.write(tmp_path / "prompt.nii.gz", (scan.painted(8) == 1) * np.int32(value))
        assert "65535" in refused("propagate", scan.image, prompt, "-o", out)

    def test_truncated(self, refused: Any, scan: Any, out: Path, tmp_path: Path) -> None:
        content = scan.prompt.read_bytes()
        (tmp_path / "half.nii.gz").write_bytes(content[: len(content) // 2])
        assert "half" in refused("propagate", scan.image, tmp_path / "half.nii.gz", "-o", out)


class TestWeights:
    @pytest.mark.parametrize("option", ["--weights", "--adapter"])
    def test_missing(self, refused: Any, scan: Any, out: Path, tmp_path: Path, option: str) -> None:
        path = tmp_path / "nowhere.safetensors"
        assert "nowhere" in refused("propagate", scan.image, scan.prompt, "-o", out, option, path)

    @pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
    @pytest.mark.parametrize("content", [b"", b"no weights at all" * 40], ids=["empty", "unreadable"])
    def test_empty_or_unreadable(
        self, refused: Any, scan: Any, out: Path, tmp_path: Path, suffix: str, content: bytes
    ) -> None:
        path = tmp_path / f"broken{suffix}"
        path.write_bytes(content)
        assert "broken" in refused("propagate", scan.image, scan.prompt, "-o", out, "--weights", path)

    @pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
    def test_of_another_network(self, refused: Any, scan: Any, out: Path, tmp_path: Path, suffix: str) -> None:
        import torch
        from safetensors.torch import save_file

        path = tmp_path / f"other{suffix}"
        tensors = {"layer.weight": torch.zeros(3, 3)}
        if suffix == ".pth":
            torch.save(tensors, path)
        else:
            save_file(tensors, path)
        assert "other" in refused("propagate", scan.image, scan.prompt, "-o", out, "--weights", path)

    def test_of_another_configuration(self, refused: Any, scan: Any, out: Path, tmp_path: Path) -> None:
        import torch
        from safetensors.torch import save_file

        path = tmp_path / "other.safetensors"
        save_file({"layer.weight": torch.zeros(3, 3)}, path, metadata={"configuration": "huge", "version": "1"})
        assert "other" in refused("propagate", scan.image, scan.prompt, "-o", out, "--weights", path)


class TestOutput:
    def test_no_such_folder(self, refused: Any, scan: Any, tmp_path: Path) -> None:
        assert "Create it" in refused("propagate", scan.image, scan.prompt, "-o", tmp_path / "none" / "out.nii.gz")
        assert not (tmp_path / "none").exists()

    def test_below_a_file(self, refused: Any, scan: Any, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        refused("propagate", scan.image, scan.prompt, "-o", tmp_path / "file" / "out.nii.gz")

    @pytest.mark.parametrize("option", ["-o", "--report", "--sheet"])
    def test_folder_not_writable(self, refused: Any, scan: Any, tmp_path: Path, option: str) -> None:
        if os.geteuid() == 0:
            folder = Path("/proc/self")  # where even root may not make a file
        else:
            folder = tmp_path / "closed"
            folder.mkdir(mode=0o555)
        paths = {"-o": tmp_path / "out.nii.gz", "--report": tmp_path / "r.json", "--sheet": tmp_path / "s.png"}
        paths[option] = folder / paths[option].name
        words = [word for pair in paths.items() for word in pair]
        assert str(folder) in refused("propagate", scan.image, scan.prompt, *words)
        assert not any(path.is_file() for path in tmp_path.iterdir())  # nothing was done before that was seen

    @pytest.mark.parametrize("name", ["out", "out.txt", "out.nii.bz2"])
    def test_suffix_without_a_format(self, refused: Any, scan: Any, tmp_path: Path, name: str) -> None:
        assert ".nii.gz" in refused("propagate", scan.image, scan.prompt, "-o", tmp_path / name)

    def test_dicom_seg_of_an_image_that_is_not_dicom(self, refused: Any, scan: Any, tmp_path: Path) -> None:
        assert "DICOM" in refused("propagate", scan.image, scan.prompt, "-o", tmp_path / "out.dcm")

    @pytest.mark.parametrize(("option", "name"), [("--report", "report.txt"), ("--sheet", "sheet.jpg")])
    def test_suffix_of_report_and_sheet(self, refused: Any, scan: Any, out: Path, option: str, name: str) -> None:
        assert "must end in" in refused("propagate", scan.image, scan.prompt, "-o", out, option, out.with_name(name))

    @pytest.mark.parametrize("which", ["image", "prompt"])
    def test_what_was_read_is_never_overwritten(self, refused: Any, scan: Any, which: str) -> None:
        before = getattr(scan, which).read_bytes()
        assert "overwrite" in refused("propagate", scan.image, scan.prompt, "-o", getattr(scan, which))
        assert getattr(scan, which).read_bytes() == before

    def test_painted_frames_are_never_overwritten(self, refused: Any, scan: Any, tmp_path: Path) -> None:
        painted = tmp_path / "painted"
        painted.mkdir()
        (painted / "f5.png").write_bytes(b"painted by hand")
        for prompt in (painted / "f5.png", painted):
            assert "would overwrite PROMPT" in refused("propagate", scan.image, prompt, "-o", painted)
        words = ("propagate", scan.image, painted, "-o", painted / "f5.png")
        assert "would overwrite PROMPT" in refused(*words)
        assert (painted / "f5.png").read_bytes() == b"painted by hand"

    @pytest.mark.parametrize(("option", "name"), [("--report", "r.json"), ("--sheet", "s.png")])
    def test_a_folder_of_that_name(
        self, refused: Any, scan: Any, out: Path, tmp_path: Path, option: str, name: str
    ) -> None:
        (tmp_path / name).mkdir()
        said = refused("propagate", scan.image, scan.prompt, "-o", out, option, tmp_path / name)
        assert "a folder has that name" in said

    def test_before_the_work(self, refused: Any, tmp_path: Path) -> None:
        (tmp_path / "f.safetensors").mkdir()
        nowhere = tmp_path / "nowhere"
        assert "is not a folder" in refused("judge", tmp_path, nowhere / "j.safetensors")
        assert "is not a folder" in refused("pack", tmp_path, nowhere / "p.npz")
        assert "a folder has that name" in refused("finetune", tmp_path, "-o", tmp_path / "f.safetensors")
        for rate in ("nan", "-1", "0", "fast"):
            assert "no learning rate" in refused("train", tmp_path, "--folder", tmp_path / "run", "--rate", rate)


# A library that fails in mid-write may leave closing the file to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class TestDiskFull:
    """The file size limit stands for the disk: the write fails in its middle, with a real error of the system."""

    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
    def test_no_partial_label_map(self, refused: Any, scan: Any, tmp_path: Path, suffix: str) -> None:
        # Painted all over with noise, so that nothing is left to compute and no compression makes it small.
        noise = np.random.default_rng(0).integers(1, 3, scan.labels.shape, np.uint8)
        prompt = scan.write(tmp_path / "prompt.nii.gz", noise)
        target = tmp_path / "outputs"
        target.mkdir()
        with little_space():
            line = refused("propagate", scan.image, prompt, "-o", target / f"out{suffix}", "--plane", "axial")
        assert "disk is full" in line
        assert list(target.iterdir()) == []

    def test_the_label_map_of_before_stays(self, refused: Any, scan: Any, tmp_path: Path) -> None:
        (tmp_path / "out.nii").write_bytes(b"the result of before")
        with little_space():
            refused("propagate", scan.image, scan.prompt, "-o", tmp_path / "out.nii", "--first", 8, "--last", 8)
        assert (tmp_path / "out.nii").read_bytes() == b"the result of before"
        assert [path.name for path in tmp_path.iterdir()] == ["out.nii"]

    def test_no_partial_sheet(self, refused: Any, scan: Any, tmp_path: Path) -> None:
        words = ("-o", tmp_path / "out.nii.gz", "--sheet", tmp_path / "sheet.png", "--first", 8, "--last", 8)
        with little_space():
            assert "sheet.png" in refused("propagate", scan.image, scan.prompt, *words)
        assert [path.name for path in tmp_path.iterdir()] == ["out.nii.gz"]

    def test_on_a_really_full_disk(self, refused: Any, scan: Any, tmp_path: Path) -> None:
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "none", str(disk)], capture_output=True)
        if mount.returncode:
            pytest.skip("this user may not mount")
        limits = ("--first", 8, "--last", 8)
        try:
            assert "disk is full" in refused("propagate", scan.image, scan.prompt, "-o", disk / "out.nii", *limits)
            assert list(disk.iterdir()) == []
        finally:
            subprocess.run(["umount", str(disk)], check=True)


@contextmanager
def little_space() -> Iterator[None]:
    """No file may grow beyond 4 KiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # Python ignores SIGXFSZ, so that writes fail with EFBIG
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        sys.dont_write_bytecode = bytecode


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_in_mid_run_leaves_no_partial_file(scan: Any, tmp_path: Path, how: signal.Signals) -> None:
    long = np.repeat(scan.voxels, 60, axis=2)  # would take half a minute
    image = scan.write(tmp_path / "image.nii", long)
    painted = np.zeros(long.shape, np.uint8)
    painted[:, :, 480] = scan.labels[:, :, 8]
    prompt = scan.write(tmp_path / "prompt.nii", painted)
    before = {path.name for path in tmp_path.iterdir()}
    words = ["propagate", str(image), str(prompt), "-o", str(tmp_path / "out.nii.gz")]
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), *words],
        stdout=theirs,
        stderr=theirs,
        # What a shell starts in the background, CI too, ignores Ctrl-C, and so would we.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(theirs)
    try:
        seen = b""
        while b"slices/s" not in seen:
            seen += os.read(ours, 4096)
        running.send_signal(how)
        assert running.wait(timeout=30) == (130 if how is signal.SIGINT else 143)
    finally:
        running.kill()
        running.wait()
        os.close(ours)
    assert {path.name for path in tmp_path.iterdir()} == before


class TestFaults:
    @pytest.fixture(autouse=True)
    def broken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def run(args: object) -> int:
            raise ZeroDivisionError("oops\nand more")

        monkeypatch.setattr(cli, "dice", run)

    def test_ours_are_one_line_too(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["dice", "a", "b"]) == 1
        assert capsys.readouterr().err == "error: unexpected ZeroDivisionError: oops and more; --debug shows where\n"

    def test_debug_shows_where(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["dice", "a", "b", "--debug"]) == 1
        assert "Traceback" in capsys.readouterr().err


class TestDice:
    def test_empty_reference(self, refused: Any, scan: Any, tmp_path: Path) -> None:
        blank = scan.write(tmp_path / "blank.nii.gz", np.zeros_like(scan.labels))
        assert "blank" in refused("dice", scan.truth, blank)

    def test_missing_file(self, refused: Any, scan: Any, tmp_path: Path) -> None:
        assert "nowhere" in refused("dice", tmp_path / "nowhere.nii.gz", scan.truth)


class TestServe:
    def test_studies_that_are_not_there(self, refused: Any, tmp_path: Path) -> None:
        assert "studies" in refused("serve", "--studies", tmp_path / "none")
