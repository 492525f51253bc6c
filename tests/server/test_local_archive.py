"""`make run`: an Orthanc of our own, filled with the images of a folder."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import nibabel
import numpy as np
import pytest

from imos.errors import UserError
from imos.server import local_archive
from tests.orthanc import free_port, needs_orthanc


def volume(path: Path) -> None:
    voxels = np.arange(8 * 9 * 5, dtype=np.int16).reshape(8, 9, 5)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1, 1, 3, 1])), path)


@pytest.mark.server
@needs_orthanc
def test_every_volume_is_a_series_in_the_archive_and_starting_again_adds_nothing(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    volume(images / "one.nii.gz")
    volume(images / "two.nii")
    (images / "notes.txt").write_text("no volume")
    archive = local_archive.start(tmp_path / "archive", images, free_port())
    try:
        assert set(archive.studies) == {"one", "two"}
        for name, study in archive.studies.items():
            found = httpx.get(f"{archive.url}/studies/{study}/series", timeout=30).json()
            assert len(found) == 1
            assert found[0]["00201209"]["Value"] == [5]
            said = local_archive.announce(archive.studies, "http://127.0.0.1:8000")
            assert study in said
            assert f"image={found[0]['0020000E']['Value'][0]}" in said.split(name)[1]
        assert local_archive.fill(archive.url.removesuffix("/dicom-web"), images) == archive.studies
        assert len(httpx.get(f"{archive.url}/series", timeout=30).json()) == 2
    finally:
        archive.stop()


@pytest.mark.server
@needs_orthanc
def test_a_port_in_use_and_a_folder_without_volumes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_archive, "START_SECONDS", 5.0)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="does not start"):
        local_archive.start(tmp_path / "archive", tmp_path, int(taken.getsockname()[1]))
    with pytest.raises(UserError, match="holds no volume"):
        local_archive.start(tmp_path / "other", tmp_path, free_port())


STUB = (
    "import os, sys, time; print('|'.join([os.environ['MONAI_LABEL_DICOMWEB_CACHE_PATH'], *sys.argv[1:]]), flush=True)"
)
"""Instead of the server: says what it was started with."""


@contextlib.contextmanager
def become(tmp_path: Path, *options: str, stub: str = f"{STUB}; time.sleep(60)") -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "imos.server.local_archive", *options, "--viewer", "http://viewer"]
    command += [str(tmp_path / "archive"), str(tmp_path / "images"), sys.executable, "-c", stub, "--port", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def is_closed(port: int) -> bool:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return True
        time.sleep(0.1)
    return False


def is_closed_now(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        return False
    return True


@pytest.mark.server
@needs_orthanc
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_it_becomes_the_server_and_orthanc_ends_with_it(tmp_path: Path, end: signal.Signals) -> None:
    (tmp_path / "images").mkdir()
    volume(tmp_path / "images" / "one.nii.gz")
    port = free_port()
    with become(tmp_path, "--port", str(port)) as process:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{port}/dicom-web"
        assert url in process.stdout.readline()
        said = [process.stdout.readline().strip() for _ in range(4)]
        assert said[0] == "one"
        assert "http://viewer/ohif/segmentation?StudyInstanceUIDs=" in said[1]
        cache, *arguments = said[3].split("|")
        assert Path(cache) == tmp_path / "archive" / "cache"
        assert arguments == ["--port", "1", "--studies", url]
        assert not is_closed_now(port)
        with become(tmp_path) as second:
            _, error = second.communicate(timeout=60)
            assert second.returncode == 2
            assert "another server uses the archive" in error
        process.send_signal(end)
        process.wait(30)
        assert is_closed(port)
    assert local_archive.free_port(tmp_path / "archive") == port


def test_where_orthanc_does_not_start_the_folder_is_served_if_that_is_wanted(tmp_path: Path) -> None:
    stub = "import sys; print('|'.join(sys.argv[1:]))"
    (tmp_path / "images").mkdir()  # without a volume
    with become(tmp_path, "--or-files", stub=stub) as process:
        output, error = process.communicate(timeout=60)
    assert process.returncode == 0
    assert output.splitlines()[-1].split("|") == ["--port", "1", "--studies", str(tmp_path / "images")]
    assert error.startswith("No archive: ")
    with become(tmp_path, stub=stub) as process:
        output, error = process.communicate(timeout=60)
    assert (process.returncode, output) == (2, "")
    assert error.startswith("error: ")


def test_the_port_is_the_one_of_before_or_the_next_free_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = int(taken.getsockname()[1])
        monkeypatch.setattr(local_archive, "PORT", busy)
        assert busy < local_archive.free_port(tmp_path) < busy + 100
        before = free_port()
        (tmp_path / "orthanc.json").write_text(json.dumps({"HttpPort": before}))
        assert local_archive.free_port(tmp_path) == before
        (tmp_path / "orthanc.json").write_text(json.dumps({"HttpPort": busy}))
        assert busy < local_archive.free_port(tmp_path) < busy + 100
        (tmp_path / "orthanc.json").write_text("[")
        assert busy < local_archive.free_port(tmp_path) < busy + 100
