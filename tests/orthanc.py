"""What tests with a real Orthanc share."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmwrite
from pydicom.dataset import Dataset

from imos.imaging import Image, ImageKind
from imos.server import local_archive
from imos.server.dicomweb.synthesis import Synthesis

needs_orthanc = pytest.mark.skipif(
    local_archive.program() is None,
    reason="Orthanc with DICOMweb is not installed: apt-get install orthanc orthanc-dicomweb",
)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc.

    Attributes:
        url: Its address without the last slash.
        process: To end it.
    """

    url: str
    process: subprocess.Popen[bytes]

    @property
    def web(self) -> str:
        """Its DICOMweb address."""
        return f"{self.url}/dicom-web"

    def store(self, *instances: Dataset) -> None:
        """Put instances in."""
        for instance in instances:
            content = BytesIO()
            dcmwrite(content, instance, write_like_original=False)
            httpx.post(f"{self.url}/instances", content=content.getvalue(), timeout=60).raise_for_status()


@contextmanager
def running_orthanc(folder: Path) -> Iterator[Orthanc]:
    """An empty Orthanc on this machine alone.

    Args:
        folder: Of its files; must be there.
    """
    program, port = local_archive.program(), free_port()
    assert program is not None
    (folder / "orthanc.json").write_text(json.dumps(local_archive.settings(folder, port)))
    url = f"http://127.0.0.1:{port}"
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        for _ in range(150):
            assert process.poll() is None, (folder / "orthanc.log").read_text()
            try:
                httpx.get(f"{url}/system", timeout=5).raise_for_status()
                break
            except httpx.TransportError:
                time.sleep(0.2)
        yield Orthanc(url, process)
    finally:
        process.terminate()
        process.wait(20)


SHAPE = (40, 32, 12)
AFFINE = np.array([[-0.8, 0, 0, 15], [0, -0.8, 0, 10], [0, 0, 2.5, -30], [0, 0, 0, 1]])


def small_series(
    name: str,
    modality: str = "CT",
    edit: Callable[[Dataset, int], None] | None = None,
    affine: NDArray[np.float64] = AFFINE,
) -> list[Dataset]:
    """The instances of a small series, in a study of its own; three channels where `modality` is one of colours.

    Args:
        name: Of the patient; the UIDs are made from it.
        modality: Of the series.
        edit: Changes each instance; is given its index.
        affine: `(4, 4)`.
    """
    colour = modality in ("OT", "XC", "ES", "GM")
    voxels = np.random.default_rng(1).integers(0, 255, (*SHAPE, 3) if colour else SHAPE)
    image = Image(voxels.astype(np.uint8 if colour else np.int16), affine, ImageKind.VOLUME, name)
    made = Synthesis.of(name, image, datetime(2020, 1, 1))
    assert made is not None
    instances = []
    for index in range(made.count):
        instance = made.instance(image, index)
        instance.Modality = modality
        instance.PatientName = instance.PatientID = f"P^{name.replace(' ', '-')}"
        instance.PatientBirthDate, instance.PatientSex = "19700101", "O"
        if edit is not None:
            edit(instance, index)
        instances.append(instance)
    return instances
