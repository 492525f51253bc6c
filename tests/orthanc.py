"""What tests with a real Orthanc share."""

from __future__ import annotations

import socket

import pytest

from imos.server import local_archive

needs_orthanc = pytest.mark.skipif(
    local_archive.program() is None,
    reason="Orthanc with DICOMweb is not installed: apt-get install orthanc orthanc-dicomweb",
)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
