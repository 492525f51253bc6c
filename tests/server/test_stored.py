"""Who opens an image for the first time sees the label stored with it, slice by slice as it was left; over HTTP."""

from __future__ import annotations

from dataclasses import replace

import httpx
import numpy as np
import pytest

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("server")]

PAINTED = 96
KIDNEY, LIVER = 2, 4
OBJECTS = [{"value": KIDNEY, "name": "Ren dexter"}, {"value": LIVER, "name": "Wątroba", "color": [200, 0, 0]}]


@pytest.fixture
def first(painter):
    """Who works on the image first."""
    return replace(painter, image="accepted")


@pytest.fixture
def second(first):
    """Who opens it for the first time."""
    return replace(first, client=f"{first.client[:50]}-second")


def put(server, content, tag):
    answer = httpx.put(
        f"{server.url}/datastore/label",
        params={"image": "accepted", "tag": tag},
        files={"label": ("label.nii.gz", content)},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text


def test_accepted_label_is_shown_with_the_state_of_each_slice(first, second, organs):
    first.run(organs, [PAINTED], first=PAINTED - 2, last=PAINTED + 2, objects=OBJECTS)
    first.post("accept", first.labels(), objects=OBJECTS)
    state, theirs = second.state(), first.state()

    assert np.array_equal(second.labels(), first.labels())
    assert state["slices"] == theirs["slices"]
    assert state["slices"][str(LIVER)]["accepted"]
    assert state["objects"] == [
        {"value": KIDNEY, "name": "Ren dexter", "color": None, "locked": False},
        {"value": LIVER, "name": "Wątroba", "color": [200, 0, 0], "locked": False},
    ]
    assert state["accepted"]
    assert not state["unsaved"]
    assert not state["undo"]


def test_only_slices_that_were_accepted_are_shown_so(first, second, organs):
    kidney = np.where(organs == KIDNEY, organs, 0)
    first.run(kidney, [PAINTED], direction="forward", last=PAINTED + 2, objects=OBJECTS)
    first.post("accept", first.labels(), objects=OBJECTS)
    first.run(first.labels(), [], first=PAINTED - 3, last=PAINTED + 2, objects=OBJECTS)
    seen = first.labels()
    seen[1:4, 1:4, PAINTED] = LIVER
    first.post("accept", seen, objects=OBJECTS, objects_accepted=[LIVER])
    theirs, state = first.state(), second.state()

    mine = state["slices"][str(KIDNEY)]
    assert mine == theirs["slices"][str(KIDNEY)]
    assert mine["propagated"] == [PAINTED - 3, PAINTED - 2, PAINTED - 1]
    assert PAINTED in mine["accepted"]
    assert state["confidence"][str(KIDNEY)] == pytest.approx(theirs["confidence"][str(KIDNEY)], abs=1e-3)
    assert np.array_equal(second.labels(), first.labels())


def test_label_of_another_program_is_accepted_where_it_is(server, second, organs, nifti):
    put(server, nifti(organs), "final")
    state = second.state()

    assert np.array_equal(second.labels(), organs)
    assert state["accepted"]
    assert [one["name"] for one in state["objects"]] == ["right kidney", "object 4"], "as the server calls them"
    assert state["slices"][str(KIDNEY)]["accepted"] == [PAINTED]
    assert not state["slices"][str(KIDNEY)]["absent"]


def test_label_that_nobody_accepted_is_shown_and_not_called_accepted(server, second, organs, nifti):
    httpx.delete(f"{server.url}/datastore/label", params={"id": "accepted", "tag": "final"}, timeout=60)
    put(server, nifti(organs), "original")
    state = second.state()

    assert np.array_equal(second.labels(), organs)
    assert not state["accepted"]
    assert state["unsaved"]
    assert not state["slices"]


def test_looking_is_no_work(server, first, second, organs, nifti):
    put(server, nifti(np.where(organs == KIDNEY, organs, 0)), "final")
    assert second.state()["revision"] == 0
    put(server, nifti(np.where(organs == LIVER, organs, 0)), "final")

    assert second.state()["revision"] == 0
    assert np.array_equal(second.labels(), np.where(organs == LIVER, organs, 0))
    assert [one["value"] for one in second.state()["objects"]] == [LIVER]


def test_own_work_is_not_replaced_by_what_others_accept(server, first, second, organs, nifti):
    put(server, nifti(np.where(organs == KIDNEY, organs, 0)), "final")
    liver = np.where(organs == LIVER, organs, 0)
    first.run(liver, [PAINTED], first=PAINTED, last=PAINTED, objects=OBJECTS)
    put(server, nifti(organs), "final")

    assert np.array_equal(first.labels(), liver)
    assert np.array_equal(second.labels(), organs)


def test_work_goes_on_from_the_stored_label(server, second, organs, nifti):
    put(server, nifti(np.where(organs == KIDNEY, organs, 0)), "final")
    second.state()
    second.run(organs, [PAINTED], values=[LIVER], first=PAINTED - 2, last=PAINTED + 2)

    found = second.labels()
    assert np.array_equal(found == KIDNEY, organs == KIDNEY), "accepted slices stay, and no pass starts at them"
    assert (found == LIVER).any(axis=(0, 1)).sum() > 1
    second.step("undo")
    second.step("undo")
    assert np.array_equal(second.labels(), np.where(organs == KIDNEY, organs, 0))


def test_emptied_image_stays_empty(server, second, organs, nifti):
    put(server, nifti(organs), "final")
    second.state()
    second.step("reset")

    assert not second.labels().any()
    assert second.step("undo")["slices"]
    assert np.array_equal(second.labels(), organs)
