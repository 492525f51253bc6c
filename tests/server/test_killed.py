"""kill -9 in the middle of accepting, at every moment that makes a difference on disk.

What a server writes becomes visible when a file takes its place, and in an archive when the segmentation has arrived.
The server of these tests ends itself with SIGKILL right before one of these moments, the first, the second, and so on;
what is left is what any kill at that time leaves. It is the real server otherwise. As it is started many times, one
process imports everything once and forks the servers.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import nibabel
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from imos.server import local_archive
from imos.server.dicomweb.messages import split_multipart
from tests.orthanc import free_port, needs_orthanc
from tests.server.conftest import START_SECONDS, Painter

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.xdist_group("server")]

PAINTED = 8
NEVER = 10**6

NURSERY = """
import http.client, json, os, signal, sys, threading

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what is imported prints

import monailabel.app, monailabel.main
import imos.server.datastores, imos.server.install, imos.server.scribbles_task, imos.server.segmentations
import imos.server.strategies, imos.server.train_task

order, diary = sys.argv[1:]
lock, steps = threading.Lock(), []
at = ""

def step(name):
    global at
    with lock:
        if not os.path.exists(order):
            return
        with open(order) as file:
            said = file.read()
        if said != at:
            at = said
            steps.clear()
        steps.append(name)
        with open(diary, "a") as file:
            print(name, file=file)
        if len(steps) == int(at):
            os.kill(os.getpid(), signal.SIGKILL)

def replace(source, target, _replace=os.replace, **more):
    step(os.fspath(target))
    return _replace(source, target, **more)

def putrequest(self, method, url, *arguments, _put=http.client.HTTPConnection.putrequest, **more):
    self.is_store = method == "POST" and "/studies" in url
    if self.is_store:
        step("store begins")
    return _put(self, method, url, *arguments, **more)

def getresponse(self, *arguments, _get=http.client.HTTPConnection.getresponse, **more):
    if getattr(self, "is_store", False):
        step("store sent")
    return _get(self, *arguments, **more)

os.replace = replace
http.client.HTTPConnection.putrequest = putrequest
http.client.HTTPConnection.getresponse = getresponse

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.argv[1:] = json.loads(line)
        monailabel.main.Main().run()
        os._exit(0)
    print(child, file=answers, flush=True)
    print(os.waitpid(child, 0)[1], file=answers, flush=True)
"""


@dataclass
class Mortal:
    """A server that can be told when to end itself.

    Attributes:
        studies: Folder or archive that it serves.
        folder: For what belongs to the test.
        root: The repository.
        settings: MONAI Label's.
        nursery: Forks it, and says how it ended.
        url: Where it answers now.
    """

    studies: Path | str
    folder: Path
    root: Path
    settings: dict[str, str] = field(default_factory=lambda: {"MONAI_LABEL_TASKS_SCORING": "false"})
    nursery: subprocess.Popen[str] | None = None
    url: str = ""

    @property
    def order(self) -> Path:
        """Holds the number of the moment before which the server ends; its absence: it shall live."""
        return self.folder / "order"

    @property
    def diary(self) -> Path:
        """The moments."""
        return self.folder / "diary"

    @property
    def log(self) -> Path:
        """What the servers print."""
        return self.folder / "server.log"

    def start(self) -> str:
        """Start a server, and wait until it answers."""
        if self.nursery is None:
            command = [sys.executable, "-c", NURSERY, str(self.order), str(self.diary)]
            path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            with self.log.open("w") as log:
                self.nursery = subprocess.Popen(
                    command,
                    cwd=self.folder,
                    env=os.environ | {"PATH": path} | self.settings,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    start_new_session=True,
                )
        port = free_port()
        said = ["start_server", "--app", str(self.root / "apps" / "imos"), "--studies", str(self.studies)]
        said += ["--host", "127.0.0.1", "--port", str(port), "--conf", "auto_train", "0"]
        assert self.nursery.stdin is not None
        print(json.dumps(said), file=self.nursery.stdin, flush=True)
        assert int(self._line())  # it is there
        self.url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{self.url}/info/", timeout=30).status_code == 200:
                    return self.url
            except httpx.TransportError:
                time.sleep(0.1)
        pytest.fail(f"The server did not start:\n{self.log.read_text()[-4000:]}")

    def steps(self, painter: Painter, labels: NDArray[Any]) -> list[str]:
        """The moments of accepting."""
        self.diary.write_text("")
        self.order.write_text(str(NEVER))
        assert painter.post("accept", labels, objects=OBJECTS).status_code == 200
        self.order.unlink()
        return self.diary.read_text().splitlines()

    def dies(self, at: int, painter: Painter, labels: NDArray[Any]) -> None:
        """Accept; the server is killed right before one of the moments, which are counted from 1."""
        self.order.write_text(str(at))
        with pytest.raises(httpx.TransportError):
            painter.post("accept", labels, objects=OBJECTS)
        assert int(self._line()) == signal.SIGKILL
        self.order.unlink()

    def end(self) -> None:
        """Kill what still runs."""
        if self.nursery is not None:
            os.killpg(self.nursery.pid, signal.SIGKILL)
            self.nursery.communicate(timeout=30)

    def _line(self) -> str:
        assert self.nursery is not None
        assert self.nursery.stdout is not None
        return self.nursery.stdout.readline() or pytest.fail(self.log.read_text()[-4000:])


@pytest.fixture
def mortal(tmp_path: Path, root: Path) -> Iterator[Mortal]:
    one = Mortal("", tmp_path, root)
    yield one
    one.end()


def everything(painter: Painter) -> tuple[list[str], list[str], bytes]:
    """What must be there again: the steps to undo, the objects' names, and every voxel."""
    state = painter.state()
    return state["undo"], [one["name"] for one in state["objects"]], painter.labels().tobytes()


OBJECTS = [{"value": 1, "name": "Ren dexter"}, {"value": 2, "name": "Wątroba"}]


def test_a_server_killed_while_it_stores_a_label_in_a_folder_leaves_whole_ones(mortal, scan, tmp_path):
    studies = tmp_path / "studies"
    studies.mkdir()
    for name in ("case", "other"):
        shutil.copyfile(scan.image, studies / f"{name}.nii.gz")
    mortal.studies = studies
    affine, url = nibabel.load(scan.image).affine, mortal.start()
    worker, accepting, other = (
        Painter(url, image, client, affine)
        for image, client in (("case", "worker"), ("case", "accepting"), ("other", "worker"))
    )
    seen = [scan.painted(PAINTED), scan.labels]
    worker.run(seen[0], [PAINTED], objects=OBJECTS)
    assert other.post("accept", seen[0], objects=OBJECTS).status_code == 200
    assert accepting.post("accept", seen[0], objects=OBJECTS).status_code == 200
    known = everything(worker), everything(other)

    def final(name: str) -> NDArray[Any]:
        return np.asarray(nibabel.load(studies / "labels" / "final" / f"{name}.nii.gz").dataobj)

    steps = mortal.steps(accepting, seen[1])
    names = [Path(step).name for step in steps]
    assert "case.nii.gz" in names
    assert "datastore_v2.json" in names
    assert any(".imos" in step for step in steps), "the state is kept as well"
    before = 1
    for at in range(1, len(steps) + 1):
        mortal.dies(at, accepting, seen[1 - before])
        found = final("case")
        (now,) = [number for number in (0, 1) if np.array_equal(found, seen[number])]
        assert now == (before if "case.nii.gz" not in names[: at - 1] else 1 - before), names[:at]
        assert np.array_equal(final("other"), seen[0])
        url = mortal.start()
        worker, accepting, other = (replace(one, url=url) for one in (worker, accepting, other))
        assert (everything(worker), everything(other)) == known
        assert any(np.array_equal(accepting.labels(), one) for one in seen)
        table = json.loads((studies / "datastore_v2.json").read_text())["objects"]
        assert {name: list(one["labels"]) for name, one in table.items()} == {"case": ["final"], "other": ["final"]}
        asked = {"label": "case", "tag": "final"}
        there = httpx.get(f"{url}/datastore/label", params=asked, timeout=30)
        assert there.content == (studies / "labels" / "final" / "case.nii.gz").read_bytes()
        before = now
    assert accepting.post("accept", seen[1 - before], objects=OBJECTS).status_code == 200
    assert np.array_equal(final("case"), seen[1 - before])


@needs_orthanc
def test_a_server_killed_while_it_stores_a_label_in_an_archive_leaves_whole_ones(mortal, scan, tmp_path):
    (tmp_path / "images").mkdir()
    shutil.copyfile(scan.image, tmp_path / "images" / "case.nii.gz")
    archive = local_archive.start(tmp_path / "archive", tmp_path / "images", free_port())
    try:
        (series,) = [one["0020000E"]["Value"][0] for one in ask(archive.url, "series")]
        mortal.studies = archive.url
        mortal.settings["MONAI_LABEL_DICOMWEB_CACHE_PATH"] = str(tmp_path / "cache")
        url = mortal.start()
        grid = httpx.get(f"{url}/imos/v1/images/{series}/state", params={"client": "worker"}, timeout=60).json()["grid"]
        affine = grid_affine(grid)
        worker, accepting = (Painter(url, series, client, affine) for client in ("worker", "accepting"))
        seen = [scan.painted(PAINTED), scan.labels]
        worker.run(seen[0], [PAINTED], objects=OBJECTS)
        assert accepting.post("accept", seen[0], objects=OBJECTS).status_code == 200
        known = everything(worker)

        steps = mortal.steps(accepting, seen[1])
        assert "store begins" in steps
        assert "store sent" in steps
        before, stored = 1, 2
        # What happens before is that of a folder, too.
        for at in range(steps.index("store begins") + 1, len(steps) + 1):
            mortal.dies(at, accepting, seen[1 - before])
            masks = segmentations(archive.url)
            assert stored <= len(masks) <= stored + 1, "none is lost"
            assert len(masks) == stored or "store begins" in steps[: at - 1]
            stored = len(masks)
            for mask in masks:
                assert mask in (painted_voxels(seen[0]), painted_voxels(seen[1])), "and each is whole"
            url = mortal.start()
            worker, accepting = replace(worker, url=url), replace(accepting, url=url)
            assert everything(worker) == known
            now = [number for number in (0, 1) if np.array_equal(accepting.labels(), seen[number])]
            assert len(now) == 1
            before = now[0]
        assert accepting.post("accept", seen[1 - before], objects=OBJECTS).status_code == 200
        assert len(segmentations(archive.url)) == stored + 1
    finally:
        archive.stop()


def ask(archive: str, what: str, **query: str) -> list[dict[str, Any]]:
    """Search the archive."""
    answer = httpx.get(f"{archive}/{what}", params=query, headers={"Accept": "application/dicom+json"}, timeout=30)
    found: list[dict[str, Any]] = answer.json() if answer.content else []
    return found


def segmentations(archive: str) -> list[dict[str, int]]:
    """Of each DICOM SEG in the archive: name of a segment to its voxels."""
    found = []
    for one in ask(archive, "instances", Modality="SEG", includefield="0020000D"):
        study, series, instance = (one[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018"))
        answer = httpx.get(f"{archive}/studies/{study}/series/{series}/instances/{instance}", timeout=30)
        (part,) = split_multipart(answer.content, answer.headers["content-type"])
        dataset = pydicom.dcmread(io.BytesIO(part))
        names = {int(one.SegmentNumber): str(one.SegmentLabel) for one in dataset.SegmentSequence}
        voxels = dict.fromkeys(names.values(), 0)
        frames = np.atleast_3d(dataset.pixel_array).reshape(int(dataset.NumberOfFrames), -1)
        for frame, said in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
            number = int(said.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
            voxels[names[number]] += int(np.count_nonzero(frame))
        found.append(voxels)
    return found


def painted_voxels(labels: NDArray[Any]) -> dict[str, int]:
    """Name of each object to its voxels."""
    return {one["name"]: int((labels == one["value"]).sum()) for one in OBJECTS}


def grid_affine(grid: dict[str, Any]) -> NDArray[np.float64]:
    """Of a grid as STATE says it: axes in LPS."""
    affine = np.eye(4)
    affine[:3, :3] = (np.array(grid["directions"]) * np.array(grid["spacing"])[:, None]).T
    affine[:3, 3] = grid["origin"]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
