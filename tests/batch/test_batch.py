"""`main.py batch` with real workers: every label map once, whoever dies."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import psutil
import pytest

from imos.batch.records import checksum
from tests.conftest import ROOT, Scan

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]

COUNT = 4
"""Studies."""


@pytest.fixture(scope="module")
def studies(scan: Scan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four volumes that take a while, and their list."""
    folder = tmp_path_factory.mktemp("studies")
    rows = ["id,image,prompt"]
    for number in range(COUNT):
        voxels = np.repeat(np.roll(scan.voxels, number, 1), 3, 2)
        painted = np.zeros(voxels.shape, np.uint8)
        painted[:, :, 24] = np.roll(scan.labels, number, 1)[:, :, 8]
        scan.write(folder / f"{number}.nii.gz", voxels)
        scan.write(folder / f"{number}_painted.nii.gz", painted)
        rows.append(f"s{number},{number}.nii.gz,{number}_painted.nii.gz")
    (folder / "list.csv").write_text("\n".join(rows) + "\n")
    return folder


def started(studies: Path, output: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "main.py", "batch", str(studies / "list.csv"), "-o", str(output), *options]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def table(output: Path) -> dict[str, dict[str, str]]:
    with (output / "batch.tsv").open() as file:
        return {row["id"]: row for row in csv.DictReader(file, dialect="excel-tab")}


def assert_each_is_there_once(output: Path) -> None:
    assert sorted(path.name for path in output.glob("*.nii.gz")) == [f"s{number}.nii.gz" for number in range(COUNT)]
    for number in range(COUNT):
        record = json.loads((output / ".batch" / "records" / f"s{number}.json").read_text())
        assert record["sha256"] == checksum(output / f"s{number}.nii.gz")
        labels = np.asarray(nibabel.load(output / f"s{number}.nii.gz").dataobj)
        assert set(np.unique(labels)) == {0, 1, 2}
    assert not (output / ".batch" / "partial").exists()


def workers_of(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    """Those that have a study now."""
    found = psutil.Process(driver.pid).children(recursive=True)
    return [each for each in found if each.is_running() and each.name().startswith("ray::work_on")]


def until(condition: object, driver: subprocess.Popen[str], seconds: float = 120) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_worker_costs_nothing_but_time(studies: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    driver = started(studies, output, "--workers", "2")
    until(lambda: workers_of(driver) and list(output.glob("*.nii.gz")), driver)
    victims = workers_of(driver)
    victims[0].send_signal(signal.SIGKILL)
    said, errors = driver.communicate(timeout=300)
    assert driver.returncode == 0, errors
    assert said.splitlines()[-1].startswith(
        f"{COUNT} done, 0 done before, 0 failed"
    )  # Ray says before that a worker died
    assert not victims[0].is_running()
    assert_each_is_there_once(output)
    assert {row["state"] for row in table(output).values()} == {"done"}


def test_a_killed_run_goes_on_and_touches_neither_its_own_nor_other_label_maps(studies: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    by_hand = output / "s3.nii.gz"
    shutil.copy(studies / "3_painted.nii.gz", by_hand)
    before = by_hand.read_bytes()

    driver = started(studies, output, "--workers", "2")
    until(lambda: list((output / ".batch").glob("records/*.json")), driver)
    driver.kill()
    driver.communicate()
    made = {path: path.stat().st_mtime_ns for path in output.glob("*.nii.gz")}
    assert len(made) < COUNT

    driver = started(studies, output, "--workers", "2")
    said, errors = driver.communicate(timeout=300)
    assert driver.returncode == 2
    assert "s3: s3.nii.gz is there and not, or not only, this program's work" in errors
    assert all(path.stat().st_mtime_ns == written for path, written in made.items())
    assert by_hand.read_bytes() == before
    states = {name: row["state"] for name, row in table(output).items()}
    assert states.pop("s3") == "failed"
    assert set(states.values()) <= {"done", "kept"}
    by_hand.unlink()

    driver = started(studies, output, "--workers", "1")
    said, errors = driver.communicate(timeout=300)
    assert (driver.returncode, said.split(":")[0]) == (0, f"1 done, {COUNT - 1} done before, 0 failed"), errors
    assert_each_is_there_once(output)


def test_broken_studies_do_not_stop_the_others(studies: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "broken.nii.gz").write_bytes(b"no image")
    (folder / "list.csv").write_text(
        "image,prompt\n"
        f"broken.nii.gz,{studies}/0_painted.nii.gz\n"
        f"none.nii.gz,{studies}/0_painted.nii.gz\n"
        f"{studies}/0.nii.gz,{studies}/0_painted.nii.gz\n"
    )
    driver = started(folder, tmp_path / "out")
    said, errors = driver.communicate(timeout=300)
    assert driver.returncode == 2
    assert said.startswith("1 done, 0 done before, 2 failed")
    assert "broken: " in errors
    assert "none: There is no file or folder" in errors
    assert table(tmp_path / "out")["0"]["state"] == "done"


def test_two_runs_do_not_share_a_folder(studies: Path, tmp_path: Path) -> None:
    output, head, *rows = tmp_path / "out", *(studies / "list.csv").read_text().splitlines()
    many = tmp_path / "many"  # so that the first is still at work when it is interrupted
    shutil.copytree(studies, many)
    (many / "list.csv").write_text("\n".join([head, *(f"{number}_{row}" for number in range(12) for row in rows)]))
    first = started(many, output, "--workers", "1")
    until(lambda: (output / ".batch" / "records").exists(), first)
    second = started(many, output)
    _, errors = second.communicate(timeout=120)
    assert (second.returncode, errors.strip()[:30]) == (2, f"error: another run works on {output}"[:30])
    first.send_signal(signal.SIGINT)
    _, errors = first.communicate(timeout=120)
    assert (first.returncode, errors.strip()) == (130, "error: interrupted")
    assert not (output / ".batch" / "partial").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--address", "127.0.0.1:9"), "there is no Ray cluster at 127.0.0.1:9"),
        (("--address", "head"), "there is no Ray cluster at head"),
        (("--workers", "2", "--address", "auto"), "Leave one of them out"),
        (("--weights", "none.safetensors"), "--weights: there is no file none.safetensors"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(studies: Path, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    driver = started(studies, tmp_path / "out", *options)
    _, errors = driver.communicate(timeout=120)
    assert driver.returncode == 2
    assert said in errors
    assert len(errors.strip().splitlines()) == 1
