"""Every request of OHIF's own MONAI Label panel (`MonaiLabelClient.js` in monailabel 0.8.5), as axios sends it.

The panel names an image by its series, speaks in voxel indices of the viewer's volume, and writes the bytes of an
answer into its own label map without looking at where they lie.
"""

from __future__ import annotations

import gzip
import json
import time
from datetime import UTC, datetime
from typing import Any

import httpx
import nibabel
import numpy as np
import pytest

from imos.imaging import read_image
from imos.metrics import dice
from imos.server.dicomweb.synthesis import Synthesis

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("server")]

PAINTED = 90
KIDNEY, LIVER = 2, 4
ACCEPT = {"accept": "application/json, multipart/form-data"}


class Panel:
    """The panel with one study open.

    Attributes:
        series: UID of its series.
        affine: Of the viewer's volume (columns, rows, slices), mm in RAS+, as the viewer makes it of the metadata.
        shape: Of that volume.
    """

    def __init__(self, url: str, image: str) -> None:
        self.url = url
        study, self.series = self._uids(image)
        path = f"{url}/proxy/dicom/wado/studies/{study}/series/{self.series}/metadata"
        slices = httpx.get(path, timeout=30).json()
        along = np.array(slices[0]["00200037"]["Value"]).reshape(2, 3)
        normal = np.cross(*along)
        places = sorted((np.array(one["00200032"]["Value"]) for one in slices), key=lambda place: place @ normal)
        rows, columns = slices[0]["00280010"]["Value"][0], slices[0]["00280011"]["Value"][0]
        down, across = slices[0]["00280030"]["Value"]
        self.shape = (columns, rows, len(slices))
        self.affine = np.eye(4)
        self.affine[:3, 0], self.affine[:3, 1] = along[0] * across, along[1] * down
        self.affine[:3, 2] = places[1] - places[0]
        self.affine[:3, 3] = places[0]
        self.affine = np.diag([-1.0, -1, 1, 1]) @ self.affine

    def _uids(self, image: str) -> tuple[str, str]:
        if image[0].isdigit():
            series = httpx.get(f"{self.url}/proxy/dicom/qido/series", params={"SeriesInstanceUID": image}).json()
            return series[0]["0020000D"]["Value"][0], image
        found = httpx.get(f"{self.url}/imos/v1/next", params={"client": "x"}, timeout=30).json()
        while found["image"] != image:
            params = {"client": "x", "after": found["image"]}
            found = httpx.get(f"{self.url}/imos/v1/next", params=params, timeout=30).json()
        return found["study"], found["series"]

    def infer(self, model: str, **params: Any) -> httpx.Response:
        """`MonaiLabelClient.infer`; multipart without a file, as FormData makes it."""
        params |= {"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False}
        params["restore_label_idx"] = False
        return httpx.post(
            f"{self.url}/infer/{model}",
            params={"image": self.series, "output": "image"},
            files={"params": (None, json.dumps(params))},
            headers=ACCEPT,
            timeout=120,
        )

    def bytes_of(self, answer: httpx.Response) -> np.ndarray:
        """What the panel writes into its label map, on the image's own axes (`SegmentationReader`, `updateView`)."""
        assert answer.status_code == 200, answer.text
        head, _, packed = answer.content.partition(b"\n\n")
        assert b"encoding: gzip" in head or b"encoding: raw" in head
        raw = gzip.decompress(packed) if b"encoding: gzip" in head else packed
        return np.frombuffer(raw, np.uint8).reshape(self.shape, order="F")

    def voxel(self, world: np.ndarray) -> list[int]:
        """`worldToIndex` of a click."""
        return [round(float(value)) for value in (np.linalg.inv(self.affine) @ world)[:3]]


@pytest.fixture(scope="module")
def truth(samples):
    return nibabel.load(samples / "ct" / "label.nii.gz")


@pytest.fixture
def panel(server):
    return Panel(server.url, "sample_ct")


@pytest.fixture
def near(panel, truth):
    """The panel's options for a few slices around the painted one, in its own indices."""
    middle = panel.voxel(truth.affine @ np.array([0, 0, PAINTED, 1.0]))[2]
    return {"first_slice": str(middle - 4), "last_slice": str(middle + 5)}


def click(panel, truth, value, index):
    """A click in the middle of an organ, in the viewer's indices."""
    from scipy.ndimage import distance_transform_edt

    mask = np.asarray(truth.dataobj)[:, :, index] == value
    row, column = np.unravel_index(distance_transform_edt(mask).argmax(), mask.shape)
    return panel.voxel(truth.affine @ np.array([row, column, index, 1.0]))


def seen(panel, truth, value):
    """An organ on the viewer's voxels."""
    there = np.linalg.inv(truth.affine) @ panel.affine
    indices = np.rint(np.einsum("ab,b...->a...", there, np.stack([*np.indices(panel.shape), np.ones(panel.shape)])))
    i, j, k = indices[:3].astype(int)
    return np.asarray(truth.dataobj)[i, j, k] == value


def test_the_viewers_volume_is_not_the_files(panel, truth):
    assert not np.allclose(panel.affine, truth.affine), "else these tests would prove little"


def test_info_fills_the_panel(server):
    info = httpx.get(f"{server.url}/info/").json()

    assert info["models"]["imos"]["type"] == "segmentation"
    assert info["models"]["imos_clicks"]["type"] == "deepgrow"
    assert info["models"]["imos_clicks"]["labels"] == {"spleen": 1, "right kidney": 2}
    assert info["models"]["imos_clicks"]["dimension"] == 3


def test_auto_segmentation_carries_the_stored_slice(server, samples, truth, nifti):
    panel = Panel(server.url, "twin")
    only = np.zeros(truth.shape, np.uint8)
    only[:, :, PAINTED] = np.where(np.asarray(truth.dataobj)[:, :, PAINTED] == KIDNEY, KIDNEY, 0)
    saved = httpx.put(
        f"{server.url}/datastore/label",
        params={"image": "twin"},
        files={"label": ("l.nii.gz", nifti(only))},
        timeout=60,
    )
    assert saved.status_code == 200
    found = panel.bytes_of(panel.infer("imos"))

    assert set(np.unique(found)) == {0, KIDNEY}, "the panel finds the name by the value of the server's label"
    assert dice(found == KIDNEY, seen(panel, truth, KIDNEY)) > 0.8
    httpx.delete(f"{server.url}/datastore/label", params={"id": "twin", "tag": "final"})


def test_nothing_stored_is_refused(server):
    answer = Panel(server.url, "sample_mr").infer("imos")

    assert answer.status_code == 422
    assert "nothing to start from" in answer.json()["detail"]


def test_clicks_become_a_volume_where_they_were_clicked(panel, truth, near):
    point = click(panel, truth, KIDNEY, PAINTED)
    found = panel.bytes_of(panel.infer("imos_clicks", foreground=[point], background=[], **near))
    organ = seen(panel, truth, KIDNEY)

    assert found[tuple(point)]
    assert dice(found[:, :, point[2]] > 0, organ[:, :, point[2]]) > 0.7
    used = np.flatnonzero(found.any(axis=(0, 1)))
    assert used.min() >= int(near["first_slice"])
    assert used.max() <= int(near["last_slice"])
    assert used.size > 5


def test_background_clicks_are_left_out(panel, truth, near):
    point = click(panel, truth, KIDNEY, PAINTED)
    wrong = click(panel, truth, LIVER, PAINTED)
    found = panel.bytes_of(panel.infer("imos_clicks", foreground=[point], background=[wrong], **near))

    assert found[tuple(point)]
    assert not found[tuple(wrong)]


def test_clicks_of_several_organs_have_the_servers_values(panel, truth, near):
    points = {"spleen": [click(panel, truth, 1, PAINTED)], "right kidney": [click(panel, truth, KIDNEY, PAINTED)]}
    found = panel.bytes_of(panel.infer("imos_clicks_of_all", background=[], **points, **near))

    assert set(np.unique(found)) == {0, 1, KIDNEY}
    assert found[tuple(points["spleen"][0])] == 1
    assert found[tuple(points["right kidney"][0])] == KIDNEY


def test_dicom_series_is_named_by_its_own_uid(launch, samples, tmp_path, truth):
    image = read_image(samples / "ct" / "image.nii.gz")
    made = Synthesis.of("dicom", image, datetime.now(UTC))
    studies = tmp_path / "studies"
    (studies / "series").mkdir(parents=True)
    for number in range(PAINTED - 6, PAINTED + 7):
        made.instance(image, number).save_as(studies / "series" / f"{number}.dcm", write_like_original=False)
    _process, url = launch(studies)
    panel = Panel(url, made.header(0).SeriesInstanceUID)
    assert httpx.get(f"{url}/datastore/?output=all", timeout=30).json()["objects"].keys() == {panel.series}
    point = click(panel, truth, KIDNEY, PAINTED)
    found = panel.bytes_of(panel.infer("imos_clicks", foreground=[point], background=[]))

    assert panel.shape[2] == 13
    assert dice(found[:, :, point[2]] > 0, seen(panel, truth, KIDNEY)[:, :, point[2]]) > 0.7


def test_next_sample_is_asked_with_options(server):
    answer = httpx.post(f"{server.url}/activelearning/random", json={}, headers=ACCEPT, timeout=30)

    assert answer.status_code == 200
    assert answer.json()["id"]


def test_training_can_be_asked_about(server):
    running = httpx.get(f"{server.url}/train/", params={"check_if_running": "true"}, timeout=30)

    assert running.status_code in (200, 404)


def test_training_is_started_and_stopped_as_the_panel_does(server):
    # axios sends an object as JSON without blanks; the options that were changed, under the trainer's name.
    said = httpx.post(
        f"{server.url}/train/",
        content=b'{"imos":{"steps":"20","device":"cpu"}}',
        headers={"accept": "application/json,multipart/form-data", "content-type": "application/json"},
        timeout=30,
    )
    stopped = httpx.delete(f"{server.url}/train/", headers={"accept": "application/json, text/plain, */*"}, timeout=30)

    assert said.status_code == 200, said.text
    request = said.json()["imos"]["result"]["request"]
    assert (request["model"], request["steps"], request["device"]) == ("imos", "20", "cpu")
    assert stopped.status_code == 200, stopped.text
    deadline = time.monotonic() + 60
    while httpx.get(f"{server.url}/train/", timeout=30).json()["status"] in ("SUBMITTED", "RUNNING"):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    running = httpx.get(f"{server.url}/train/", params={"check_if_running": "true"}, timeout=30)
    assert running.json().get("status") != "RUNNING"
