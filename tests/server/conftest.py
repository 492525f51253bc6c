"""The real server: MONAI Label with the iMOS app, as a process of its own, on a free port."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path
from typing import Any

import httpx
import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

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


def start(studies: Path, log: Path, root: Path, *conf: str) -> tuple[subprocess.Popen[bytes], str]:
    """Start a server and wait until it answers."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", str(root / "apps" / "imos")]
    command += ["--studies", str(studies), "--host", "127.0.0.1", "--port", str(port), *conf]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=studies.parent, env=environment, stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/info/", timeout=5).status_code == 200:
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
    for twin in ("stored", "broken"):
        shutil.copyfile(samples / "ct" / "image.nii.gz", studies / f"{twin}.nii.gz")
    process, url = start(studies, folder / "server.log", root, "--conf", "labels", "spleen,right kidney")
    yield Server(url, studies)
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def painted(samples: Path) -> NDArray[np.uint8]:
    """The painted slice of the CT sample, `(I, J, K)`."""
    return np.asarray(nibabel.load(samples / "ct" / "painted.nii.gz").dataobj)


@pytest.fixture(scope="session")
def nifti(samples: Path) -> Callable[[NDArray[np.generic]], bytes]:
    """Makes the bytes of a `.nii.gz` on the CT sample's grid."""
    affine = nibabel.load(samples / "ct" / "image.nii.gz").affine

    def encode(labels: NDArray[np.generic]) -> bytes:
        return gzip.compress(nibabel.Nifti1Image(labels, affine).to_bytes(), compresslevel=1)

    return encode
