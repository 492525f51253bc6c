"""What a killed server leaves among the temporary files goes with the next one's start; what others use stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from imos.server.temporary import remove_left, temporary_folder, temporary_prefix

SERVER = """
import tempfile, time
from pathlib import Path
from imos.server.temporary import temporary_folder, temporary_prefix

folder = temporary_folder()
Path(folder.name, "label.nii.gz").write_bytes(b"somebody")
_, file = tempfile.mkstemp(prefix=temporary_prefix())
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """Another process with a temporary folder and a temporary file, in a folder that nobody else uses."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_killed_server_left_is_removed(
    other: subprocess.Popen[str], tmp_path: Path, how: signal.Signals
) -> None:
    left = sorted(tmp_path.iterdir())
    assert len(left) == 2
    remove_left()
    assert sorted(tmp_path.iterdir()) == left  # it still runs
    other.send_signal(how)
    other.wait()
    assert sorted(tmp_path.iterdir()) == left
    remove_left()
    assert not list(tmp_path.iterdir())


def test_what_this_server_and_other_programs_use_stays(other: subprocess.Popen[str], tmp_path: Path) -> None:
    other.kill()
    other.wait()
    for name in ("imos-notes", "imos-12", "other-1-2-x"):
        (tmp_path / name).mkdir()
    kept = tmp_path / "patient.nii.gz"
    kept.touch()
    (tmp_path / f"imos-{other.pid}-1-link").symlink_to(tmp_path / "imos-notes", target_is_directory=True)
    (tmp_path / "imos-notes" / "mine").touch()
    with temporary_folder() as folder:
        remove_left()
        names = {path.name for path in tmp_path.iterdir()}
        assert names == {Path(folder).name, "imos-notes", "imos-12", "other-1-2-x", kept.name}
    assert (tmp_path / "imos-notes" / "mine").exists()


def test_a_forked_process_has_names_of_its_own() -> None:
    mine = temporary_prefix()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, temporary_prefix().encode())
        os._exit(0)
    os.waitpid(child, 0)
    said = os.read(read, 100).decode()
    os.close(read)
    os.close(write)
    assert mine.startswith(f"imos-{os.getpid()}-")
    assert said.startswith(f"imos-{child}-")
