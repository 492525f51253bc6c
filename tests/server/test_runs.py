"""`/imos/v1`: paint, run, correct, undo, two clients at once; over HTTP, with the real server."""

from __future__ import annotations

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import nibabel
import numpy as np
import pytest

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("server")]

PAINTED = 96  # the CT sample's painted slice
NEAR = {"first": PAINTED - 3, "last": PAINTED + 3}  # enough where the extent is not what is tested
KIDNEY, LIVER = 2, 4
OBJECTS = [{"value": KIDNEY, "name": "kidney"}, {"value": LIVER, "name": "liver", "color": [200, 0, 0]}]


@pytest.fixture
def kidney(painted):
    return np.where(painted == KIDNEY, painted, 0).astype(np.uint8)


def test_info_names_version_and_labels(server):
    info = httpx.get(f"{server.url}/imos/v1/info").json()

    assert info["api"] == 1
    assert info["labels"] == [{"value": 1, "name": "spleen"}, {"value": 2, "name": "right kidney"}]
    assert info["auth"] is False


def test_routes_are_in_the_documentation_of_the_api(server):
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]

    assert {"get"} == set(paths["/imos/v1/runs/{run}/events"])
    assert "post" in paths["/imos/v1/images/{image}/runs"]


def test_new_state_is_empty_and_on_the_images_grid(painter, painted):
    state = painter.state()

    assert state["grid"]["size"] == list(painted.shape)
    assert state["grid"]["spacing"] == pytest.approx([3, 3, 3])
    assert state["revision"] == 0
    assert not state["undo"]
    assert not state["unsaved"]
    assert not painter.labels().any()


def test_run_gives_what_inference_gives(server, painter, kidney, nifti):
    told = painter.run(kidney, [PAINTED], **NEAR)

    said = json.dumps({"first_slice": NEAR["first"], "last_slice": NEAR["last"]})
    expected, _params = server.segment("sample_ct", ("mask.nii.gz", nifti(kidney)), params=said)
    assert np.array_equal(painter.labels(), expected)
    assert (expected > 0).sum() > 2 * (kidney > 0).sum()
    assert told.numbers == list(range(1, len(told.numbers) + 1))


def test_slices_that_were_sent_are_the_result(painter, organs):
    told = painter.run(organs, [PAINTED], first=PAINTED - 12, last=PAINTED + 8, objects=OBJECTS)

    assert np.array_equal(told.shown, painter.labels())
    assert len({data["index"] for data in told.of("slice")}) >= 15


def test_first_slices_come_before_the_end(painter, organs):
    told = painter.run(organs, [PAINTED], **NEAR)

    kinds = [kind for kind, _data in told.events]
    assert kinds.index("slice") < kinds.index("progress") + 2
    assert [data["done"] for data in told.of("progress")] == sorted(data["done"] for data in told.of("progress"))
    assert told.of("progress")[-1]["done"] == told.of("progress")[-1]["total"]


def test_state_after_a_run(painter, organs):
    _kind, state = painter.run(organs, [PAINTED], **NEAR, objects=OBJECTS).last

    assert state == painter.state()
    liver = state["slices"][str(LIVER)]
    assert liver["axis"] == 2
    assert liver["painted"] == [PAINTED]
    assert sorted(liver["propagated"] + liver["painted"]) == list(range(PAINTED - 3, PAINTED + 4))
    assert state["confidence"][str(LIVER)][str(PAINTED)] == 1
    assert state["objects"][1] == {"value": LIVER, "name": "liver", "color": [200, 0, 0], "locked": False}
    assert state["undo"] == ["Propagate kidney, liver", f"Paint kidney, liver on slice {PAINTED}"]
    assert state["unsaved"]
    assert not state["accepted"]
    assert state["running"] is None


def test_broken_connection_goes_on_where_it_was(painter, kidney):
    run = painter.start(kidney, [PAINTED], **NEAR)
    first = painter.follow(run, kidney, stop="slice")
    rest = painter.follow(run, first.shown, after=first.numbers[-1])

    assert rest.numbers[0] == first.numbers[-1] + 1
    assert rest.last[0] == "done"
    assert np.array_equal(rest.shown, painter.labels())
    url = f"{painter.url}/imos/v1/runs/{run}/events"
    assert httpx.get(url, headers={"Last-Event-ID": str(rest.numbers[-1])}).status_code == 204


def test_cancelling_stops_within_one_slice_and_keeps_what_was_painted(painter, organs):
    run = painter.start(organs, [PAINTED])
    came, answered = [], float("inf")  # when each slice was seen here, and when the server took the cancellation
    with httpx.stream("GET", f"{painter.url}/imos/v1/runs/{run}/events", timeout=60) as stream:
        for line in stream.iter_lines():
            if line.startswith('data: {"done"'):
                came.append((time.monotonic(), json.loads(line.removeprefix("data: "))["seconds"]))
                if len(came) == 8:
                    assert httpx.delete(f"{painter.url}/imos/v1/runs/{run}").status_code == 202
                    answered = time.monotonic()
    told = painter.follow(run, organs)

    kind, state = told.last
    assert kind == "cancelled"
    # The server's clock on ours: an event is seen after it was made, by the least delay of all that were seen.
    began = min(seen - seconds for seen, seconds in came[:8])
    late = [seconds for _, seconds in came if began + seconds > answered]
    assert len(late) <= 2, "of 146: the slice that it was at, and one that these clocks cannot tell"
    assert len(told.of("progress")) == len(came)
    assert state["undo"] == [f"Paint object 2, object 4 on slice {PAINTED}"]
    assert np.array_equal(painter.labels(), organs)
    assert np.array_equal(told.shown, organs)


def test_one_run_at_a_time(painter, organs):
    run = painter.start(organs, [PAINTED])
    assert painter.state()["running"] == run
    for answer in (painter.post("runs", organs, edits=[]), painter.post("undo"), painter.post("accept", organs)):
        refused(answer, 409, "run is going on")
    httpx.delete(f"{painter.url}/imos/v1/runs/{run}")

    assert painter.follow(run, organs).last[0] == "cancelled"
    assert painter.state()["running"] is None


def test_undo_redo_and_reset_are_exact(painter, kidney):
    painter.run(kidney, [PAINTED], **NEAR)
    propagated = painter.labels()

    assert painter.step("undo")["redo"] == ["Propagate object 2"]
    assert np.array_equal(painter.labels(), kidney)
    assert not painter.step("undo")["undo"]
    assert not painter.labels().any()
    painter.step("redo")
    assert not painter.step("redo")["redo"]
    assert np.array_equal(painter.labels(), propagated)
    assert painter.step("reset")["undo"][0] == "Reset"
    assert not painter.labels().any()
    painter.step("undo")
    assert np.array_equal(painter.labels(), propagated)


def test_correction_computes_only_what_it_touches(painter, organs):
    first = painter.run(organs, [PAINTED], first=PAINTED - 6, last=PAINTED + 6)
    seen = painter.labels()
    corrected = seen.copy()
    corrected[40:60, 40:60, PAINTED + 3] = LIVER
    again = painter.run(corrected, [PAINTED + 3], values=[LIVER], first=PAINTED - 6, last=PAINTED + 6)

    labels = painter.labels()
    assert np.array_equal(labels[:, :, PAINTED + 3] == LIVER, corrected[:, :, PAINTED + 3] == LIVER)
    assert np.array_equal(labels[:, :, : PAINTED + 1], seen[:, :, : PAINTED + 1])
    assert again.of("progress")[-1]["total"] < first.of("progress")[-1]["total"] / 2
    assert again.last[1]["slices"][str(LIVER)]["painted"] == [PAINTED, PAINTED + 3]


def test_locked_object_keeps_every_voxel(painter, organs):
    painter.run(organs, [PAINTED], **NEAR)
    seen = painter.labels()
    locked = [{"value": KIDNEY, "name": "kidney"}, {"value": LIVER, "name": "liver", "locked": True}]
    painted = seen.copy()
    background = painted[:, :, PAINTED + 1] == 0
    painted[30:70, 30:70, PAINTED + 1][background[30:70, 30:70]] = KIDNEY  # a kidney that would grow over the liver
    painter.run(painted, [PAINTED + 1], values=[KIDNEY], **NEAR, objects=locked)

    assert np.array_equal(painter.labels() == LIVER, seen == LIVER)
    assert (painter.labels() == KIDNEY).sum() > (seen == KIDNEY).sum()


def test_erased_slice_means_that_the_object_ends_there(painter, kidney):
    painter.run(kidney, [PAINTED], **NEAR)
    erased = painter.labels()
    erased[:, :, PAINTED + 2] = 0
    told = painter.run(erased, [PAINTED + 2], values=[KIDNEY], **NEAR)

    assert PAINTED + 2 in told.last[1]["slices"]["2"]["absent"]
    assert not painter.labels()[:, :, PAINTED + 2 :].any()
    assert painter.labels()[:, :, PAINTED + 1].any()


def test_labels_brought_along_stay(painter, kidney):
    seen = kidney.copy()
    seen[5:9, 5:9, 20:30] = 9  # nobody said that this was painted
    painter.run(seen, [PAINTED], values=[KIDNEY], **NEAR)

    assert np.array_equal(painter.labels() == 9, seen == 9)
    painter.step("undo")
    assert np.array_equal(painter.labels(), seen)


def test_deleted_object_is_gone(painter, organs):
    painter.run(organs, [PAINTED], **NEAR, objects=OBJECTS)
    seen = painter.labels()
    seen[seen == LIVER] = 0
    told = painter.follow(painter.post("runs", seen, objects=OBJECTS[:1], edits=[], **NEAR).json()["run"], seen)

    assert list(told.last[1]["slices"]) == [str(KIDNEY)]
    assert not (painter.labels() == LIVER).any()


def test_only_selected_objects_are_propagated(painter, organs):
    painter.run(organs, [PAINTED], selected=[KIDNEY], **NEAR)

    labels = painter.labels()
    assert (labels == LIVER).any(axis=(0, 1)).nonzero()[0].tolist() == [PAINTED]
    assert (labels == KIDNEY).any(axis=(0, 1)).sum() > 3


def test_axis_order_and_direction_of_the_view_do_not_matter(painter, organs):
    painter.run(organs, [PAINTED], direction="forward", last=PAINTED + 3)
    expected = painter.labels()
    # The same voxels seen with slices first, from the other end, and the rows upside down.
    seen = np.flip(organs.transpose(2, 0, 1), (0, 2))
    affine = painter.affine @ [[0, 1, 0, 0], [0, 0, -1, seen.shape[2] - 1], [-1, 0, 0, seen.shape[0] - 1], [0, 0, 0, 1]]
    other = replace(painter, client=painter.client[:50] + "-turned", affine=affine)
    index = seen.shape[0] - 1 - PAINTED
    told = other.run(seen, [index], axis=0, direction="backward", first=index - 3)

    assert np.array_equal(told.shown, np.flip(expected.transpose(2, 0, 1), (0, 2)))
    assert np.array_equal(other.labels(), told.shown)
    assert told.last[1]["slices"][str(LIVER)]["axis"] == 0
    assert told.last[1]["slices"][str(LIVER)]["painted"] == [index]
    assert min(told.last[1]["slices"][str(LIVER)]["propagated"]) == index - 3


def test_view_of_other_voxels_is_resampled(painter, kidney):
    coarse = kidney[::2, ::2]
    scaled = painter.affine @ np.diag([2.0, 2.0, 1.0, 1.0])
    other = replace(painter, affine=scaled)
    told = other.run(coarse, [PAINTED], **NEAR)

    assert told.shown.shape == coarse.shape
    assert np.array_equal(told.shown, other.labels())
    assert (told.shown > 0).any(axis=(0, 1)).sum() == 7


def test_labels_above_255_are_kept(painter, kidney):
    many = np.where(kidney > 0, 700, 0).astype(np.uint16)
    painter.run(many, [PAINTED], **NEAR)

    assert set(np.unique(painter.labels())) == {0, 700}


def test_two_clients_on_one_image_do_not_see_each_other(painter, organs):
    others = [replace(painter, client=f"{painter.client[:50]}-{value}") for value in (KIDNEY, LIVER)]
    own = [np.where(organs == value, organs, 0) for value in (KIDNEY, LIVER)]
    with ThreadPoolExecutor() as pool:
        told = list(pool.map(lambda one: one[0].run(one[1], [PAINTED], **NEAR), zip(others, own, strict=True)))

    for one, painted, said, value in zip(others, own, told, (KIDNEY, LIVER), strict=True):
        assert set(np.unique(one.labels())) == {0, value}
        assert np.array_equal(one.labels()[:, :, PAINTED], painted[:, :, PAINTED])
        assert np.array_equal(said.shown, one.labels())
    assert not painter.labels().any()


def test_two_images_at_once(painter, kidney, samples):
    brain = nibabel.load(samples / "mr" / "painted.nii.gz")
    ventricles = np.where(np.asarray(brain.dataobj) == 2, 2, 0).astype(np.uint8)
    other = replace(painter, image="sample_mr", affine=brain.affine)
    with ThreadPoolExecutor() as pool:
        one = pool.submit(painter.run, kidney, [PAINTED], **NEAR)
        two = pool.submit(other.run, ventricles, [93], first=91, last=95)

    assert np.array_equal(one.result().shown, painter.labels())
    assert np.array_equal(two.result().shown, other.labels())
    assert np.array_equal(other.labels()[:, :, 93], ventricles[:, :, 93])
    assert other.labels().any(axis=(0, 1)).sum() == 5


def test_server_answers_others_during_a_run(painter, organs):
    with httpx.Client(timeout=30) as client:

        def wait() -> float:
            started = time.perf_counter()
            client.get(f"{painter.url}/info/").raise_for_status()
            return time.perf_counter() - started

        run = painter.start(organs, [PAINTED])
        waits = [wait() for _ in range(20)]
        still_running = painter.state()["running"] == run
        httpx.delete(f"{painter.url}/imos/v1/runs/{run}")
    painter.follow(run, organs)

    assert still_running
    assert np.median(waits) < 0.2


# What is refused


def test_run_without_anything_painted_is_refused(painter, painted):
    refused(painter.post("runs", np.zeros_like(painted), edits=[]), 422, "Nothing is painted")
    refused(painter.post("runs", painted, edits=[]), 422, "Nothing is painted")


@pytest.mark.parametrize(
    "params",
    [
        {"edits": [{"axis": 3, "index": 0, "values": [2]}]},
        {"edits": [{"axis": 2, "index": 5000, "values": [2]}]},
        {"edits": [{"axis": 2, "index": PAINTED, "values": [0]}]},
        {"objects": [{"value": 2, "name": "a"}, {"value": 2, "name": "b"}]},
        {"direction": "sideways"},
        {"selected": ["liver"]},
    ],
)
def test_params_that_cannot_be_meant_are_refused(painter, kidney, params):
    refused(painter.post("runs", kidney, **params), 422, "")


def test_selected_object_that_is_not_painted_is_refused(painter, kidney):
    edits = [{"axis": 2, "index": PAINTED, "values": [KIDNEY]}]

    refused(painter.post("runs", kidney, edits=edits, selected=[5]), 422, "object 5 is painted on no slice")
    assert painter.state()["undo"], "what was painted was taken all the same"


def test_painted_slice_outside_the_limits_is_refused(painter, kidney):
    edits = [{"axis": 2, "index": PAINTED, "values": [KIDNEY]}]

    refused(painter.post("runs", kidney, edits=edits, first=0, last=10), 422, f"slice {PAINTED}")


def test_unknown_run_and_image_are_not_found(painter):
    refused(httpx.get(f"{painter.url}/imos/v1/runs/nobody/events"), 404, "no such run")
    refused(httpx.delete(f"{painter.url}/imos/v1/runs/nobody"), 404, "no such run")
    refused(replace(painter, image="nobody").get("state"), 404, "nobody")


def refused(answer: httpx.Response, status: int, words: str) -> None:
    """Check status and sentence of a refusal."""
    assert answer.status_code == status, answer.text
    detail = answer.json()["detail"]
    assert isinstance(detail, str)
    assert words in detail
    assert "\n" not in detail


def test_an_image_that_is_replaced_during_a_run_can_be_opened(server, painter, organs, samples, tmp_path):
    whole = nibabel.load(samples / "ct" / "image.nii.gz")
    put = httpx.put(
        f"{server.url}/datastore/image",
        params={"image": "swapped"},
        files={"file": ("x.nii.gz", (samples / "ct" / "image.nii.gz").read_bytes())},
        timeout=60,
    )
    assert put.status_code == 200, put.text
    client = replace(painter, image="swapped")
    run = client.start(organs, [96])
    client.follow(run, organs, stop="slice")
    nibabel.save(whole.slicer[:, :, :40], tmp_path / "half.nii.gz")
    shutil.copyfile(tmp_path / "half.nii.gz", server.studies / ".other.nii.gz")
    (server.studies / ".other.nii.gz").replace(server.studies / "swapped.nii.gz")

    assert client.get("state").status_code == 200
    kind, said = client.follow(run, organs).last

    assert kind == "failed"
    assert "another size" in json.dumps(said)
    state = client.state()
    assert state["objects"] == []
    assert list((server.studies / ".imos" / "workspaces").rglob("*.old"))
