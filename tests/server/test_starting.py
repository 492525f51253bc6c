"""A server that is started wrongly: one line that says what to change, and exit code 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from imos.errors import UserError
from imos.server.conf import AppConf

WRONG = [
    ({"autotrain": "3"}, "Do you mean auto_train?"),
    ({"colour": "red"}, "Choose among adapter"),
    ({"auto_train": "often"}, "auto_train is a whole number from 0"),
    ({"auto_train": "-1"}, "auto_train is a whole number from 0"),
    ({"train_steps": "0"}, "train_steps is a whole number from 1"),
    ({"upload_mb": "1.5"}, "upload_mb is a whole number from 1"),
    ({"unpacked_mb": "many"}, "unpacked_mb is a whole number from 1"),
    ({"device": "gpu"}, "There is no device 'gpu'"),
]


@pytest.mark.parametrize(("said", "words"), WRONG)
def test_a_wrong_setting_is_named(said: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words.replace("?", r"\?")):
        AppConf.parse(said)


@pytest.mark.parametrize("name", ["weights", "adapter"])
def test_a_file_that_is_not_there_is_named_at_the_start_alone(name: str) -> None:
    """It may be gone later, and a label be accepted nevertheless."""
    conf = AppConf.parse({name: "mistyped.safetensors"})
    with pytest.raises(UserError, match=rf"There is no weights file mistyped\.safetensors for --conf {name}\."):
        conf.check_files()


def test_what_is_not_said_is_as_documented() -> None:
    """With what MONAI Label itself reads of `--conf` beside it."""
    assert AppConf.parse({"server_mode": "true", "device": "", "auto_train": ""}) == AppConf()
    assert AppConf.parse({"auto_train": "0"}).auto_train == 0
    assert AppConf.parse({"unpacked_mb": "96", "train_steps": "12"}) == AppConf(unpacked_mb=96, train_steps=12)


@pytest.mark.server
@pytest.mark.parametrize(
    ("conf", "words"),
    [(("autotrain", "3"), "auto_train"), (("weights", "mistyped.pth"), "no weights file"), ((), "is a file")],
)
def test_the_server_does_not_start_and_says_why(root: Path, tmp_path: Path, conf: tuple[str, ...], words: str) -> None:
    studies = tmp_path / "studies"
    studies.mkdir() if conf else studies.write_bytes(b"an image")
    command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", str(root / "apps" / "imos")]
    command += ["--studies", str(studies), "--port", "1", *(("--conf", *conf) if conf else ())]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("imos: ")
    assert words in last


def end_of(raised: str) -> subprocess.CompletedProcess[str]:
    """How a process ends in which this is raised at the start of the server."""
    code = f"from imos.server.starting import ends_in_a_sentence\nwith ends_in_a_sentence():\n    raise {raised}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_a_place_where_nothing_can_be_written_is_named() -> None:
    done = end_of("OSError(30, 'Read-only file system', '/studies/.lock')")

    assert done.returncode == 2
    assert done.stderr.startswith("imos: The server cannot write /studies/.lock: Read-only file system.")
    assert len(done.stderr.strip().splitlines()) == 1


def test_what_is_nobodys_mistake_comes_out_as_it_is() -> None:
    done = end_of("FileNotFoundError(2, 'No such file', 'x')")

    assert done.returncode == 1
    assert "FileNotFoundError" in done.stderr
