"""A PACS to try the app with: Orthanc on this machine alone, filled with images as DICOM series (`make run`).

    python -m imos.server.local_archive ARCHIVE IMAGES COMMAND…

starts it, says what to open in the browser, and becomes the command, with `--studies` and the archive's address behind.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import NamedTuple, NoReturn

import httpx
from pydicom import dcmwrite

from imos.errors import UserError
from imos.imaging import read_image
from imos.server.dicomweb.synthesis import Synthesis, uid

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
"""Where Debian's and Ubuntu's package has it."""
PORT = 8042
"""Where people look for Orthanc first."""
SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
NAME = "iMOS"
PLACES = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
SETTINGS, LOCK, CACHE = "orthanc.json", "lock", "cache"
"""In the archive's folder; the last one is what the server keeps beside: workspaces, accepted labels."""
START_SECONDS = 30.0
STOP_SECONDS = 20.0
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux


class LocalArchive(NamedTuple):
    """A running Orthanc.

    Attributes:
        process: It ends with this process, or when it is stopped.
        url: Its DICOMweb address.
        studies: StudyInstanceUID of each image's id.
    """

    process: subprocess.Popen[bytes]
    url: str
    studies: dict[str, str]

    def stop(self) -> None:
        """End it, and wait for that."""
        _stop(self.process)


def start(folder: Path, images: Path, port: int) -> LocalArchive:
    """Start Orthanc and store every image of a folder in it; it ends with this process.

    Args:
        folder: Of the archive; made where it is missing, gone on with where it is there.
        images: Folder of volumes.
        port: On loopback.

    Raises:
        UserError: Orthanc is not installed or does not start, or there is no image that DICOM can hold.
    """
    orthanc = program()
    if orthanc is None:
        raise UserError(
            "Orthanc with DICOMweb is not installed: apt-get install orthanc orthanc-dicomweb."
            " Without it, serve the folder itself: make run PACS=no."
        )
    if not images.is_dir():
        raise UserError(f"{images} is no folder. Name a folder of volumes.")
    folder.mkdir(parents=True, exist_ok=True)
    _lock(folder)
    written = folder / SETTINGS
    written.write_text(json.dumps(settings(folder.absolute(), port), indent=2), "utf-8")
    log = folder / "orthanc.log"
    with log.open("wb") as output:
        process = subprocess.Popen([orthanc, str(written)], stdout=output, stderr=output, preexec_fn=_die_with_us)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url, process, log)
        return LocalArchive(process, f"{url}/dicom-web", fill(url, images))
    except BaseException:
        _stop(process)
        raise


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def program() -> str | None:
    """Path of Orthanc; None where it or its DICOMweb is not installed."""
    return shutil.which("Orthanc", path=PLACES) if PLUGIN.is_file() else None


def free_port(folder: Path) -> int:
    """The port that the archive of a folder had, else `PORT`, or the next one that nobody listens on.

    A packaged Orthanc may run as a service of the machine.
    """
    try:
        known = [int(json.loads((folder / SETTINGS).read_text("utf-8"))["HttpPort"])]
    except (OSError, ValueError, KeyError, TypeError):
        known = []
    ports: tuple[int, ...] = (*known, *range(PORT, PORT + 100))
    for port in ports:
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise UserError(f"the ports {PORT} to {PORT + 99} are all in use. Name one: --port.")


def _lock(folder: Path) -> None:
    """Keep the folder for this process, and for what it becomes."""
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    os.set_inheritable(lock, True)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise UserError(
            f"another server uses the archive in {folder}. Stop it first, or name another folder."
        ) from None


def settings(folder: Path, port: int) -> dict[str, object]:
    """Of an Orthanc with DICOMweb that only this machine can reach.

    Args:
        folder: Where it keeps everything; absolute.
        port: On loopback.
    """
    return {
        "Name": NAME,
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }


def _die_with_us() -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGTERM)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/system", timeout=5, trust_env=False).json()["Name"] == NAME and process.poll() is None:
                return
        except (httpx.TransportError, ValueError, KeyError):
            time.sleep(0.2)
    raise UserError(f"Orthanc does not start at {url}; what it says is in {log}. Is the port in use?")


def fill(url: str, images: Path) -> dict[str, str]:
    """Store every volume of a folder as a series; one that is there already is not stored twice.

    Args:
        url: Of Orthanc.
        images: The folder.

    Returns:
        StudyInstanceUID of each image's id.

    Raises:
        UserError: There is none.
    """
    studies: dict[str, str] = {}
    for path in sorted(images.iterdir()):
        suffix = next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), None)
        if suffix is None:
            continue
        name, image = path.name[: -len(suffix)], read_image(path)
        synthesis = Synthesis.of(name, image, datetime.fromtimestamp(path.stat().st_mtime, UTC))
        if synthesis is None:
            print(f"{path.name} cannot be a DICOM series; left out", file=sys.stderr)
            continue
        for index in range(synthesis.count):
            content = BytesIO()
            dcmwrite(content, synthesis.instance(image, index), write_like_original=False)
            stored = httpx.post(f"{url}/instances", content=content.getvalue(), timeout=60, trust_env=False)
            stored.raise_for_status()
        studies[name] = uid("study", name)
    if not studies:
        raise UserError(f"{images} holds no volume ({', '.join(SUFFIXES)}). Name a folder of volumes.")
    return studies


def announce(studies: dict[str, str], viewer: str) -> str:
    """What to open in the browser of a server at that address, and under which name requests find each image."""
    lines = []
    for name, study in studies.items():
        lines += [
            f"  {name}",
            f"    in the browser  {viewer}/ohif/segmentation?StudyInstanceUIDs={study}",
            f"    in requests     image={uid('series', name)}",
        ]
    return os.linesep.join(lines)


def main() -> NoReturn:
    """Start the archive, then become the server that uses it. Signals and exit code are the server's own."""
    parser = argparse.ArgumentParser(prog="python -m imos.server.local_archive")
    parser.add_argument("archive", type=Path, help="folder of the archive")
    parser.add_argument("images", type=Path, help="folder of volumes")
    parser.add_argument("--port", type=int, help=f"of Orthanc (default: {PORT}, or the next free one)")
    parser.add_argument("--or-files", action="store_true", help="serve the images' folder where Orthanc does not start")
    parser.add_argument("--viewer", default="http://127.0.0.1:8000", help="its address (default: %(default)s)")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what starts the server")
    args = parser.parse_args()
    studies = str(args.images)
    try:
        archive = start(args.archive, args.images, args.port or free_port(args.archive))
    except (UserError, OSError, httpx.HTTPError) as error:
        if not args.or_files:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        print(f"No archive: {error} The images are served from their folder.", file=sys.stderr)
    else:
        studies = archive.url
        # beside the archive, so that both are deleted together; and never asked of a proxy
        os.environ["MONAI_LABEL_DICOMWEB_CACHE_PATH"] = str((args.archive / CACHE).absolute())
        os.environ["NO_PROXY"] = ",".join(filter(None, (os.environ.get("NO_PROXY"), "127.0.0.1")))
        print(f"Orthanc is at {archive.url}. Once the server is ready:")
        print(announce(archive.studies, args.viewer), flush=True)
    command = [*args.command, "--studies", studies]
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
