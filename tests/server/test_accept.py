"""Accepting over HTTP: what is stored, what survives a restart and a killed server."""

from __future__ import annotations

import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import nibabel
import numpy as np
import pytest

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("server")]

PAINTED = 96
NEAR = {"first": PAINTED - 2, "last": PAINTED + 2}
KIDNEY, LIVER = 2, 4
OBJECTS = [{"value": KIDNEY, "name": "Ren dexter"}, {"value": LIVER, "name": "Wątroba", "color": [200, 0, 0]}]


@pytest.fixture
def accepting(painter):
    """A client on an image whose label no other test looks at."""
    return replace(painter, image="accepted")


def stored(server, image="accepted"):
    """The final label as the folder holds it."""
    return nibabel.load(server.studies / "labels" / "final" / f"{image}.nii.gz")


def test_accepted_label_is_stored_as_it_is_seen(server, accepting, organs):
    accepting.run(organs, [PAINTED], **NEAR, objects=OBJECTS)
    seen = accepting.labels()
    seen[1:4, 1:4, 10] = LIVER  # painted by hand after the run
    answer = accepting.post("accept", seen, objects=OBJECTS)

    assert answer.status_code == 200, answer.text
    assert answer.json()["label"] == "accepted"
    assert answer.json()["training"] == "off"
    assert answer.json()["accepted"]
    assert not answer.json()["unsaved"]
    assert np.array_equal(np.asarray(stored(server).dataobj), seen)
    assert np.allclose(stored(server).affine, accepting.affine)
    assert np.array_equal(accepting.labels(), seen)
    assert accepting.state()["slices"][str(LIVER)]["accepted"]


def test_stored_label_names_its_objects(server, accepting, organs):
    assert accepting.post("accept", organs, objects=OBJECTS).status_code == 200

    asked = {"label": "accepted", "tag": "final"}
    info = httpx.get(f"{server.url}/datastore/label/info", params=asked, timeout=30).json()
    assert [(one["idx"], one["name"]) for one in info["label_info"]] == [(KIDNEY, "Ren dexter"), (LIVER, "Wątroba")]
    assert info["client_id"] == accepting.client
    file = httpx.get(f"{server.url}/datastore/label", params=asked, timeout=30)
    assert file.content == (server.studies / "labels" / "final" / "accepted.nii.gz").read_bytes()


def test_only_accepted_objects_are_stored_and_the_others_kept(server, accepting, organs):
    answer = accepting.post("accept", organs, objects=OBJECTS, objects_accepted=[KIDNEY])

    assert answer.status_code == 200
    assert np.array_equal(np.asarray(stored(server).dataobj), np.where(organs == KIDNEY, KIDNEY, 0))
    assert np.array_equal(accepting.labels(), organs)
    accepting.post("accept", organs, objects=OBJECTS, objects_accepted=[LIVER])
    assert np.array_equal(np.asarray(stored(server).dataobj), organs)


def test_accepted_voxels_never_change_again(accepting, organs):
    kidney = np.where(organs == KIDNEY, organs, 0)
    accepting.run(kidney, [PAINTED], **NEAR)
    accepting.post("accept", accepting.labels())
    before = accepting.labels()
    more = before.copy()
    more[30:70, 30:70, PAINTED][before[30:70, 30:70, PAINTED] == 0] = LIVER
    accepting.run(more, [PAINTED], values=[LIVER], **NEAR)

    assert np.array_equal(accepting.labels() == KIDNEY, before == KIDNEY)
    assert (accepting.labels() == LIVER).any(axis=(0, 1)).sum() > 1
    assert accepting.state()["unsaved"]


def test_acceptance_can_be_undone_and_what_it_replaced_is_kept(server, accepting, organs):
    accepting.post("accept", organs, objects=OBJECTS)
    kept = set((server.studies / ".imos" / "replaced" / "final").glob("*accepted.nii.gz"))
    kidney = np.where(organs == KIDNEY, organs, 0)
    accepting.post("accept", kidney, objects=OBJECTS[:1])

    (new,) = set((server.studies / ".imos" / "replaced" / "final").glob("*accepted.nii.gz")) - kept
    assert np.array_equal(np.asarray(nibabel.load(new).dataobj), organs)
    state = accepting.step("undo")
    assert state["unsaved"]
    assert np.array_equal(accepting.labels(), organs)


def test_two_clients_accept_at_once_and_nothing_is_lost(server, accepting, organs):
    folder = server.studies / ".imos" / "replaced" / "final"
    known = set(folder.glob("*accepted.nii.gz"))
    painted = [np.where(organs == value, organs, 0) for value in (KIDNEY, LIVER)]
    people = [replace(accepting, client=f"{accepting.client[:50]}-{value}") for value in (KIDNEY, LIVER)]
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda one: one[0].post("accept", one[1]), zip(people, painted, strict=True)))

    assert [answer.status_code for answer in answers] == [200, 200]
    final = np.asarray(stored(server).dataobj)
    first = [index for index in (0, 1) if not np.array_equal(final, painted[index])]
    assert len(first) == 1, "one of the two is stored whole"
    kept = [np.asarray(nibabel.load(file).dataobj) for file in set(folder.glob("*accepted.nii.gz")) - known]
    assert any(np.array_equal(label, painted[first[0]]) for label in kept), "the other one is kept beside it"
    for one, mask in zip(people, painted, strict=True):
        assert np.array_equal(one.labels(), mask)


def test_nothing_to_accept_is_refused(accepting, organs):
    answer = accepting.post("accept", np.zeros_like(organs))
    assert answer.status_code == 422
    assert "Nothing is painted" in answer.json()["detail"]
    assert accepting.post("accept", organs, objects_accepted=[77]).status_code == 422


def test_next_is_an_image_without_a_label(server, accepting, organs):
    accepting.post("accept", organs)
    seen = []
    for _ in range(8):
        answer = httpx.get(f"{server.url}/imos/v1/next", params={"client": "a", "after": (seen or ["accepted"])[-1]})
        seen.append(answer.json()["image"])
        assert answer.json()["series"]

    assert "accepted" not in seen
    assert len(set(seen)) >= 3


def test_everything_survives_a_restart_and_a_killed_server(launch, samples, tmp_path, painter, organs):
    studies = tmp_path / "studies"
    studies.mkdir()
    shutil.copyfile(samples / "ct" / "image.nii.gz", studies / "case.nii.gz")
    label = studies / "labels" / "final" / "case.nii.gz"
    process, url = launch(studies)

    # In the middle of a run: the painted slice is there, the run is not.
    one = replace(painter, url=url, image="case", client="one")
    run = one.start(organs, [PAINTED], objects=OBJECTS)
    one.follow(run, organs, stop="slice")
    process.kill()
    process.wait()
    process, url = launch(studies)
    one = replace(one, url=url)
    state = one.state()
    assert state["running"] is None
    assert state["undo"] == [f"Paint Ren dexter, Wątroba on slice {PAINTED}"]
    assert [named["name"] for named in state["objects"]] == ["Ren dexter", "Wątroba"]
    assert np.array_equal(one.labels(), organs)

    # In the middle of accepting, again and again: the label is a whole one, and so is the table.
    two = replace(one, client="two")
    one.run(organs, [PAINTED], **NEAR, objects=OBJECTS)
    mine, history = one.labels(), one.state()["undo"]
    painted = [np.where(organs == value, organs, 0) for value in (KIDNEY, LIVER)]

    def accept_for_ever() -> None:
        for number in range(1000):
            try:
                two.post("accept", painted[number % 2])
            except httpx.TransportError:
                return

    accepting = threading.Thread(target=accept_for_ever)
    accepting.start()
    while not label.exists():
        time.sleep(0.02)
    time.sleep(0.37)
    process.kill()
    process.wait()
    accepting.join()
    found = np.asarray(nibabel.load(label).dataobj)
    assert any(np.array_equal(found, one) for one in painted)
    table = json.loads((studies / "datastore_v2.json").read_text())
    assert table["objects"]["case"]["labels"]["final"]["info"]["name"] == "case.nii.gz"
    assert not list(studies.rglob(".*.partial.*.json"))[2:], "at most what was being written is left"

    process, url = launch(studies)
    one, two = replace(one, url=url), replace(two, url=url)
    assert np.array_equal(one.labels(), mine)
    assert one.state()["undo"] == history
    assert two.state()["undo"][0].startswith("Accept")
    assert any(np.array_equal(two.labels(), seen) for seen in painted)
    status = httpx.get(f"{url}/info/").json()["datastore"]
    assert (status["total"], status["completed"]) == (1, 1)
    one.step("undo")
    assert np.array_equal(one.labels(), organs)
    one.step("redo")
    assert np.array_equal(one.labels(), mine)

    # Told to stop, the server does not wait for a run that somebody follows.
    last = replace(one, client="three")
    run = last.start(organs, [PAINTED])
    with httpx.stream("GET", f"{url}/imos/v1/runs/{run}/events", timeout=30) as stream:
        lines = stream.iter_lines()
        next(lines)
        process.terminate()
        rest = list(lines)
    process.wait(20)
    assert "event: done" not in rest
