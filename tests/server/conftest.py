"""The real server: MONAI Label with the iMOS app, as a process of its own, on a free port."""

from __future__ import annotations

import base64
import gzip
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path
from typing import Any

import httpx
import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from imos.server.grids import Grid
from imos.server.label_files import decode_nrrd, encode_nrrd

START_SECONDS = 120.0


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        url: Its address without the last slash.
        studies: The folder it serves.
    """

    url: str
    studies: Path

    @property
    def temporary(self) -> Path:
        """Folder of its temporary files."""
        return temporary_of(self.studies.parent)

    def post(
        self,
        image: str,
        mask: tuple[str, bytes] | None = None,
        *,
        model: str = "imos",
        output: str | None = None,
        params: str = "{}",
        **query: str,
    ) -> httpx.Response:
        """`POST /infer/{model}` as the clients send it; `mask` is (file name, bytes)."""
        query = {"image": image} | ({"output": output} if output else {}) | query
        files = {} if mask is None else {"label": mask}
        return httpx.post(f"{self.url}/infer/{model}", params=query, data={"params": params}, files=files, timeout=120)

    def segment(
        self, image: str, mask: tuple[str, bytes] | None, **more: Any
    ) -> tuple[NDArray[np.generic], dict[str, Any]]:
        """Label map and JSON of a request that must succeed; the answer is read as NIfTI."""
        answer = self.post(image, mask, **more)
        assert answer.status_code == 200, answer.text
        params, file = parts(answer)
        return voxels(file), params


def parts(answer: httpx.Response) -> tuple[dict[str, Any], bytes]:
    """The JSON and the file of a multipart answer."""
    head = f"content-type: {answer.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + answer.content)
    found = {part.get_param("name", header="content-disposition"): part for part in message.iter_parts()}
    return json.loads(found["params"].get_content()), found["image"].get_payload(decode=True)


def voxels(nifti: bytes) -> NDArray[np.generic]:
    """`(I, J, K)` voxels of the bytes of a `.nii.gz`."""
    return np.asarray(nibabel.Nifti1Image.from_bytes(gzip.decompress(nifti)).dataobj)


@dataclass
class Told:
    """What a run said.

    Attributes:
        events: Kind and data of each event, in order.
        numbers: Their ids.
        shown: What a client shows that drew all slices, on its grid.
    """

    shown: NDArray[np.uint16]
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)

    @property
    def last(self) -> tuple[str, dict[str, Any]]:
        """The last event."""
        return self.events[-1]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The data of all events of a kind."""
        return [data for name, data in self.events if name == kind]

    def draw(self, said: dict[str, Any]) -> None:
        """Draw a slice as the API says: its pixels are the object's, the object's others there are background."""
        plane = np.moveaxis(self.shown, said["axis"], 0)[said["index"]]
        mask = np.zeros(plane.shape, bool)
        if said["rows"]:
            count = said["rows"] * said["columns"]
            bits = np.unpackbits(np.frombuffer(base64.b64decode(said["bits"]), np.uint8), count=count)
            box = mask[said["top"] : said["top"] + said["rows"], said["left"] : said["left"] + said["columns"]]
            box[:] = bits.reshape(said["rows"], said["columns"])
        plane[(plane == said["object"]) & ~mask] = 0
        plane[mask] = said["object"]


@dataclass(frozen=True)
class Painter:
    """A client of our own routes, as the plug-in is one.

    Attributes:
        url: Of the server.
        image: Id of the image.
        client: Who works.
        affine: Of the grid on which it sees the image.
    """

    url: str
    image: str
    client: str
    affine: NDArray[np.float64]

    def get(self, what: str) -> httpx.Response:
        """`GET` below the image."""
        return httpx.get(f"{self.url}/imos/v1/images/{self.image}/{what}", params={"client": self.client}, timeout=60)

    def state(self) -> dict[str, Any]:
        """STATE."""
        found = self.get("state")
        assert found.status_code == 200, found.text
        return found.json()

    def labels(self) -> NDArray[np.uint16]:
        """The label map as the server has it."""
        found = self.get("labels")
        assert found.status_code == 200, found.text
        return decode_nrrd(found.content)[0]

    def post(self, what: str, labels: NDArray[np.generic] | None = None, **params: Any) -> httpx.Response:
        """`POST` below the image, with a label map where there is one."""
        files = {}
        if labels is not None:
            kind = np.uint16 if labels.max(initial=0) > 255 else np.uint8
            grid = Grid(labels.shape, np.asarray(self.affine, float))
            files = {"label": ("seen.nrrd", encode_nrrd(labels.astype(kind), grid))}
        return httpx.post(
            f"{self.url}/imos/v1/images/{self.image}/{what}",
            params={"client": self.client},
            data={"params": json.dumps(params)} if labels is not None else {},
            files=files,
            timeout=60,
        )

    def step(self, what: str) -> dict[str, Any]:
        """Undo, redo or reset."""
        found = self.post(what)
        assert found.status_code == 200, found.text
        return found.json()

    def start(self, labels: NDArray[np.generic], slices: list[int], *, axis: int = 2, **params: Any) -> str:
        """Start a run on slices that were touched; its key."""
        values = sorted({int(value) for value in np.unique(labels) if value})
        edits = [{"axis": axis, "index": index, "values": params.pop("values", values)} for index in slices]
        found = self.post("runs", labels, edits=edits, **params)
        assert found.status_code == 202, found.text
        return found.json()["run"]

    def follow(self, run: str, labels: NDArray[np.generic], after: int = 0, stop: str = "") -> Told:
        """The events of a run, to its end or to the first one of kind `stop`."""
        told = Told(labels.astype(np.uint16))
        headers = {"Last-Event-ID": str(after)} if after else {}
        with httpx.stream("GET", f"{self.url}/imos/v1/runs/{run}/events", headers=headers, timeout=60) as stream:
            assert stream.status_code == 200, stream.read()
            kind = ""
            for line in stream.iter_lines():
                name, _, value = line.partition(": ")
                if name == "id":
                    told.numbers.append(int(value))
                elif name == "event":
                    kind = value
                elif name == "data":
                    told.events.append((kind, json.loads(value)))
                    if kind == "slice":
                        told.draw(told.events[-1][1])
                    if kind == stop:
                        break
        return told

    def run(self, labels: NDArray[np.generic], slices: list[int], **more: Any) -> Told:
        """Start a run that must end well, and follow it."""
        told = self.follow(self.start(labels, slices, **more), labels)
        assert told.last[0] == "done", told.last
        return told


def temporary_of(folder: Path) -> Path:
    """Where a server that works in a folder has its temporary files: beside it."""
    return folder.with_name(f"{folder.name}_temporary")


def start(
    studies: Path | str,
    log: Path,
    root: Path,
    *conf: str,
    cwd: Path | None = None,
    ready: str = "/info/",
    **settings: str,
) -> tuple[subprocess.Popen[bytes], str]:
    """Start a server and wait until it answers; `settings` are MONAI Label's."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", str(root / "apps" / "imos")]
    command += ["--studies", str(studies), "--host", "127.0.0.1", "--port", str(port), *conf]
    temporary = temporary_of(log.parent)
    temporary.mkdir(exist_ok=True)
    environment = os.environ | {"TMPDIR": str(temporary)} | settings
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=cwd or Path(studies).parent, env=environment, stdout=output, stderr=output
        )
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}{ready}", timeout=5).status_code == 200:
                return process, url
        except httpx.TransportError:
            time.sleep(0.2)
    process.kill()
    process.wait()
    pytest.fail(f"The server did not start:\n{log.read_text(errors='replace')[-4000:]}")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, root: Path, samples: Path) -> Iterator[Server]:
    """A server with both sample images and two twins of one for labels to be stored with; one for all tests."""
    folder = tmp_path_factory.mktemp("server")
    studies = folder / "studies"
    shutil.copytree(samples / "studies", studies, ignore=lambda _folder, names: [n for n in names if "sample" not in n])
    for twin in ("stored", "broken", "twin", "accepted", "checked"):
        shutil.copyfile(samples / "ct" / "image.nii.gz", studies / f"{twin}.nii.gz")
    process, url = start(
        *(studies, folder / "server.log", root),
        *("--conf", "labels", "spleen,right kidney", "--conf", "upload_mb", "64", "--conf", "auto_train", "0"),
    )
    yield Server(url, studies)
    stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server as Ctrl-C does."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


Launch = Callable[..., tuple["subprocess.Popen[bytes]", str]]


@pytest.fixture
def launch(root: Path, tmp_path: Path) -> Iterator[Launch]:
    """Starts servers of its own; those that still run in the end are ended."""
    started = []

    def one(
        studies: Path | str, *conf: str, ready: str = "/info/", **settings: str
    ) -> tuple[subprocess.Popen[bytes], str]:
        log = tmp_path / f"server{len(started)}.log"
        started.append(start(studies, log, root, *conf, cwd=tmp_path, ready=ready, **settings))
        return started[-1]

    yield one
    for process, _url in started:
        if process.poll() is None:
            stop(process)


@pytest.fixture
def painter(server: Server, samples: Path, request: pytest.FixtureRequest) -> Painter:
    """A client of this test alone, on the CT sample."""
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[:60]
    return Painter(server.url, "sample_ct", name, nibabel.load(samples / "ct" / "image.nii.gz").affine)


@pytest.fixture(scope="session")
def painted(samples: Path) -> NDArray[np.uint8]:
    """The painted slice of the CT sample, `(I, J, K)`."""
    return np.asarray(nibabel.load(samples / "ct" / "painted.nii.gz").dataobj)


@pytest.fixture
def organs(painted: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Right kidney (2) and liver (4) of the painted slice."""
    return np.where(np.isin(painted, [2, 4]), painted, 0).astype(np.uint8)


@pytest.fixture(scope="session")
def nifti(samples: Path) -> Callable[[NDArray[np.generic]], bytes]:
    """Makes the bytes of a `.nii.gz` on the CT sample's grid."""
    affine = nibabel.load(samples / "ct" / "image.nii.gz").affine

    def encode(labels: NDArray[np.generic]) -> bytes:
        return gzip.compress(nibabel.Nifti1Image(labels, affine).to_bytes(), compresslevel=1)

    return encode


@pytest.fixture
def painter_of() -> type[Painter]:
    """Makes clients of a test's own server."""
    return Painter
