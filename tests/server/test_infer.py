"""`POST /infer/imos` over HTTP: what goes in, what comes out, and what is refused with which sentence."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import nibabel
import nrrd
import numpy as np
import pytest
from numpy.typing import NDArray

from imos.metrics import dice

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("server")]

Encode = Callable[[NDArray[np.generic]], bytes]
PAINTED = 96  # the CT sample's painted slice
NEAR = {"first_slice": PAINTED - 3, "last_slice": PAINTED + 3}  # enough where the extent is not what is tested


@pytest.fixture(scope="session")
def answer(server, painted, nifti):
    """Label map and JSON for all six organs of the CT sample, asked once."""
    said = json.dumps({"first_slice": PAINTED - 8, "last_slice": PAINTED + 8})
    return server.segment("sample_ct", ("painted.nii.gz", nifti(painted)), params=said)


def test_info_shows_the_model(server):
    info = httpx.get(f"{server.url}/info/").json()

    assert info["models"]["imos"]["type"] == "segmentation"
    assert info["labels"] == ["spleen", "right kidney"]


def test_painted_slice_becomes_a_volume_on_the_images_grid(answer, painted):
    volume, _params = answer

    assert volume.shape == painted.shape
    assert volume.dtype == np.uint8
    assert np.any(volume == 4, axis=(0, 1)).sum() > 10


def test_painted_voxels_come_back_unchanged(answer, painted):
    volume, _params = answer

    assert np.array_equal(volume[:, :, PAINTED], painted[:, :, PAINTED])


def test_volume_follows_the_organs(answer, samples):
    volume, _params = answer
    near = slice(PAINTED - 8, PAINTED + 9)
    reference = np.asarray(nibabel.load(samples / "ct" / "label.nii.gz").dataobj)[:, :, near]

    assert np.mean([dice(volume[:, :, near] == label, reference == label) for label in range(1, 7)]) > 0.6


def test_answer_names_the_values_in_order(answer):
    _volume, params = answer

    assert list(params["label_names"].values()) == [1, 2, 3, 4, 5, 6]
    assert list(params["label_names"])[:3] == ["spleen", "right kidney", "object 3"]


def test_answer_says_how_sure_it_is_of_each_slice(answer):
    _volume, params = answer

    assert set(params["confidence"]) == {"1", "2", "3", "4", "5", "6"}
    assert all(0 <= value <= 1 for slices in params["confidence"].values() for value in slices.values())


def test_geometry_of_the_answer_is_the_images(server, painted, nifti, samples):
    mask = ("painted.nii.gz", nifti(only(painted, 2)))
    answer = server.post("sample_ct", mask, output="image", params=json.dumps(NEAR))

    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(answer.content))
    assert np.allclose(image.affine, nibabel.load(samples / "ct" / "image.nii.gz").affine)


def test_raw_and_nrrd_masks_give_what_nifti_gives(server, painted, nifti, tmp_path):
    mask = only(painted, 2)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ nibabel.Nifti1Image.from_bytes(gzip.decompress(nifti(mask))).affine
    header = {"space": "left-posterior-superior", "space directions": affine[:3, :3].T, "space origin": affine[:3, 3]}
    nrrd.write(str(tmp_path / "mask.nrrd"), mask, header)

    said = json.dumps(NEAR)
    expected, _params = server.segment("sample_ct", ("mask.nii.gz", nifti(mask)), params=said)
    from_nrrd, _params = server.segment("sample_ct", ("mask.nrrd", (tmp_path / "mask.nrrd").read_bytes()), params=said)
    from_raw, _params = server.segment("sample_ct", ("mask.bin", mask.tobytes(order="F")), params=said)

    assert np.array_equal(from_nrrd, expected)
    assert np.array_equal(from_raw, expected)


def test_nrrd_answer_holds_the_same_voxels(server, painted, nifti, tmp_path):
    mask = ("mask.nii.gz", nifti(only(painted, 2)))
    said = NEAR | {"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False}
    answer = server.post("sample_ct", mask, output="image", params=json.dumps(said))
    (tmp_path / "answer.nrrd").write_bytes(answer.content)
    expected, _params = server.segment("sample_ct", mask, params=json.dumps(NEAR))

    voxels, header = nrrd.read(str(tmp_path / "answer.nrrd"))

    assert np.array_equal(voxels, expected)
    assert header["type"] in ("uint8", "unsigned char", "uchar")


def test_slice_limits_and_direction_are_kept(server, painted, nifti):
    said = json.dumps({"direction": "forward", "last_slice": str(PAINTED + 3), "plane": ["auto", "axial"]})

    volume, _params = server.segment("sample_ct", ("mask.nii.gz", nifti(only(painted, 4))), params=said)

    filled = np.nonzero(np.any(volume, axis=(0, 1)))[0]
    assert filled.min() == PAINTED
    assert filled.max() <= PAINTED + 3


def test_stored_label_is_used_when_no_mask_comes(server, painted, nifti):
    mask = nifti(only(painted, 2))
    said = {"label_info": [{"name": "kidney of the right", "idx": 2}]}
    saved = httpx.put(
        f"{server.url}/datastore/label",
        params={"image": "stored"},
        data={"params": json.dumps(said)},
        files={"label": ("stored.nii.gz", mask)},
        timeout=60,
    )
    assert saved.status_code == 200

    volume, params = server.segment("stored", None, params=json.dumps(NEAR))

    expected, _params = server.segment("sample_ct", ("mask.nii.gz", mask), params=json.dumps(NEAR))
    assert np.array_equal(volume, expected)
    assert params["label_names"] == {"kidney of the right": 2}


def test_names_of_the_request_win(server, painted, nifti):
    said = json.dumps(NEAR | {"label_info": [{"name": "ren dexter", "id": 2}]})

    _volume, params = server.segment("sample_ct", ("mask.nii.gz", nifti(only(painted, 2))), params=said)

    assert params["label_names"] == {"ren dexter": 2}


def test_other_requests_are_answered_during_a_run(server, painted, nifti):
    def wait() -> float:
        started = time.perf_counter()
        httpx.get(f"{server.url}/info/", timeout=30)
        return time.perf_counter() - started

    mask = ("painted.nii.gz", nifti(only(painted, 4)))
    with ThreadPoolExecutor() as pool:
        run = pool.submit(server.post, "sample_ct", mask, params=json.dumps(NEAR))
        waits = []
        while not run.done():
            waits.append(wait())
            time.sleep(0.1)
    assert run.result().status_code == 200
    assert np.median(waits) < 0.2


# What is refused


def test_nothing_painted_and_nothing_stored_is_refused(server):
    refused(server.post("sample_mr"), 422, "nothing to start from")


def test_mask_without_a_painted_voxel_is_refused(server, painted, nifti):
    nothing = np.zeros_like(painted)

    refused(server.post("sample_ct", ("mask.nii.gz", nifti(nothing))), 422, "no painted voxel")
    refused(server.post("sample_ct", ("mask.bin", nothing.tobytes())), 422, "no painted voxel")


def test_mask_of_another_place_is_refused(server, samples):
    elsewhere = (samples / "mr" / "painted.nii.gz").read_bytes()

    refused(server.post("sample_ct", ("mask.nii.gz", elsewhere)), 422, "outside")


@pytest.mark.parametrize("name", ["mask.nii.gz", "mask.nrrd", "mask.bin"])
def test_damaged_mask_is_refused(server, name):
    refused(server.post("sample_ct", (name, b"this is no mask")), 422, "mask" if name.endswith("bin") else "label")


def test_truncated_mask_is_refused(server, painted, nifti):
    refused(server.post("sample_ct", ("mask.nii.gz", nifti(painted)[:700])), 422, "label")


def test_mask_of_an_unknown_format_is_refused(server):
    refused(server.post("sample_ct", ("../../mask.exe", b"MZ")), 422, "mask.exe")


def test_unknown_image_is_not_found(server):
    refused(server.post("nobody"), 404, "nobody")


@pytest.mark.parametrize("image", ["../studies/sample_ct", "/etc/passwd", "..", "", "sample_ct.nii.gz"])
def test_image_is_never_a_path(server, image):
    refused(server.post(image), 404, "no image")


def test_unknown_model_is_not_found(server):
    refused(server.post("sample_ct", model="liver"), 404, "liver")


def test_unknown_session_is_not_found(server):
    refused(server.post("", session_id="../../etc"), 404, "session")


@pytest.mark.parametrize("params", ["{", "[]", "7", '{"plane": "tilted"}', '{"first_slice": "two"}'])
def test_params_that_cannot_be_meant_are_refused(server, painted, nifti, params):
    answer = server.post("sample_ct", ("mask.nii.gz", nifti(painted)), params=params)

    refused(answer, 422, "`")


def test_params_name_no_file_of_the_server(server, samples):
    painted = str(samples / "ct" / "painted.nii.gz")
    said = json.dumps({"label": painted, "image": painted, "image_path": painted, "device": "cuda", "model": "x"})

    refused(server.post("sample_mr", params=said), 422, "nothing to start from")


def test_label_tag_stays_inside_the_studies(server, painted, nifti):
    said = json.dumps({"save_label": True, "label_tag": "../../outside"})

    refused(server.post("sample_ct", ("mask.nii.gz", nifti(painted)), params=said), 422, "label_tag")


def test_damaged_stored_label_is_refused(server):
    """Nobody can store one over HTTP; one can come into the folder."""
    folder = server.studies / "labels" / "final"
    (folder / "broken.nrrd").write_bytes(b"notnrrd")
    wait_for(lambda: "final" in httpx.get(f"{server.url}/datastore/?output=all").json()["objects"]["broken"]["labels"])

    refused(server.post("broken"), 422, "broken")


def wait_for(what, seconds=20):
    """Until the server has seen what changed in its folder."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_no_temporary_file_is_left(server, painted, nifti):
    before = temporary_files(server)

    server.segment("sample_ct", ("mask.nii.gz", nifti(only(painted, 2))), params=json.dumps(NEAR))
    server.post("sample_ct", ("mask.nii.gz", b"broken"))

    assert temporary_files(server) <= before


def only(painted: NDArray[np.uint8], label: int) -> NDArray[np.uint8]:
    """The painted slice of one object."""
    return np.where(painted == label, painted, 0).astype(np.uint8)


def refused(answer: httpx.Response, status: int, words: str) -> None:
    """Check status and sentence of a refusal, and that it gives no path of the server away."""
    assert answer.status_code == status, answer.text
    detail = answer.json()["detail"]
    assert words in detail
    assert "\n" not in detail
    assert str(Path(__file__).resolve().parents[2]) not in detail


def temporary_files(server) -> set[Path]:
    """What the server's requests have under its temporary folder."""
    return set(server.temporary.glob("imos-*"))


def test_nothing_is_scored_before_somebody_asks(server):
    assert httpx.get(f"{server.url}/scoring/", timeout=30).status_code == 404
