"""What no request may do, one test each, over HTTP."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import io
import json
import tarfile
import zlib
from dataclasses import replace
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from imos.server.grids import Grid
from imos.server.label_files import encode_nrrd

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("server")]

OUTSIDE = ["../secret", "..", "/etc/passwd", "a/../../b", ".hidden", "a\\b", "a\nb", ""]


def upload(server, painted, *, image="twin", tag="final", name="label.nii.gz", content=None, encode=None):
    content = encode(painted) if content is None else content
    return httpx.put(
        f"{server.url}/datastore/label",
        params={"image": image, "tag": tag},
        files={"label": (name, content)},
        timeout=60,
    )


@pytest.fixture
def tree(server):
    """Everything beside the studies and outside of what requests may change."""

    def look():
        return {path for path in server.studies.parent.rglob("*") if server.studies not in path.parents}

    before = look()
    yield
    assert look() == before


@pytest.mark.parametrize("tag", ["../../outside", "..", "a/b", ".hidden"])
@pytest.mark.usefixtures("tree")
def test_tag_stays_inside_the_studies(server, painted, nifti, tag):
    refused(upload(server, painted, tag=tag, encode=nifti), 422)
    assert not list((server.studies / "labels").glob("*outside*"))


@pytest.mark.parametrize("image", OUTSIDE)
@pytest.mark.usefixtures("tree")
def test_label_goes_to_a_known_image_only(server, painted, nifti, image):
    refused(upload(server, painted, image=image, encode=nifti), 404)


@pytest.mark.parametrize("image", OUTSIDE[:-1])
@pytest.mark.usefixtures("tree")
def test_uploaded_image_stays_inside_the_studies(server, painted, nifti, image):
    answer = httpx.put(
        f"{server.url}/datastore/image", params={"image": image}, files={"file": ("x.nii.gz", nifti(painted))}
    )
    refused(answer, 422)


@pytest.mark.parametrize("image", OUTSIDE)
def test_images_and_labels_are_read_by_known_id_only(server, image):
    datastore = f"{server.url}/datastore"
    refused(httpx.get(f"{datastore}/image", params={"image": image}), 404)
    refused(httpx.get(f"{datastore}/label", params={"label": image, "tag": "final"}), 404)
    refused(httpx.get(f"{datastore}/label/info", params={"label": "twin", "tag": f"x/{image}"}), 422)
    refused(httpx.delete(f"{datastore}/image", params={"id": image}), 404)


def test_client_and_image_names_are_checked(server, painter):
    for client in ("a/b", "../x", "", "a" * 65, "a b"):
        refused(httpx.get(f"{server.url}/imos/v1/images/sample_ct/state", params={"client": client}), 422)
    for image in ("..%2Fsample_ct", "%2Fetc%2Fpasswd", ".imos", "%00"):
        refused(replace(painter, image=image).get("state"), 404, 422)
    refused(httpx.get(f"{server.url}/imos/v1/runs/a.b/events"), 422)
    refused(httpx.get(f"{server.url}/imos/v1/next", params={"client": "a", "after": "../x"}), 422)


def test_params_of_a_run_choose_no_file_and_no_device(painter, painted):
    kidney = np.where(painted == 2, painted, 0)
    said = {"label": "/etc/passwd", "image": "/etc/passwd", "device": "cuda", "model": "x", "image_path": "/etc/passwd"}
    told = painter.run(kidney, [96], first=95, last=97, **said)

    assert np.array_equal(told.shown[:, :, 96], kidney[:, :, 96])


NO_NAMES = ["../imos", "..%2Fimos", "%2e%2e", ".imos", "a%5Cb", "im%00os", "imos%0A", "%2Fetc", "x" * 65, "liver"]


@pytest.mark.parametrize("name", NO_NAMES)
@pytest.mark.parametrize(
    "place",
    [
        *("POST /infer/", "POST /batch/infer/", "POST /train/", "POST /scoring/", "POST /activelearning/"),
        *("GET /model/", "GET /model/info/"),
    ],
)
def test_names_of_models_are_checked(server, place, name):
    """MONAI Label starts a process for most of them."""
    method, path = place.split()
    refused(raw(server, method, path + name), 404)


def test_no_process_is_started_for_a_name_that_nobody_has(server):
    for task, place in (("train", "train/"), ("batch/infer", "batch/infer"), ("scoring", "scoring/")):
        tasks = [httpx.get(f"{server.url}/{place}", params={"all": True}, timeout=30).text]
        httpx.post(f"{server.url}/{task}/liver", timeout=30)
        tasks.append(httpx.get(f"{server.url}/{place}", params={"all": True}, timeout=30).text)
        assert "liver" not in tasks[1]
        assert tasks[0].count('"id"') == tasks[1].count('"id"')


def test_params_of_an_inference_choose_no_device(server, painted, nifti):
    """Where the server computes is not for the request to say; here there is no such device."""
    kidney = np.where(painted == 2, painted, 0).astype(np.uint8)
    said = {"device": "cuda", "first_slice": 95, "last_slice": 97}
    found, answer = server.segment("sample_ct", ("mask.nii.gz", nifti(kidney)), params=json.dumps(said))

    assert np.array_equal(found[:, :, 96], kidney[:, :, 96])
    assert "cuda" not in json.dumps(answer)


def test_session_ids_are_no_paths(server, tmp_path):
    (tmp_path / "meta.info").write_text(json.dumps({"image": "/nowhere"}))
    path = f"../../../../../..{tmp_path}"
    refused(httpx.post(f"{server.url}/infer/imos", params={"session_id": path}, data={"params": "{}"}), 404)
    refused(httpx.get(f"{server.url}/session/{path.replace('/', '%2F')}"), 404)

    assert (tmp_path / "meta.info").exists(), "MONAI Label would have deleted the folder"


@pytest.mark.usefixtures("tree")
def test_archives_are_not_unpacked(server):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("../../outside.txt")
        archive.addfile(member)
    files = {"files": ("x.tar", packed.getvalue())}

    refused(httpx.put(f"{server.url}/session/", params={"uncompress": "true"}, files=files), 422)


def test_weights_are_not_taken(server):
    refused(httpx.put(f"{server.url}/model/imos", files={"file": ("x.pt", b"x")}), 403)
    refused(httpx.delete(f"{server.url}/model/imos"), 403)


def test_log_and_reload_are_closed(server):
    refused(httpx.get(f"{server.url}/logs/"), 403)
    refused(httpx.get(f"{server.url}/logs/gpu"), 403)
    refused(httpx.post(f"{server.url}/reload"), 404)


def test_whole_slide_inference_opens_no_path(server):
    body = {"params": {"image": "/etc/passwd"}}
    refused(httpx.post(f"{server.url}/infer/wsi/imos", params={"image": "/etc/passwd"}, json=body), 404)


@pytest.mark.parametrize("path", ["/proxy/dicom/wado/../../system", "/imos/viewer/../server/conf.py", "/ohif/../x.js"])
def test_paths_do_not_climb(server, path):
    refused(raw(server, "GET", path), 404)
    refused(raw(server, "GET", path.replace("..", "%2e%2e")), 404)


def test_plugin_serves_nothing_but_its_files(server):
    for name in ("__init__.py", "", "no.js", "%2Fetc%2Fpasswd", "../cli.py"):
        refused(httpx.get(f"{server.url}/imos/viewer/{name}"), 404, 422)


def test_other_pages_can_neither_read_nor_change(server, painter, painted):
    elsewhere = {"Origin": "https://elsewhere.example"}
    answer = httpx.get(f"{server.url}/info/", headers=elsewhere)
    assert "access-control-allow-origin" not in answer.headers
    url = f"{painter.url}/imos/v1/images/sample_ct/reset"
    refused(httpx.post(url, params={"client": "x"}, headers=elsewhere), 403)
    refused(httpx.post(url, params={"client": "x"}, headers={"Origin": "null"}), 403)
    refused(httpx.post(url, params={"client": "x"}, headers={"Sec-Fetch-Site": "cross-site"}), 403)

    own = {"Origin": server.url}
    assert httpx.post(url, params={"client": "x"}, headers=own).status_code == 200


def test_too_large_request_is_refused_before_it_is_read(server):
    place = urlsplit(server.url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=20)
    connection.putrequest("POST", "/imos/v1/images/sample_ct/runs?client=x")
    connection.putheader("Content-Length", str(65 * 2**20))
    connection.endheaders()

    assert connection.getresponse().status == 413


def test_too_large_request_without_a_length_is_refused_as_soon_as_it_is(server):
    """One byte more than allowed, and no end: who waited for the rest would never answer."""
    place = urlsplit(server.url)
    for path in ("/infer/imos?image=sample_ct", "/datastore/label?image=twin", "/session/"):
        with contextlib.closing(http.client.HTTPConnection(place.hostname, place.port, timeout=30)) as connection:
            connection.putrequest("POST" if "infer" in path else "PUT", path)
            connection.putheader("Content-Type", "multipart/form-data; boundary=x")
            connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders()
            part = b'--x\r\nContent-Disposition: form-data; name="label"; filename="x.nrrd"\r\n\r\n'
            for piece in (part, bytes(2**20 - len(part)), *[bytes(2**20)] * 63, b"0"):
                connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            answer = connection.getresponse()
            refused(Raw(answer.status, answer.read().decode()), 413, words="64 MB")
    assert httpx.get(f"{server.url}/info/", timeout=30).status_code == 200, "and the server goes on"


def test_small_upload_that_unpacks_to_much_is_refused(painter, painted):
    whole = encode_nrrd(np.zeros((4, 4, 4), np.uint8), Grid((4, 4, 4), np.eye(4)))
    header, _, _ = whole.partition(b"\n\n")
    bomb = header + b"\n\n" + gzip.compress(bytes(50_000_000), 9)
    refused(send(painter, bomb), 422)
    huge = header.replace(b"sizes: 4 4 4", b"sizes: 99999 99999 99999") + b"\n\n" + gzip.compress(b"")
    refused(send(painter, huge), 422)


def test_header_that_names_a_file_of_the_server_is_refused(server, painter, painted, nifti):
    header = (
        b"NRRD0004\ntype: uint8\ndimension: 3\nspace: left-posterior-superior\nsizes: 2 2 2\n"
        b"space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\nencoding: raw\ndata file: /etc/passwd\n\n"
    )
    meta = b"ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = /etc/passwd\n"
    refused(send(painter, header), 422, words="another file")
    refused(server.post("sample_ct", ("mask.nrrd", header)), 422, words="another file")
    refused(server.post("sample_ct", ("mask.mha", meta)), 422, words="another file")
    refused(upload(server, painted, name="label.nrrd", content=header), 422, words="another file")


@pytest.mark.parametrize("content", [b"", b"NRRD0004\n\n", b"\x1f\x8b", zlib.compress(b"x"), b"NRRD" + bytes(100)])
def test_what_is_no_label_map_is_refused(painter, content):
    refused(send(painter, content), 422)


def send(painter, content: bytes) -> httpx.Response:
    """Start a run with any bytes as label map."""
    return httpx.post(
        f"{painter.url}/imos/v1/images/sample_ct/runs",
        params={"client": painter.client},
        files={"label": ("x.nrrd", content)},
        timeout=30,
    )


class Raw:
    """An answer to a path that no client library would send."""

    def __init__(self, status: int, text: str) -> None:
        self.status_code = status
        self.text = text

    def json(self):
        return json.loads(self.text)


def raw(server, method: str, path: str) -> Raw:
    place = urlsplit(server.url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=20)
    connection.putrequest(method, path, skip_accept_encoding=True)
    connection.endheaders()
    answer = connection.getresponse()
    return Raw(answer.status, answer.read().decode())


def refused(answer, *statuses: int, words: str = "") -> None:
    """Check that a request was refused with a sentence that tells no path."""
    assert answer.status_code in statuses, (answer.status_code, answer.text)
    if answer.text:
        assert words in answer.text
        assert "/tmp/" not in answer.text
        assert "Traceback" not in answer.text
