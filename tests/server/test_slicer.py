"""Every request that 3D Slicer's module makes, by its own client class, against the real server."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor

import httpx
import nibabel
import numpy as np
import pytest

from imos.metrics import dice
from tests.server.slicer import BACKGROUND_STROKES, FOREGROUND_STROKES, Slicer

pytestmark = [
    pytest.mark.server,
    pytest.mark.xdist_group("server"),
    # Its client class leaves the files that it uploads open.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

PAINTED = 90
KIDNEY, LIVER = 2, 4
NEAR = {"first_slice": str(PAINTED - 6), "last_slice": str(PAINTED + 6)}


@pytest.fixture
def slicer(server, samples, tmp_path, request):
    """A user of this test alone, with the CT sample open."""
    return Slicer.open(server.url, "sample_ct", samples / "ct" / "image.nii.gz", tmp_path, request.node.name)


@pytest.fixture(scope="module")
def truth(samples):
    return np.asarray(nibabel.load(samples / "ct" / "label.nii.gz").dataobj)


def slices_of(mask):
    """Axial slices with something on them."""
    return np.flatnonzero(mask.any(axis=(0, 1)))


def middle(mask):
    """Row and column of the pixel that lies deepest inside."""
    from scipy.ndimage import distance_transform_edt

    return [int(value) for value in np.unravel_index(distance_transform_edt(mask).argmax(), mask.shape)]


# Connect, next sample, upload


def test_module_finds_a_model_for_each_of_its_sections(slicer):
    assert not slicer.client.auth_enabled()
    info = slicer.client.info()

    assert "config" not in info, "the module would ask for an upgrade"
    types = {name: model["type"] for name, model in info["models"].items()}
    assert types == {
        "imos": "segmentation",
        "imos_scribbles": "scribbles",
        "imos_clicks": "deepgrow",
        "imos_clicks_of_all": "deepedit",
    }
    assert all(model["dimension"] == 3 for model in info["models"].values())
    assert list(slicer.segments) == info["labels"] == ["spleen", "right kidney"]


def test_next_sample_can_be_opened(slicer, server, samples):
    slicer.client.upload_image(str(samples / "mr" / "image.nii.gz"), "waiting")  # others may have all the rest open
    strategy = next(iter(slicer.client.info()["strategies"]))
    sample = slicer.client.next_sample(strategy, {})
    answer = httpx.get(f"{server.url}/datastore/image", params={"image": sample["id"]}, timeout=30)

    assert sample["id"] in slicer.client.datastore()["objects"]
    assert sample["name"].startswith(sample["id"])
    assert answer.content == (server.studies / sample["name"]).read_bytes()
    httpx.delete(f"{server.url}/datastore/", params={"id": "waiting"}).raise_for_status()


def test_label_of_a_first_guess_is_offered(slicer, server, painted, nifti, tmp_path):
    (tmp_path / "guess.nii.gz").write_bytes(nifti(painted))
    slicer.client.save_label("twin", str(tmp_path / "guess.nii.gz"), "original", {"label_names": {"spleen": 1}})

    assert slicer.client.datastore()["objects"]["twin"]["labels"]["original"]["info"]["label_names"] == {"spleen": 1}
    file = slicer.client.download_label("twin", "original")
    assert np.array_equal(np.asarray(nibabel.load(file).dataobj), painted)


def test_volume_of_the_user_can_be_uploaded(slicer, server, samples, tmp_path):
    volume = tmp_path / "MRHead.nii.gz"
    shutil.copyfile(samples / "mr" / "image.nii.gz", volume)
    try:
        assert slicer.client.upload_image(str(volume), "MRHead")["image"] == "MRHead"
        assert "MRHead" in slicer.client.datastore()["objects"]
    finally:
        httpx.delete(f"{server.url}/datastore/image", params={"id": "MRHead"}, timeout=30)


def test_volume_that_is_not_on_the_server_is_segmented_in_a_session(slicer, samples, truth):
    made = slicer.client.create_session(str(samples / "ct" / "image.nii.gz"))
    slicer.session, slicer.image = made["session_id"], "Volume_1"
    assert slicer.client.get_session(slicer.session)
    slicer.paint("right kidney", PAINTED, truth[:, :, PAINTED] == KIDNEY)
    slicer.scribbles("right kidney", **NEAR)
    first = slicer.segments["right kidney"].copy()
    slicer.segments["right kidney"][:, :, PAINTED + 3] = truth[:, :, PAINTED + 3] == KIDNEY
    slicer.scribbles("right kidney", **NEAR)

    assert slices_of(first).size == 13
    assert np.array_equal(slicer.segments["right kidney"][:, :, PAINTED + 3], truth[:, :, PAINTED + 3] == KIDNEY)
    assert np.array_equal(slicer.segments["right kidney"][:, :, : PAINTED + 1], first[:, :, : PAINTED + 1])
    slicer.client.remove_session(slicer.session)


# Auto segmentation, submit


def test_nothing_to_start_from_leaves_empty_segments_and_no_message_box(slicer):
    slicer.image = "sample_mr"  # the module asks for every new sample by itself

    answer = slicer.auto_segmentation()

    assert "nothing to start from" in answer["params"]
    assert not any(mask.any() for mask in slicer.segments.values())


def test_submitted_slice_is_carried_by_auto_segmentation(slicer, server, truth):
    slicer.image = "stored"
    slicer.stroke(FOREGROUND_STROKES, 5, truth[:, :, PAINTED] > 0)  # before the new segment: it shifts its idx
    slicer.paint("Wątroba", PAINTED, truth[:, :, PAINTED] == LIVER)
    slicer.paint("right kidney", PAINTED, truth[:, :, PAINTED] == KIDNEY)
    answer = slicer.submit()
    assert answer["label"] == "stored"
    stored = np.asarray(nibabel.load(server.studies / "labels" / "final" / "stored.nii.gz").dataobj)
    assert np.array_equal(stored == 3, slicer.segments["Wątroba"])
    before = {name: mask.copy() for name, mask in slicer.segments.items()}

    answer = slicer.auto_segmentation(**NEAR)

    assert answer["label_names"] == {"right kidney": 1, "Wątroba": 2}
    for name, value in (("right kidney", KIDNEY), ("Wątroba", LIVER)):
        found = slicer.segments[name]
        assert np.array_equal(found[:, :, PAINTED], before[name][:, :, PAINTED])
        assert slices_of(found).tolist() == list(range(PAINTED - 6, PAINTED + 7))
        near = slice(PAINTED - 6, PAINTED + 7)
        assert dice(found[:, :, near], truth[:, :, near] == value) > 0.8


def test_python_client_gets_back_the_values_of_its_mask(slicer, truth, nifti, tmp_path):
    only = np.zeros_like(truth)
    only[:, :, PAINTED] = np.where(np.isin(truth[:, :, PAINTED], [KIDNEY, LIVER]), truth[:, :, PAINTED], 0)
    (tmp_path / "mask.nii.gz").write_bytes(nifti(only))
    params = {"first_slice": PAINTED - 2, "last_slice": PAINTED + 2}
    file, answer = slicer.client.infer("imos", "sample_ct", params, str(tmp_path / "mask.nii.gz"))

    assert answer["label_names"] == {"right kidney": KIDNEY, "object 4": LIVER}
    found = np.asarray(nibabel.load(file).dataobj)
    assert set(np.unique(found)) == {0, KIDNEY, LIVER}
    assert np.array_equal(found[:, :, PAINTED], only[:, :, PAINTED])


# Scribbles


def test_painted_segment_becomes_a_volume_and_the_others_stay(slicer, truth):
    slicer.paint("right kidney", PAINTED, truth[:, :, PAINTED] == KIDNEY)
    slicer.paint("spleen", PAINTED, truth[:, :, PAINTED] == 1)
    spleen = slicer.segments["spleen"].copy()
    answer = slicer.scribbles("right kidney", **NEAR)

    assert answer["label_names"] == {"right kidney": 1}
    kidney = slicer.segments["right kidney"]
    assert np.array_equal(kidney[:, :, PAINTED], truth[:, :, PAINTED] == KIDNEY)
    assert slices_of(kidney).tolist() == list(range(PAINTED - 6, PAINTED + 7))
    assert np.array_equal(slicer.segments["spleen"], spleen)


def test_name_never_seen_before_is_taken(slicer, truth):
    slicer.paint("腫瘍 (new)", PAINTED, truth[:, :, PAINTED] == KIDNEY)

    assert slicer.scribbles("腫瘍 (new)", cropped=True, **NEAR)["label_names"] == {"腫瘍 (new)": 1}
    assert slices_of(slicer.segments["腫瘍 (new)"]).size == 13


def test_correction_changes_only_its_neighbourhood(slicer, truth):
    name = "right kidney"
    slicer.paint(name, PAINTED - 5, truth[:, :, PAINTED - 5] == KIDNEY)
    slicer.paint(name, PAINTED + 1, truth[:, :, PAINTED + 1] == KIDNEY)
    slicer.scribbles(name, **NEAR)
    first = slicer.segments[name].copy()
    bitten = first[:, :, PAINTED + 4].copy()
    bitten[: middle(bitten)[0]] = False
    slicer.paint(name, PAINTED + 4, bitten)
    slicer.scribbles(name, **NEAR)
    second = slicer.segments[name].copy()

    assert np.array_equal(second[:, :, PAINTED + 4], bitten)
    assert np.array_equal(second[:, :, : PAINTED + 2], first[:, :, : PAINTED + 2])
    assert not np.array_equal(second[:, :, PAINTED + 5], first[:, :, PAINTED + 5])

    # Undone in Slicer, and corrected elsewhere: the answer before is continued.
    slicer.segments[name] = first.copy()
    slicer.paint(name, PAINTED + 6, np.zeros_like(bitten))
    slicer.scribbles(name, **NEAR)
    third = slicer.segments[name]
    assert not third[:, :, PAINTED + 6].any(), "erased on a slice: it is not there"
    assert np.array_equal(third[:, :, : PAINTED + 2], first[:, :, : PAINTED + 2])
    assert third[:, :, PAINTED + 4].sum() > bitten.sum()


def test_update_without_a_change_changes_nothing(slicer, truth):
    slicer.paint("right kidney", PAINTED, truth[:, :, PAINTED] == KIDNEY)
    slicer.scribbles("right kidney", **NEAR)
    first = slicer.segments["right kidney"].copy()
    slicer.scribbles("right kidney", **NEAR)

    assert np.array_equal(slicer.segments["right kidney"], first)


def test_strokes_alone_make_the_mask_of_their_slice(slicer, truth):
    kidney = truth[:, :, PAINTED] == KIDNEY
    row, column = middle(kidney)
    stroke = np.zeros_like(kidney)
    stroke[row - 1 : row + 2, column] = True
    slicer.stroke(FOREGROUND_STROKES, PAINTED, stroke)
    slicer.scribbles("right kidney", **NEAR)

    found = slicer.segments["right kidney"]
    assert dice(found[:, :, PAINTED], kidney) > 0.7
    assert slices_of(found).size == 13


def test_background_stroke_takes_a_part_away_where_it_is_drawn(slicer, truth):
    name = "right kidney"
    slicer.paint(name, PAINTED, truth[:, :, PAINTED] == KIDNEY)
    slicer.scribbles(name, **NEAR)
    first = slicer.segments[name].copy()
    edge = np.argwhere(first[:, :, PAINTED + 4])[0]
    stroke = np.zeros(first.shape[:2], bool)
    stroke[edge[0] : edge[0] + 2, edge[1] - 1 : edge[1] + 2] = True
    slicer.stroke(BACKGROUND_STROKES, PAINTED + 4, stroke)
    slicer.scribbles(name, **NEAR)
    second = slicer.segments[name].copy()

    assert not (second[:, :, PAINTED + 4] & stroke).any()
    assert dice(second[:, :, PAINTED + 4], first[:, :, PAINTED + 4]) > 0.8
    assert np.array_equal(second[:, :, : PAINTED + 1], first[:, :, : PAINTED + 1])
    slicer.scribbles(name, **NEAR)  # the stroke is still there
    assert np.array_equal(slicer.segments[name], second)


def test_two_people_under_one_name_do_not_mix(server, samples, tmp_path, truth):
    people = []
    for number, value in enumerate((KIDNEY, LIVER)):
        folder = tmp_path / str(number)
        folder.mkdir()
        one = Slicer.open(server.url, "sample_ct", samples / "ct" / "image.nii.gz", folder)
        one.paint("organ", PAINTED, truth[:, :, PAINTED] == value)
        people.append(one)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda one: one.scribbles("organ", **NEAR), people))
    first = [one.segments["organ"].copy() for one in people]
    for one, value in zip(people, (KIDNEY, LIVER), strict=True):
        one.paint("organ", PAINTED + 3, truth[:, :, PAINTED + 3] == value)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda one: one.scribbles("organ", **NEAR), people))

    for one, before, value in zip(people, first, (KIDNEY, LIVER), strict=True):
        found = one.segments["organ"]
        assert np.array_equal(found[:, :, PAINTED + 3], truth[:, :, PAINTED + 3] == value)
        assert np.array_equal(found[:, :, : PAINTED + 1], before[:, :, : PAINTED + 1])


def test_what_was_answered_is_continued_after_a_killed_server(launch, samples, tmp_path, truth):
    studies = tmp_path / "studies"
    studies.mkdir()
    shutil.copyfile(samples / "ct" / "image.nii.gz", studies / "case.nii.gz")
    process, url = launch(studies)
    one = Slicer.open(url, "case", samples / "ct" / "image.nii.gz", tmp_path)
    one.paint("liver", PAINTED, truth[:, :, PAINTED] == LIVER)
    one.scribbles("liver", **NEAR)
    first = one.segments["liver"].copy()
    process.kill()
    process.wait()
    _process, url = launch(studies)
    one.client.set_server_url(url)
    one.paint("liver", PAINTED - 3, truth[:, :, PAINTED - 3] == LIVER)
    one.scribbles("liver", **NEAR)

    assert np.array_equal(one.segments["liver"][:, :, PAINTED:], first[:, :, PAINTED:])
    assert not np.array_equal(one.segments["liver"][:, :, PAINTED - 4], first[:, :, PAINTED - 4])


# Smart Edit


def test_one_click_becomes_a_volume(slicer, truth):
    kidney = truth[:, :, PAINTED] == KIDNEY
    answer = slicer.clicks("right kidney", [[*middle(kidney), PAINTED]], **NEAR)

    assert answer["label_names"] == {"right kidney": 1}
    found = slicer.segments["right kidney"]
    assert dice(found[:, :, PAINTED], kidney) > 0.7  # .75; the mean of six organs is in test_clicks
    assert slices_of(found).tolist() == list(range(PAINTED - 6, PAINTED + 7))


def test_clicks_refine_the_slice_and_other_slices_are_more_prompts(slicer, truth):
    liver = truth == LIVER
    first = [*middle(liver[:, :, PAINTED]), PAINTED]
    slicer.clicks("liver", [first], **NEAR)
    once = slicer.segments["liver"].copy()
    missing = liver[:, :, PAINTED] & ~once[:, :, PAINTED]
    wrong = once[:, :, PAINTED] & ~liver[:, :, PAINTED]
    more, less = [[*middle(missing), PAINTED]], [[*middle(wrong), PAINTED]]
    slicer.clicks("liver", [first, *more], less, **NEAR)
    twice = slicer.segments["liver"].copy()
    assert twice[tuple(first)]
    assert twice[tuple(more[0])]
    assert not twice[tuple(less[0])]

    slicer.clicks("liver", [first, *more, [*middle(liver[:, :, PAINTED + 4]), PAINTED + 4]], less, **NEAR)
    thrice = slicer.segments["liver"]
    assert np.array_equal(thrice[:, :, : PAINTED + 1], twice[:, :, : PAINTED + 1])
    assert not np.array_equal(thrice[:, :, PAINTED + 4], twice[:, :, PAINTED + 4])


def test_click_outside_on_another_slice_mends_that_slice(slicer, truth):
    kidney = truth[:, :, PAINTED] == KIDNEY
    inside = [[*middle(kidney), PAINTED]]
    slicer.clicks("right kidney", inside, **NEAR)
    before = slicer.segments["right kidney"].copy()
    edge = [int(value) for value in np.argwhere(before[:, :, PAINTED + 4])[0]]
    slicer.clicks("right kidney", inside, [[*edge, PAINTED + 4]], **NEAR)
    after = slicer.segments["right kidney"]

    assert not after[edge[0], edge[1], PAINTED + 4]
    assert dice(after[:, :, PAINTED + 4], before[:, :, PAINTED + 4]) > 0.8
    assert np.array_equal(after[:, :, : PAINTED + 1], before[:, :, : PAINTED + 1])


def test_box_limits_what_comes_back(slicer, truth):
    row, column = middle(truth[:, :, PAINTED] == KIDNEY)
    box = [row + 4, row - 4, column - 3, column + 3, PAINTED - 2, PAINTED + 2]  # either end first
    slicer.clicks("right kidney", [[row, column, PAINTED]], roi=box, **NEAR)

    found = np.argwhere(slicer.segments["right kidney"])
    assert found.min(axis=0).tolist() >= [row - 4, column - 3, PAINTED - 2]
    assert found.max(axis=0).tolist() == [row + 4, column + 3, PAINTED + 2]


def test_landmarks_of_several_segments_come_back_in_order(slicer, truth):
    kidney, spleen = (truth[:, :, PAINTED] == value for value in (KIDNEY, 1))
    points = {"right kidney": [[*middle(kidney), PAINTED]], "spleen": [[*middle(spleen), PAINTED]]}
    answer = slicer.landmarks(points, "spleen", **NEAR)
    assert answer["label_names"] == {"spleen": 1, "right kidney": 2}
    assert dice(slicer.segments["right kidney"][:, :, PAINTED], kidney) > 0.7
    assert dice(slicer.segments["spleen"][:, :, PAINTED], spleen) > 0.6

    before = slicer.segments["spleen"].copy()
    answer = slicer.landmarks({"right kidney": points["right kidney"]}, "right kidney", **NEAR)
    assert answer["label_names"] == {"right kidney": 1}, "the first of those that are there"
    assert np.array_equal(slicer.segments["spleen"], before)


# What is refused


def refused(slicer, words, ask) -> None:
    """The module shows the server's sentence in its message box."""
    with pytest.raises(Exception, match="422") as caught:
        ask()
    assert words in caught.value.msg
    assert str(slicer.folder) not in caught.value.msg


def test_messages_say_what_to_do(slicer, truth):
    refused(slicer, "Click on it at least once", lambda: slicer.clicks("spleen", []))
    refused(slicer, "lies outside the image", lambda: slicer.clicks("spleen", [[1, 2, 5000]]))
    refused(slicer, "list of clicks", lambda: slicer.clicks("spleen", [["a", 2, 3]]))
    refused(slicer, "six voxel indices", lambda: slicer.clicks("spleen", [[1, 2, 3]], roi=[1, 2]))
    refused(slicer, "`first_slice`", lambda: slicer.clicks("spleen", [[1, 2, 3]], first_slice="900"))
    slicer.paint("right kidney", PAINTED, truth[:, :, PAINTED] == KIDNEY)
    refused(slicer, "“spleen” is not painted", lambda: slicer.scribbles("spleen"))
    refused(
        slicer,
        "no segment “nobody”",
        lambda: slicer.infer(
            "imos_scribbles",
            {"label_info": [{"name": "a", "id": 1}], "selected_label_name": "nobody"},
            slicer.export(["right kidney"]),
        ),
    )
    refused(slicer, "has no mask", lambda: slicer.infer("imos_scribbles", {"label": "/etc/passwd"}))
