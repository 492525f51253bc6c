"""Uploaded files over HTTP: what is taken in every format, and what is refused before any library opens it."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, generate_uid

from imos.imaging import read_image, write_label_map
from tests.server.conftest import Server, start, stop

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("server")]

PAINTED = 8
EXTENSIONS = ["*.nii.gz", "*.nii", "*.nrrd", "*.mha"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, root: Path, scan) -> Iterator[Server]:
    """A server with one small scan, which takes little and also keeps MetaImage files."""
    folder = tmp_path_factory.mktemp("uploads")
    studies = folder / "studies"
    studies.mkdir()
    shutil.copyfile(scan.image, studies / "scan.nii.gz")
    settings = {
        "MONAI_LABEL_DATASTORE_FILE_EXT": json.dumps(EXTENSIONS),
        "MONAI_LABEL_SESSION_PATH": str(folder / "sessions"),
    }
    conf = ("--conf", "upload_mb", "16", "--conf", "unpacked_mb", "96", "--conf", "auto_train", "0")
    process, url = start(studies, folder / "server.log", root, *conf, **settings)
    yield Server(url, studies)
    stop(process)


@pytest.fixture
def mask(scan, tmp_path):
    """Makes the painted slice as a file of some format, as this product writes it."""

    def write(suffix: str) -> bytes:
        write_label_map(tmp_path / f"mask{suffix}", scan.painted(PAINTED), read_image(scan.image))
        return (tmp_path / f"mask{suffix}").read_bytes()

    return write


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_a_mask_is_taken_in_every_format(small, scan, mask, suffix):
    found, _ = small.segment("scan", (f"mask{suffix}", mask(suffix)))

    assert np.array_equal(found[:, :, PAINTED], scan.labels[:, :, PAINTED])


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_a_label_is_stored_and_used_in_every_format(small, scan, mask, suffix):
    answer = put(small, "label", f"label{suffix}", mask(suffix), image="scan", tag="final")

    assert answer.status_code == 200, answer.text
    found, _ = small.segment("scan", None)
    assert np.array_equal(found[:, :, PAINTED], scan.labels[:, :, PAINTED])


def test_an_image_that_itk_wrote_is_taken_in_a_session(small, scan, mask, tmp_path):
    import SimpleITK

    image = SimpleITK.ReadImage(str(scan.image))
    SimpleITK.WriteImage(image, str(tmp_path / "scan.mha"), useCompression=True)
    answer = opened(small, ("scan.mha", (tmp_path / "scan.mha").read_bytes()))
    assert answer.status_code == 200, answer.text
    asked = {"session_id": answer.json()["session_id"], "params": json.dumps({"result_extension": ".nii.gz"})}
    found, _ = small.segment("", ("mask.mha", mask(".mha")), **asked)

    assert np.array_equal(found[:, :, PAINTED], scan.labels[:, :, PAINTED])


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("x.mha", ()),
        ("x.mhd", ()),
        ("x.MHA", ()),
        ("x.mha", ("Comment = " + "x" * 3000, "Comment = " + "y" * 3000)),
        ("x.mha", ("elementdatafile = LOCAL",)),
    ],
)
def test_an_image_of_a_session_names_no_file_of_the_server(small, secret, name, more):
    refused(opened(small, (name, meta(secret, *more))), words="another file")


def test_no_two_readers_of_a_meta_image_disagree_where_its_voxels_are(small, secret):
    """For ITK, the line that says LOCAL is the value of the one before."""
    header = meta(secret, "Comment =\nElementDataFile = LOCAL")
    refused(opened(small, ("x.mha", header)), words="a line without a value")
    refused(small.post("scan", ("x.mha", header)), words="a line without a value")


@pytest.mark.parametrize("field", [b"data file", b"datafile", b"dat\xffa file", b"\x1cdata file"])
def test_no_spelling_of_an_nrrd_header_names_a_file_of_the_server(small, secret, field):
    header = (
        b"NRRD0004\ntype: uint8\ndimension: 3\nspace: left-posterior-superior\nsizes: 16 16 16\n"
        b"space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\nencoding: raw\n"
    )
    content = header + field + b": " + secret.encode() + b"\n\n"
    refused(opened(small, ("x.nrrd", content)), words="another file")
    refused(opened(small, ("x.nhdr", content)), words="another file")
    refused(small.post("scan", ("x.nrrd", content)), words="another file")
    refused(used(small, ("x.nrrd", content)), words="another file")
    refused(put(small, "label", "x.nrrd", content, image="scan", tag="final"), words="another file")


def test_every_file_of_a_session_is_looked_at(small, secret, mask):
    files = [("a.nii.gz", mask(".nii.gz")), ("b.mha", meta(secret))]
    refused(opened(small, *files), words="another file")


def test_nothing_is_kept_of_what_was_refused(small, secret):
    def look() -> set[Path]:
        return {path for path in small.temporary.rglob("*") if path.is_dir() or "unwanted" in path.name}

    before = look()
    files = [("unwanted.mha", meta(secret)), ("unwanted.nrrd", b"x")]
    for sent in (files[:1], files):
        refused(opened(small, *sent), words="another file")
    refused(httpx.put(f"{small.url}/session/?uncompress=true", files={"files": ("unwanted.tar", b"x")}, timeout=30))
    assert look() == before


ZEROS = 100 * 2**20
"""More than the server was told to take, and than a mask of so small a scan may have."""


def packed_nifti(size: int) -> bytes:
    header = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)).to_bytes()
    return gzip.compress(header + bytes(size), 9)


def packed_nrrd(size: int) -> bytes:
    header = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4 4 4\nencoding: gzip\n\n"
    return header.encode() + gzip.compress(bytes(size), 9)


def packed_meta(size: int) -> bytes:
    return meta("LOCAL", "CompressedData = True", sides=f"1024 1024 {size // 2**20}") + zlib.compress(bytes(size), 9)


def promising_nifti(size: int) -> bytes:
    """A header alone: who reads it makes room for what it promises."""
    header = nibabel.Nifti1Header()
    header.set_data_shape((1024, 1024, size // 2**20))
    header.set_data_dtype(np.uint8)
    return gzip.compress(header.binaryblock + bytes(4))


BOMBS = [
    *(("x.nii.gz", packed_nifti), ("x.nii.gz", promising_nifti)),
    *(("x.nrrd", packed_nrrd), ("x.mha", packed_meta)),
]


@pytest.mark.parametrize(("name", "pack"), BOMBS)
def test_what_unpacks_to_too_much_is_refused_wherever_it_is_sent(small, name, pack):
    bomb = pack(ZEROS)
    assert len(bomb) < 2**20
    words = "when it is unpacked"
    refused(small.post("scan", (name, bomb)), words=words)
    refused(used(small, (name, bomb)), words=words)
    refused(opened(small, (name, bomb)), words=words)
    refused(put(small, "label", name, bomb, image="scan", tag="final"), words=words)
    refused(put(small, "image", name, bomb, image="new"), words=words)
    assert not list(small.studies.glob("new*"))


@pytest.mark.parametrize(("name", "pack"), BOMBS)
def test_a_mask_may_unpack_to_what_its_image_needs_and_no_more(small, name, pack):
    """Less than an image may have, but 2000 times the scan on which it is said to be painted."""
    bomb = pack(80 * 2**20)
    refused(small.post("scan", (name, bomb)), words="larger than 64 MB when it is unpacked")


def test_frames_of_a_session_are_counted_together(small):
    frame = io.BytesIO()
    Image.new("RGB", (3000, 3000)).save(frame, "PNG")
    files = [(f"{number}.png", frame.getvalue()) for number in range(3)]
    refused(opened(small, *files), words="when it is unpacked")
    assert opened(small, *files[:2]).status_code == 200


def test_two_files_of_one_name_are_no_series(small, mask):
    refused(opened(small, ("a.nii.gz", mask(".nii.gz")), ("A\\a.nii.gz", mask(".nii.gz"))), words="one name")


def test_a_deflated_or_huge_or_headless_dicom_file_is_refused(small):
    refused(opened(small, ("x.dcm", dicom(DeflatedExplicitVRLittleEndian))), words="deflated")
    refused(opened(small, ("x", dicom(ExplicitVRLittleEndian, frames=200))), words="when it is unpacked")
    refused(opened(small, ("x.dcm", b"\x08\x00" * 100)), words="no DICOM file")
    assert opened(small, ("x", dicom(ExplicitVRLittleEndian))).status_code == 200


@pytest.fixture
def secret(tmp_path: Path) -> str:
    """A file of the server that would do as voxels."""
    path = tmp_path / "secret.raw"
    path.write_bytes(bytes(range(256)) * 16)
    return str(path)


def meta(file: str, *more: str, sides: str = "16 16 16") -> bytes:
    """A MetaImage header whose voxels are where `file` says."""
    lines = ["ObjectType = Image", "NDims = 3", f"DimSize = {sides}", "ElementType = MET_UCHAR", *more]
    return "\n".join([*lines, f"ElementDataFile = {file}", ""]).encode()


def dicom(syntax: UID, frames: int = 1) -> bytes:
    """A CT slice that says how much it holds and holds less."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.Rows = dataset.Columns = 1024
    dataset.NumberOfFrames, dataset.SamplesPerPixel, dataset.BitsAllocated = frames, 1, 8
    dataset.is_little_endian, dataset.is_implicit_VR = True, False
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, write_like_original=False)
    return file.getvalue()


def put(server: Server, what: str, name: str, content: bytes, **query: str) -> httpx.Response:
    """`PUT /datastore/{what}`."""
    part = "label" if what == "label" else "file"
    return httpx.put(f"{server.url}/datastore/{what}", params=query, files={part: (name, content)}, timeout=60)


def used(server: Server, file: tuple[str, bytes]) -> httpx.Response:
    """`POST /infer/imos` on an image that comes along."""
    return httpx.post(f"{server.url}/infer/imos", files={"file": file}, timeout=60)


def opened(server: Server, *files: tuple[str, bytes]) -> httpx.Response:
    """`PUT /session/`."""
    return httpx.put(f"{server.url}/session/", files=[("files", file) for file in files], timeout=60)


def refused(answer: httpx.Response, words: str = "") -> None:
    """One sentence, as 422, that tells no path."""
    assert answer.status_code == 422, (answer.status_code, answer.text)
    detail = answer.json()["detail"]
    assert isinstance(detail, str)
    assert words in detail
    assert "/tmp/" not in detail
