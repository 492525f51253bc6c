"""The real things: an Orthanc archive, the MONAI Label server with the iMOS app, OHIF in a headless Chromium.

Nothing here waits without an end. Most waits have a limit of their own; Playwright has none for what a page computes
and for closing one, so that Chromium is ended when a test takes too long, and whatever waits for it fails.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import faulthandler
import functools
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import nibabel
import nrrd
import numpy as np
import PIL.Image
import psutil
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page, sync_playwright
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy import ndimage

from imos.imaging import Image, ImageKind
from imos.server import local_archive
from imos.server.dicomweb import synthesis

START_SECONDS = 120.0
RUN_SECONDS = 120.0
TEST_SECONDS = 420.0
"""For one test and the fixtures made for it; several times what the longest takes on two calm cores."""

PAGE_SECONDS = 60.0
STOP_SECONDS = 20.0
STEP_PIXELS = 8
CHROMIUM_FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--use-gl=angle", "--use-angle=swiftshader"),
    *("--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"),
]


_chromiums: list[psutil.Process] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[Any]:
    """Ends Chromium when a test takes too long."""
    timer = threading.Timer(TEST_SECONDS, _give_up, [item.nodeid])
    timer.daemon = True
    timer.start()
    try:
        return (yield)
    finally:
        timer.cancel()


def _give_up(test: str) -> None:
    error = sys.__stderr__ or sys.stderr
    print(f"\n{test} took more than {TEST_SECONDS:.0f} s: Chromium is ended", file=error, flush=True)
    faulthandler.dump_traceback(file=error)
    _end(_chromiums)


def _end(processes: list[psutil.Process]) -> None:
    """Kill processes and whatever they started."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            for one in (*process.children(recursive=True), process):
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()


@dataclass(frozen=True)
class Series:
    """A CT series in the archive, and what is true of it.

    Attributes:
        study: StudyInstanceUID.
        uid: SeriesInstanceUID, the id of the image on the server.
        labels: `(I, J, K)` reference on the viewer's grid: columns, rows, slices rising along the normal.
        affine: From its index to mm, axes towards right, anterior, superior.
    """

    study: str
    uid: str
    labels: NDArray[np.uint8]
    affine: NDArray[np.float64]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres along each axis."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def image(self) -> Image:
        """An image of this grid, to read label maps on."""
        return Image(np.zeros(self.labels.shape, np.int16), self.affine, ImageKind.VOLUME, "series")


@dataclass(frozen=True)
class Archive:
    """A running Orthanc.

    Attributes:
        url: Its address without the last slash.
    """

    url: str

    def add(
        self,
        image: NDArray[np.int16],
        labels: NDArray[np.uint8],
        affine: NDArray[np.float64],
        *,
        name: str,
        description: str = "CT abdomen and pelvis",
        plane: str = "axial",
        is_reversed: bool = False,
        turned_by: float = 0.0,
    ) -> Series:
        """Store a volume as a CT series.

        Args:
            image: `(I, J, K)` Hounsfield units, axes towards right, anterior, superior.
            labels: Its label map.
            affine: Of both, in mm, without rotation.
            name: Patient's name and ID.
            description: Of the study and of the series.
            plane: Of the slices, `axial` or `sagittal`.
            is_reversed: Whether the first instance is the last slice along the normal.
            turned_by: Degrees by which the volume is turned about the patient's long axis.
        """
        made, instances = dicom_series(
            image, labels, affine, name, description, plane=plane, is_reversed=is_reversed, turned_by=turned_by
        )
        with httpx.Client(timeout=60) as client:
            for instance in instances:
                client.post(f"{self.url}/instances", content=_bytes(instance)).raise_for_status()
        return made

    def segmentations(self, series: Series) -> list[bytes]:
        """The DICOM SEG files of a series' study, oldest first."""
        query = {"Level": "Series", "Query": {"StudyInstanceUID": series.study, "Modality": "SEG"}, "Expand": True}
        found = httpx.post(f"{self.url}/tools/find", json=query, timeout=60).json()
        found.sort(key=lambda one: one["LastUpdate"])
        files = [one for entry in found for one in entry["Instances"]]
        return [httpx.get(f"{self.url}/instances/{one}/file", timeout=60).content for one in files]


def dicom_series(
    image: NDArray[np.int16],
    labels: NDArray[np.uint8],
    affine: NDArray[np.float64],
    name: str,
    description: str = "CT abdomen and pelvis",
    *,
    plane: str = "axial",
    is_reversed: bool = False,
    turned_by: float = 0.0,
) -> tuple[Series, list[Dataset]]:
    """A volume as a CT series; the arguments are those of `Archive.add`."""
    # DICOM's axes point to the left and the back.
    volume, truth = image[::-1, ::-1], labels[::-1, ::-1]
    step = np.abs(np.diag(affine)[:3])
    near = affine @ [image.shape[0] - 1, image.shape[1] - 1, 0, 1]
    corner = np.array([-near[0], -near[1], near[2]])
    axes = np.eye(3)
    if plane == "sagittal":
        # Rows run to the back, columns down, the normal to the right.
        volume, truth = (np.transpose(one, (1, 2, 0))[:, ::-1, ::-1] for one in (volume, truth))
        corner = corner + np.array([step[0] * (image.shape[0] - 1), 0, step[2] * (image.shape[2] - 1)])
        axes, step = np.array([[0.0, 1, 0], [0, 0, -1], [-1, 0, 0]]), step[[1, 2, 0]]
    angle = np.deg2rad(turned_by)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    axes, corner = axes @ turn.T, turn @ corner
    study, uid, frame = (generate_uid() for _ in range(3))
    count = volume.shape[2]
    instances = []
    for k in range(count):
        number = count - k if is_reversed else k + 1
        instance = _instance(volume[:, :, k].T, corner + k * step[2] * axes[2], axes, step, number)
        # Orthanc finds no patient whose ID has blanks.
        instance.PatientName, instance.PatientID = name, name.replace(" ", "-")
        instance.SeriesDescription = instance.StudyDescription = description
        instance.StudyInstanceUID, instance.SeriesInstanceUID = study, uid
        instance.FrameOfReferenceUID = frame
        instances.append(instance)
    placed = np.eye(4)
    placed[:3, :3], placed[:3, 3] = (axes * step[:, None]).T, corner
    return Series(study, uid, np.ascontiguousarray(truth), np.diag([-1.0, -1, 1, 1]) @ placed), instances


@pytest.fixture(scope="session")
def new_series(ct: Ct) -> Callable[..., Series]:
    """Describes a series that is there already: axial, on the CT sample's grid or a part of its slices."""

    def describe(study: str, uid: str, labels: NDArray[np.uint8], first: int = 0) -> Series:
        columns, rows = ct.labels.shape[:2]
        affine = ct.affine @ np.array([[-1, 0, 0, columns - 1], [0, -1, 0, rows - 1], [0, 0, 1, first], [0, 0, 0, 1.0]])
        return Series(study, uid, labels, affine)

    return describe


def _instance(
    pixels: NDArray[np.int16], corner: NDArray[Any], axes: NDArray[Any], step: NDArray[Any], number: int
) -> Dataset:
    instance = Dataset()
    instance.file_meta = FileMetaDataset()
    instance.SOPClassUID = instance.file_meta.MediaStorageSOPClassUID = CTImageStorage
    instance.SOPInstanceUID = instance.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    instance.Modality, instance.Manufacturer, instance.SeriesNumber, instance.InstanceNumber = "CT", "test", 1, number
    instance.StudyDate = instance.SeriesDate = instance.ContentDate = "20260101"
    instance.StudyTime = instance.SeriesTime = instance.ContentTime = "120000"
    instance.PatientBirthDate, instance.PatientSex, instance.StudyID, instance.AccessionNumber = "", "O", "1", "1"
    instance.ReferringPhysicianName = ""
    instance.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    instance.ImagePositionPatient = [f"{value:.6f}" for value in corner]
    instance.ImageOrientationPatient = [f"{value:.6f}" for value in (*axes[0], *axes[1])]
    instance.PixelSpacing = [f"{step[1]:.6f}", f"{step[0]:.6f}"]
    instance.SliceThickness = f"{step[2]:.6f}"
    instance.Rows, instance.Columns = pixels.shape
    instance.SamplesPerPixel, instance.PhotometricInterpretation = 1, "MONOCHROME2"
    instance.BitsAllocated, instance.BitsStored, instance.HighBit, instance.PixelRepresentation = 16, 16, 15, 1
    instance.RescaleIntercept, instance.RescaleSlope, instance.RescaleType = 0, 1, "HU"
    instance.WindowCenter, instance.WindowWidth = 50, 400
    instance.PixelData = np.ascontiguousarray(pixels, np.int16).tobytes()
    instance.is_little_endian, instance.is_implicit_VR = True, False
    return instance


def _bytes(instance: Dataset) -> bytes:
    buffer = DicomBytesIO()
    instance.save_as(buffer, write_like_original=False)
    return bytes(buffer.getvalue())


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _die_with_us() -> None:
    # Linux: also when we are killed and no fixture can clean up any more (PR_SET_PDEATHSIG).
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


@contextlib.contextmanager
def _running(command: list[str], folder: Path, log: Path, ready: str, **environment: str) -> Iterator[None]:
    """A program that answers at an address, ended in the end whatever happens."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | environment,
            stdout=output,
            stderr=output,
            preexec_fn=_die_with_us if sys.platform == "linux" else None,
        )
    try:
        _wait_for(ready, process, log)
        yield
    finally:
        _stop(process)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    pytest.fail(f"{url} does not answer:\n{log.read_text(errors='replace')[-4000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        _end([psutil.Process(process.pid)])
        process.wait(STOP_SECONDS)


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """An empty Orthanc with DICOMweb, for all tests."""
    program = local_archive.program()
    if program is None:
        pytest.skip("Orthanc with DICOMweb is not installed: apt-get install orthanc orthanc-dicomweb")
    folder = tmp_path_factory.mktemp("orthanc")
    port = _free_port()
    (folder / "orthanc.json").write_text(json.dumps(local_archive.settings(folder, port)))
    url = f"http://127.0.0.1:{port}"
    with _running([program, str(folder / "orthanc.json")], folder, folder / "orthanc.log", f"{url}/system"):
        yield Archive(url)


@dataclass(frozen=True)
class Ct:
    """The CT sample, its axes towards right, anterior, superior."""

    image: NDArray[np.int16]
    labels: NDArray[np.uint8]
    affine: NDArray[np.float64]
    values: dict[str, int]


@pytest.fixture(scope="session")
def ct(samples: Path) -> Ct:
    image, labels = (
        nibabel.as_closest_canonical(nibabel.load(samples / "ct" / f"{name}.nii.gz")) for name in ("image", "label")
    )
    named = json.loads((samples / "ct" / "labels.json").read_text())
    values = {name: int(value) for value, name in named.items()}
    return Ct(np.asarray(image.dataobj, np.int16), np.asarray(labels.dataobj, np.uint8), image.affine, values)


ORIENTATIONS: dict[str, dict[str, Any]] = {
    "axial feet first": {},
    "axial head first": {"is_reversed": True},
    "sagittal": {"plane": "sagittal"},
    "sagittal turned": {"plane": "sagittal", "turned_by": 10},
}


@pytest.fixture(scope="session")
def series(archive: Archive, ct: Ct) -> dict[str, Series]:
    """The CT sample as series of several orientations, in the archive before the server starts."""
    return {name: archive.add(ct.image, ct.labels, ct.affine, name=name, **how) for name, how in ORIENTATIONS.items()}


@pytest.fixture(scope="session")
def service(
    tmp_path_factory: pytest.TempPathFactory, archive: Archive, series: dict[str, Series], root: Path
) -> Iterator[str]:
    """Address of an iMOS server on the archive."""
    with _serving(f"{archive.url}/dicom-web", tmp_path_factory.mktemp("server"), root) as url:
        yield url


FOLDER_PART = np.s_[:, :, 80:104]


@dataclass(frozen=True)
class Folder:
    """A server on a folder of files, without an archive.

    Attributes:
        url: Its address.
        series: What OHIF shows of each file, by the image's id: the CT sample as NIfTI, a part of it as NRRD (`part`)
            and as DICOM (its UID).
    """

    url: str
    series: dict[str, Series]


@pytest.fixture(scope="session")
def folder(
    tmp_path_factory: pytest.TempPathFactory, samples: Path, root: Path, ct: Ct, new_series: Callable[..., Series]
) -> Iterator[Folder]:
    """An iMOS server on a folder with a NIfTI file, an NRRD file and a folder of DICOM files."""
    place = tmp_path_factory.mktemp("folder")
    studies = place / "studies"
    (studies / "dicom").mkdir(parents=True)
    shutil.copyfile(samples / "ct" / "image.nii.gz", studies / "sample_ct.nii.gz")
    image, labels = ct.image[FOLDER_PART], ct.labels[FOLDER_PART]
    affine = ct.affine.copy()
    affine[:3, 3] = (ct.affine @ [0, 0, FOLDER_PART[2].start, 1])[:3]
    header = {"space": "right-anterior-superior", "space directions": affine[:3, :3].T, "space origin": affine[:3, 3]}
    nrrd.write(str(studies / "part.nrrd"), image, header)
    dicom, instances = dicom_series(image, labels, affine, "files")
    for number, instance in enumerate(instances):
        instance.save_as(studies / "dicom" / f"{number}.dcm", write_like_original=False)
    found = {dicom.uid: dicom}
    for name, truth, first in (("sample_ct", ct.labels, 0), ("part", labels, FOLDER_PART[2].start)):
        # The server makes axial slices of it: columns to the left, rows to the back, slices to the head.
        uids = (synthesis.uid(kind, name) for kind in ("study", "series"))
        found[name] = new_series(*uids, truth[::-1, ::-1], first)
    with _serving(str(studies), place, root) as url:
        yield Folder(url, found)


@pytest.fixture
def serve(tmp_path: Path, root: Path) -> Iterator[Callable[..., str]]:
    """Starts a server of a test's own on studies; more arguments are settings of MONAI Label. Returns its address."""
    with contextlib.ExitStack() as servers:
        yield lambda studies, **settings: servers.enter_context(_serving(studies, tmp_path, root, **settings))


@contextlib.contextmanager
def _serving(studies: str, folder: Path, root: Path, **settings: str) -> Iterator[str]:
    port = _free_port()
    command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", str(root / "apps" / "imos")]
    command += ["--studies", studies, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--conf", "labels", "spleen,right kidney,left kidney,liver,stomach,aorta"]
    # MONAI Label looks on PATH for the program that writes DICOM SEG.
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MONAI_LABEL_DICOMWEB_CACHE_PATH": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    url = f"http://127.0.0.1:{port}"
    with _running(command, folder, folder / "server.log", f"{url}/info/", **environment, **settings):
        yield url


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium with WebGL in software."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not program:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    before = set(psutil.Process().children())
    try:
        with sync_playwright() as playwright:
            running = playwright.chromium.launch(executable_path=program, args=CHROMIUM_FLAGS, timeout=60_000)
            _chromiums.extend(set(psutil.Process().children()) - before)
            yield running
            closing = threading.Timer(STOP_SECONDS, _end, [_chromiums])
            closing.start()
            running.close()
            closing.cancel()
    finally:
        _end(_chromiums)
        _chromiums.clear()


@dataclass
class Viewer:
    """OHIF with the iMOS panel, driven by mouse and keyboard.

    Attributes:
        page: The browser's page.
        service: Address of the server.
        series: What is open.
        errors: What the page's scripts threw.
        asked: Servers that the page asked for anything.
    """

    page: Page
    service: str
    series: Series
    errors: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Notes what goes wrong in the page, and whom it asks."""
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.asked.update(_server_of(request.url)))

    def open(self, series: Series, mode: str = "segmentation", *, has_panel: bool = True) -> None:
        """Open a study and wait until its first image is there, and the panel if the mode opens it."""
        self.series = series
        self.page.goto(f"{self.service}/ohif/{mode}?StudyInstanceUIDs={series.study}")
        self.wait_until_ready(has_panel=has_panel)

    def another_window(self) -> Viewer:
        """The same study in another window of the same browser."""
        opened = Viewer(self.page.context.new_page(), self.service, self.series)
        opened.open(self.series)
        return opened

    def reload(self) -> None:
        """Reload the page."""
        self.page.reload()
        self.wait_until_ready()

    def wait_until_ready(self, *, has_panel: bool = True) -> None:
        """Wait until the panel can be used."""
        try:
            self.page.wait_for_function("window.imos?.workspace.ready", timeout=60_000)
        except Exception as error:
            said = self.page.evaluate("window.imos?.workspace.message.text ?? document.body.innerText.slice(0, 300)")
            pytest.fail(f"The panel did not get ready ({error}). It says: {said}")
        if has_panel:
            self.page.wait_for_selector("[data-imos=propagate]", timeout=30_000)
        self.page.wait_for_function(
            "() => (w => w.viewportIds.every(id => w.views.port(id)?.getImageData()))(window.imos.workspace)",
            timeout=60_000,
        )
        self.page.wait_for_timeout(500)

    def press(self, name: str) -> None:
        """Click a button of the panel."""
        self.page.click(f"[data-imos={name}]")

    def is_enabled(self, name: str) -> bool:
        """Whether a button of the panel can be clicked."""
        return self.page.is_enabled(f"[data-imos={name}]")

    def look(self) -> None:
        """Wait until the panel has seen what changes without telling it: the slice on view, OHIF's toolbar."""
        self.page.wait_for_timeout(500)

    @property
    def number(self) -> int:
        """The number that OHIF itself writes into the view for the slice that is shown."""
        return int(self.page.inner_text("[data-cy=viewport-overlay-bottom-right]").split("(")[1].split("/")[0])

    def pixel(self, voxel: tuple[int, int, int]) -> tuple[int, int, int]:
        """The colour on the screen where a voxel is."""
        x, y = self._points([voxel], None)[0]
        with PIL.Image.open(io.BytesIO(self.page.screenshot())) as shot:
            red, green, blue = shot.convert("RGB").getpixel((round(x), round(y)))
        return red, green, blue

    def bars(self, value: int, row: int = 44) -> dict[int, tuple[int, int, int]]:
        """The colours of a segment's bars in a row of the strip's pixels (just above their feet), by slice."""
        self.choose(value)
        self.look()
        colours = self.ask(
            """(w, value, row) => {
              const canvas = document.querySelector('[data-imos=strip]'), {axis} = w.slicesOf(value);
              const count = w.labelmap.grid.size[axis], step = canvas.width / count;
              const line = canvas.getContext('2d').getImageData(0, row, canvas.width, 1).data;
              return [...Array(count).keys()].map(index => {
                const x = Math.floor(((w.isTurned(axis) ? count - 1 - index : index) + 0.5) * step);
                return [...line.slice(4 * x, 4 * x + 3)];
              });
            }""",
            value,
            row,
        )
        return {index: (int(red), int(green), int(blue)) for index, (red, green, blue) in enumerate(colours)}

    def choose(self, value: int) -> None:
        """Select a segment in the list."""
        self.page.click(f"[data-imos=segments] li[data-value='{value}'] .imos-name")

    def lock(self, value: int) -> None:
        """Press the padlock of a segment."""
        self.page.click(f"[data-imos=segments] li[data-value='{value}'] [data-imos=lock]")

    def history(self, what: str) -> None:
        """Press Undo or Redo and wait until it is done."""
        self.press(what)
        self.page.wait_for_timeout(100)
        self.wait_for_run()

    @property
    def message(self) -> str:
        """What the panel says."""
        return self.page.inner_text("[data-imos=message]") if self.page.is_visible("[data-imos=message]") else ""

    def ask(self, script: str, *arguments: Any) -> Any:
        """Evaluate a function of the workspace, and more arguments, in the page; what it promises is waited for."""
        late = f"new Promise((_, no) => setTimeout(() => no(Error('The page takes too long')), {PAGE_SECONDS * 1000}))"
        asked = f"([...a]) => Promise.race([({script})(window.imos.workspace, ...a), {late}])"
        return self.page.evaluate(asked, list(arguments))

    def labels(self) -> NDArray[np.uint8]:
        """The label map that OHIF holds now, `(I, J, K)` on the viewer's grid."""
        size, letters = self.ask(
            """async w => {
              const blob = new Blob([w.labelmap.read()]);
              const url = await new Promise(r => {
                const f = new FileReader(); f.onload = () => r(f.result); f.readAsDataURL(blob);
              });
              return [w.labelmap.grid.size, url.split(',')[1]];
            }"""
        )
        return np.frombuffer(base64.b64decode(letters), np.uint8).reshape(size, order="F")

    def show(self, index: int, axis: int = 2) -> None:
        """Bring a slice on view."""
        self.ask("(w, axis, index) => w.jump(axis, index)", axis, index)
        self.page.wait_for_function(
            "([axis, index]) => window.imos.workspace.shown(axis) === index", arg=[axis, index], timeout=20_000
        )
        self.page.wait_for_timeout(300)

    def radius(self, mm: int) -> None:
        """Move the slider of the brush."""
        self.page.fill("[data-imos=radius]", str(mm))

    def _points(self, voxels: list[tuple[int, int, int]], viewport: str | None) -> list[list[float]]:
        """Where voxels are on the page, in a view or the active one."""
        found: list[list[float]] = self.ask(
            """(w, voxels, id) => {
              id ??= w.viewportIds.find(id => id === w.views.activeId) ?? w.viewportIds[0];
              const port = w.views.port(id), box = port.canvas.getBoundingClientRect(), g = w.labelmap.grid;
              return voxels.map(v => port.worldToCanvas([0, 1, 2].map(
                x => g.origin[x] + v[0] * g.directions[0][x] + v[1] * g.directions[1][x] + v[2] * g.directions[2][x]
              ))).map(([x, y]) => [x + box.left, y + box.top]);
            }""",
            voxels,
            viewport,
        )
        return found

    def stroke(self, voxels: list[tuple[int, int, int]], viewport: str | None = None) -> None:
        """Draw with the left button along voxels."""
        points = self._points(voxels, viewport)
        mouse = self.page.mouse
        if viewport and self.ask("w => w.views.activeId") != viewport:
            # In OHIF the first click into another view only makes it the active one.
            mouse.click(*points[0])
            self.page.wait_for_function("id => window.imos.workspace.views.activeId === id", arg=viewport)
            self.page.wait_for_timeout(500)
        mouse.move(*points[0])
        mouse.down()
        before = points[0]
        for x, y in points[1:] or points:
            # As a hand does: the brush fills a disc wherever the mouse is seen, and nothing in between.
            mouse.move(x, y, steps=1 + int(np.hypot(x - before[0], y - before[1]) / STEP_PIXELS))
            before = [x, y]
        mouse.up()
        self.page.wait_for_function("() => !window.imos.workspace.drawing")
        self.page.wait_for_timeout(150)

    def paint(
        self, mask: NDArray[np.bool_], axis: int, index: int, radius: int = 6, viewport: str | None = None
    ) -> None:
        """Fill a mask of one slice with the brush, as far as a round brush can.

        Args:
            mask: Of the plane across `axis`, its axes in rising order.
            axis: Of the viewer's grid.
            index: The slice; must be on view.
            radius: Of the brush in mm.
            viewport: The view to paint in; None for the active one.
        """
        if not self.is_pressed("brush"):
            self.press("brush")
        self.radius(radius)
        first, second = (a for a in range(3) if a != axis)
        spacing = self.series.spacing[first], self.series.spacing[second]
        distance = ndimage.distance_transform_edt(mask, sampling=spacing)
        inner = distance >= radius * 0.9
        apart = max(1, round(radius / spacing[0]))
        for row in range(0, mask.shape[0], apart):
            for start, stop in _stretches(inner[row]):
                ends = []
                for column in (start, stop):
                    place = [0, 0, 0]
                    place[axis], place[first], place[second] = index, row, column
                    ends.append((place[0], place[1], place[2]))
                self.stroke(ends, viewport)
        self.drawn()

    def paint_across(self, value: int, axis: int, radius: int = 6) -> NDArray[np.uint8]:
        """Paint an object in the MPR view across an axis, on the slice that shows most of it; the label map then."""
        self.choose(value)
        mask = self.series.labels == value
        index = int(mask.sum(axis=tuple(other for other in range(3) if other != axis)).argmax())
        view = self.ask(
            "(w, axis) => w.viewportIds.find(id => w.views.looksAlong(id, w.labelmap.grid).axis === axis)", axis
        )
        self.show(index, axis)
        self.paint(mask.take(index, axis), axis, index, radius, viewport=view)
        return self.labels()

    def set_mpr(self, *, on: bool) -> None:
        """Choose the layout MPR, or go back to the one before."""
        self.page.evaluate("() => window.commandsManager.runCommand('toggleHangingProtocol', {protocolId: 'mpr'})")
        count = 3 if on else 1
        self.page.wait_for_function("n => window.imos.workspace.viewportIds.length === n", arg=count, timeout=30_000)
        self.page.wait_for_timeout(2000)

    def drawn(self) -> NDArray[np.uint8]:
        """The label map once it stands still: the browser draws the last strokes after the mouse was let go."""
        labels = self.labels()
        for _ in range(20):
            self.page.wait_for_timeout(300)
            before, labels = labels, self.labels()
            if (before == labels).all():
                break
        return labels

    def is_pressed(self, name: str) -> bool:
        """Whether a tool of the panel is in use."""
        return self.page.get_attribute(f"[data-imos={name}]", "aria-pressed") == "true"

    def wait_for_run(self) -> None:
        """Wait until no run is going on."""
        self.page.wait_for_function(
            "() => { const w = window.imos.workspace; return !w.run && !w.busy }", timeout=RUN_SECONDS * 1000
        )

    def propagate(self) -> None:
        """Press Propagate and wait for the end."""
        self.press("propagate")
        self.page.wait_for_timeout(200)
        self.wait_for_run()


def _server_of(url: str) -> set[str]:
    parts = urlsplit(url)
    return {f"{parts.scheme}://{parts.netloc}"} if parts.scheme in ("http", "https", "ws", "wss") else set()


def _stretches(line: NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(np.int8), [0]])))
    return [(int(start), int(stop) - 1) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


@pytest.fixture(scope="module")
def anywhere(browser: Browser) -> Iterator[Callable[..., Viewer]]:
    """Opens a series of a server as somebody who was never here; the third argument is OHIF's mode."""
    contexts = []

    def open_series(service: str, series: Series, mode: str = "segmentation", *, has_panel: bool = True) -> Viewer:
        context = browser.new_context(viewport={"width": 1400, "height": 860})
        contexts.append(context)
        opened = Viewer(context.new_page(), service, series)
        opened.open(series, mode, has_panel=has_panel)
        return opened

    yield open_series
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def viewer(anywhere: Callable[..., Viewer], service: str) -> Callable[..., Viewer]:
    """Opens a series of the archive; the second argument is OHIF's mode."""
    return functools.partial(anywhere, service)
