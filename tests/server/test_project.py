"""What is accepted, what is learned from it, which volume comes next, and what the page says; without a server."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from imos.errors import UserError
from imos.learning.rounds import MOST_VOLUMES
from imos.registry.records import BASE, Draft, Figures, LabelRef, Record
from imos.registry.split import Side
from imos.server.acceptances import Acceptance, AcceptanceLog, Effort
from imos.server.conf import AppConf
from imos.server.datastores import FolderDatastore
from imos.server.images import ImageCache
from imos.server.models import ModelCache
from imos.server.project import Project
from imos.server.project_page import page
from imos.server.project_report import report_of
from imos.server.scoring import scoring_methods
from imos.server.snapshots import Snapshot
from imos.server.strategies import OPEN_SECONDS, Survey, strategies
from imos.server.workbench import Workbench
from imos.server.workspaces import WorkspaceStore

SHAPE = (40, 44, 12)


def voxels_of(number: int) -> np.ndarray:
    """Images 0…5 are alike; from 6 on they are of another kind."""
    random = np.random.default_rng(number)
    if number >= 6:
        return (random.integers(0, 2, SHAPE) * 900).astype(np.int16)
    i, j, _ = np.mgrid[:40, :44, :12]
    return (100 + 5 * i + 3 * j + random.normal(0, 3, SHAPE)).astype(np.int16)


@pytest.fixture
def store(tmp_path: Path) -> FolderDatastore:
    """A folder of eight images."""
    folder = tmp_path / "studies"
    folder.mkdir()
    for number in range(8):
        nibabel.save(nibabel.Nifti1Image(voxels_of(number), np.eye(4)), folder / f"ct{number}.nii.gz")
    return FolderDatastore(str(folder), extensions=["*.nii.gz"])


@pytest.fixture
def save(store: FolderDatastore, tmp_path: Path) -> Callable[..., None]:
    """Stores a label: a block that begins at `first`."""

    def one(number: int, first: int = 10, tag: str = "final", **info: Any) -> None:
        labels = np.zeros(SHAPE, np.uint8)
        labels[first : first + 12, 10:30, 2:9] = 3
        path = tmp_path / "label.nii.gz"
        nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), path)
        store.save_label(f"ct{number}", str(path), tag, info)

    return one


def test_label_is_taken_note_of_once_and_again_when_it_changed(
    store: FolderDatastore, save: Callable[..., None]
) -> None:
    project = Project.of(AppConf(), store)
    assert project.accepted("ct0") is None
    save(0, client_id="ann", effort={"slices": 7, "painted": 2, "corrected": 40}, axes={"3": 0})
    first = project.accepted("ct0")
    assert first is not None
    assert (first.client, first.effort, first.version) == ("ann", Effort(7, 2, 40), BASE)
    assert project.accepted("ct0") == first
    save(0, first=12)
    assert project.accepted("ct0").digest != first.digest
    assert len(project.log.read()) == 2
    assert project.since_last_round() == 1


def test_lessons_keep_patients_apart_and_say_what_is_new(
    store: FolderDatastore, save: Callable[..., None], tmp_path: Path
) -> None:
    project = Project.of(AppConf(), store)
    for number in range(6):
        save(number, axes={"3": 0})
        store.update_image_info(f"ct{number}", {"PatientID": f"patient{number // 2}"})
    lessons = project.lessons()
    sides = {one.image: one.side for one in project.log.latest().values()}
    for pair in (("ct0", "ct1"), ("ct2", "ct3"), ("ct4", "ct5")):
        assert sides[pair[0]] is sides[pair[1]]
    assert {one.label.image for one in lessons.held_out} == {one for one in sides if sides[one] is Side.VALIDATION}
    assert {one.label.image for one in lessons.new} == {one for one in sides if sides[one] is Side.TRAINING}
    for one in [*lessons.new, *lessons.held_out]:
        assert one.patient == f"patient{int(one.label.image[2:]) // 2}"
    assert lessons.replay == []
    volume = lessons.new[0].load()
    assert volume.axis_of(3) == 0
    assert (volume.labels == 3).sum() == 12 * 20 * 7

    learned = lessons.new[0].label
    _publish(project, tmp_path, learned)
    again = project.lessons()
    assert [one.label for one in again.replay] == [learned]
    assert learned not in {one.label for one in again.new}


def test_judge_stays_a_judge_whatever_is_said_of_its_patient_later(
    store: FolderDatastore, save: Callable[..., None]
) -> None:
    project = Project.of(AppConf(), store)
    for number in range(8):
        save(number)
        project.accepted(f"ct{number}")
    before = {one.image: one.side for one in project.log.latest().values()}
    judges = {image for image, side in before.items() if side is Side.VALIDATION}
    for round_ in range(3):
        for number in range(8):
            # Everybody gets a name, and another one, and the file is gone once.
            store.update_image_info(f"ct{number}", {"PatientID": f"name {number} of round {round_}"})
            save(number, first=11 + round_)
        if round_ == 1:
            (project.registry.folder / "split.json").unlink()
        lessons = project.lessons()
        assert {one.image: one.side for one in project.log.latest().values()} == before
        assert {one.label.image for one in lessons.held_out} == judges
        assert {one.label.image for one in lessons.new} == before.keys() - judges


def test_new_image_goes_where_the_accepted_ones_of_its_patient_are(
    store: FolderDatastore, save: Callable[..., None]
) -> None:
    project = Project.of(AppConf(), store)
    for number in range(4):  # nobody said yet whose they are
        save(number)
        project.accepted(f"ct{number}")
    sides = {one.image: one.side for one in project.log.latest().values()}
    for number in range(4):
        for image in (f"ct{number}", f"ct{number + 4}"):
            store.update_image_info(image, {"PatientID": f"patient{number}"})
        save(number + 4)
        later = project.accepted(f"ct{number + 4}")
        assert later is not None
        assert later.side is sides[f"ct{number}"]
    assert set(sides.values()) == set(Side)


def test_who_turns_out_to_be_a_pupil_too_judges_no_more(
    store: FolderDatastore, save: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    project = Project.of(AppConf(), store)
    for number in range(4):
        save(number)
        project.accepted(f"ct{number}")
    sides = {one.image: one.side for one in project.log.latest().values()}
    judge = next(image for image in sides if sides[image] is Side.VALIDATION)
    pupil = next(image for image in sides if sides[image] is Side.TRAINING)
    for image in (judge, pupil):
        store.update_image_info(image, {"PatientID": "the same"})
    lessons = project.lessons()
    images = {one.label.image for one in [*lessons.new, *lessons.held_out]}
    assert images == sides.keys() - {judge}
    assert f"{judge} does not judge" in caplog.text


@pytest.mark.parametrize("unknown", ["UNK", "", "  ", None])
def test_patients_whom_an_archive_does_not_name_are_not_one_patient(
    store: FolderDatastore, save: Callable[..., None], unknown: str | None
) -> None:
    project = Project.of(AppConf(), store)
    for number in range(8):
        study = {"StudyInstanceUID": f"1.2.{number // 2}"} if number < 4 else {"StudyInstanceUID": unknown}
        store.update_image_info(f"ct{number}", {"PatientID": unknown} | study)
    patients = [project.patient_of(f"ct{number}") for number in range(8)]
    assert patients == ["1.2.0", "1.2.0", "1.2.1", "1.2.1", "ct4", "ct5", "ct6", "ct7"]
    for number in range(8):
        save(number)
    assert project.lessons().held_out


def test_label_that_was_accepted_again_is_not_read_as_the_old_one(
    store: FolderDatastore, save: Callable[..., None]
) -> None:
    project = Project.of(AppConf(), store)
    save(0, axes={"3": 0})
    (before,) = project.lessons().new
    save(0, first=30)
    with pytest.raises(UserError, match="ct0 was accepted again"):
        before.load()
    (after,) = project.lessons().new
    assert (after.load().labels == 3).sum() == 10 * 20 * 7


def _publish(project: Project, tmp_path: Path, *learned: LabelRef) -> Record:
    from safetensors.numpy import save_file

    path = tmp_path / "a.safetensors"
    save_file({"x": np.zeros(2, np.float32)}, path, {"kind": "adapter", "base_sha256": "b"})
    record = project.registry.publish(path, Draft(BASE, learned, figures=Figures(6, 0.8, 0.7, 0.7)))
    project.registry.activate(record.name, "better")
    return record


def test_a_round_never_takes_more_than_it_may(store: FolderDatastore, tmp_path: Path) -> None:
    project = Project.of(AppConf(), store)
    refs = [LabelRef(f"im{number}", "d") for number in range(60)]
    for number, ref in enumerate(refs):
        project.log.add(Acceptance(f"2026-01-{1 + number // 24:02}T{number % 24:02}", *_of(ref), Side.TRAINING, BASE))
    _publish(project, tmp_path, *refs[:20])
    lessons = project.lessons()
    assert len(lessons.new) + len(lessons.replay) == MOST_VOLUMES
    assert len(lessons.replay) == MOST_VOLUMES // 3
    assert lessons.new[0].label == refs[-1]  # the latest first


def _of(ref: LabelRef) -> tuple[str, str]:
    return ref.image, ref.digest


def test_half_a_line_of_a_power_cut_is_skipped(tmp_path: Path) -> None:
    log = AcceptanceLog(tmp_path)
    one = Acceptance("2026-01-01", "ct0", "d", Side.TRAINING, BASE)
    log.add(one)
    with (tmp_path / "accepted.jsonl").open("ab") as file:
        file.write(b'{"time": "2026-01-0')
    log.add(one)
    assert log.read() == [one, one]


@pytest.mark.parametrize(("most", "is_due"), [(0, False), (2, True), (3, False)])
def test_round_is_due_after_so_many_labels(
    store: FolderDatastore, save: Callable[..., None], most: int, is_due: bool
) -> None:
    project = Project.of(AppConf(auto_train=most), store)
    for number in range(2):
        save(number)
        project.accepted(f"ct{number}")
    assert project.is_due is is_due
    project.begin()
    assert not project.is_due


def test_least_certain_volume_comes_first(store: FolderDatastore, save: Callable[..., None]) -> None:
    for number, mean in ((1, 0.9), (2, 0.4), (3, 0.7)):
        save(number, tag="original", params={"confidence": {"3": {"2": mean, "3": mean}}})
    chosen = strategies(store, _models(store))["least_certain"]({"client_id": "ann"}, store)
    assert (chosen["id"], chosen["strategy_used"]) == ("ct2", "least_certain")
    assert chosen["worth"] == pytest.approx(0.6)


def test_volume_that_looks_unlike_the_labelled_ones_comes_first(
    store: FolderDatastore, save: Callable[..., None]
) -> None:
    save(0)
    known = strategies(store, _models(store))
    assert known["least_like"]({"client_id": "ann"}, store)["id"] in ("ct6", "ct7")
    assert known["diverse"]({"client_id": "ann"}, store)["id"] in ("ct6", "ct7")
    assert len(list((Path(store._datastore_path) / ".imos" / "features").iterdir())) == 8


def work_on(store: FolderDatastore, folder: str, number: int, client: str) -> float:
    """Somebody paints slice 5 of an image and propagates it; the mean expected J of all other slices."""
    models, images = _models(store), ImageCache()
    path = Path(store._datastore_path)
    workspaces = WorkspaceStore(path / ".imos" / folder, images, models)
    with workspaces.use(f"ct{number}", client, path / f"ct{number}.nii.gz") as workspace:
        session = workspace.session()
        painted = np.zeros(SHAPE[:2], np.uint8)
        painted[10:22, 10:30] = 3
        session.paint(plane="axial", index=5, labels=painted)
        result = session.propagate()
        workspace.write(workspace.record.timeline.do("Paint", Snapshot(session=session.state)))
    return float(np.mean([sure for index, sure in result.confidence[3].items() if index != 5]))


@pytest.mark.parametrize(
    ("folder", "name", "client"),
    [
        ("workspaces", "ann", "ann"),
        ("workspaces", "owner/ann", "ann"),
        ("drafts", "ann/scribbles/left/liver", "ann"),
        ("drafts", "ann/clicks/liver", "ann"),
        ("drafts", "ann/clicks", "ann"),
        ("drafts", "ward 3/ann/clicks", "ward 3/ann"),
        ("drafts", "/clicks/liver", None),  # OHIF's own panel does not say who works
    ],
)
def test_volume_that_somebody_else_works_on_is_skipped(
    store: FolderDatastore, folder: str, name: str, client: str | None
) -> None:
    confidence = work_on(store, folder, 2, name)
    survey = Survey(store, _models(store))
    assert survey.waiting("ben") == [f"ct{number}" for number in range(8) if number != 2]
    if client is not None:
        assert "ct2" in survey.waiting(client)
    assert survey.confidence(["ct2", "ct3"]) == {"ct2": pytest.approx(confidence, abs=1e-4)}
    (file,) = (Path(store._datastore_path) / ".imos" / folder).glob("*.imos")
    an_hour_ago = time.time() - OPEN_SECONDS - 1
    os.utime(file, (an_hour_ago, an_hour_ago))
    assert "ct2" in survey.waiting("ben")  # left lying


def test_two_who_ask_together_are_not_sent_to_the_same_volume(
    store: FolderDatastore, save: Callable[..., None]
) -> None:
    for number in range(8):  # one is the best for everybody
        save(number, tag="original", params={"confidence": {"3": {"2": 0.1 + number / 10}}})
    project, models = Project.of(AppConf(), store), _models(store)
    bench = Workbench(
        datastore=store,
        folder=Path(store._datastore_path) / ".imos",
        labels={},
        images=ImageCache(),
        models=models,
        on_save_label=lambda *_: None,
        project=project,
        strategies=strategies(store, models),
    )
    together = threading.Barrier(8)

    def ask(number: int) -> str | None:
        together.wait()
        return bench.choose("least_certain", f"client{number}")

    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(ask, range(8)))
    assert sorted(map(str, given)) == [f"ct{number}" for number in range(8)]


def test_labelled_volumes_are_not_chosen(store: FolderDatastore, save: Callable[..., None]) -> None:
    for number in range(7):
        save(number)
    for strategy in strategies(store, _models(store)).values():
        assert strategy({"client_id": "ann"}, store)["id"] == "ct7"
    save(7)
    for strategy in strategies(store, _models(store)).values():
        assert strategy({"client_id": "ann"}, store) is None


def _models(store: FolderDatastore) -> ModelCache:
    return ModelCache(AppConf(device="cpu"), Project.of(AppConf(), store).registry)


def test_scores_compare_what_was_found_with_what_was_accepted(
    store: FolderDatastore, save: Callable[..., None]
) -> None:
    save(0, first=10, tag="original")
    save(0, first=13)
    save(1)
    found = {name: method({}, store) for name, method in scoring_methods(store).items()}
    assert found["j"] == {"ct0": pytest.approx(9 / 15)}
    assert found["dice"] == {"ct0": pytest.approx(18 / 24)}
    assert 0 < found["f"]["ct0"] < 1
    kept = json.loads((Path(store._datastore_path) / ".imos" / "scores" / "dice.json").read_text())
    assert kept == found["dice"]


def test_page_says_what_the_report_says_and_no_more(store: FolderDatastore, tmp_path: Path) -> None:
    project = Project.of(AppConf(), store)
    for day, (number, painted) in enumerate(((0, 9), (0, 6), (1, 3)), start=1):  # the first one was accepted twice
        effort = Effort(12, painted, 100)
        project.log.add(Acceptance(f"2026-01-0{day}", f"<ct{number}>", "d", Side.TRAINING, BASE, effort=effort))
    _publish(project, tmp_path)
    report = report_of(project)
    assert report.untouched_share == pytest.approx(15 / 24)
    assert report.painted_per_volume == 4.5
    assert report.corrected_voxels == 200
    html = page(report)
    assert "4.5" in html
    assert "v0001" in html
    assert html.count("<svg") == 4
    (painted_plot,) = [one for one in re.findall(r"<svg.*?</svg>", html) if "Slices painted per volume" in one]
    titles = re.findall(r"<title>(.*?)</title>", painted_plot)
    assert titles == ["&lt;ct0&gt;, 2026-01-02, base: 6", "&lt;ct1&gt;, 2026-01-03, base: 3"]
    assert "&lt;ct0&gt;" in html
    assert "<ct0>" not in html
    assert "http" not in html


def test_mlflow_is_told_what_came_of_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    from monailabel.config import settings

    from imos.server.tracking import track

    heard: list[tuple[str, Any]] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._say(404, {"error_code": "RESOURCE_DOES_NOT_EXIST"})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            heard.append((self.path.rpartition("mlflow/")[2], body))
            self._say(200, {"experiment_id": "7", "run": {"info": {"run_id": "r1"}}})

        def _say(self, status: int, body: dict[str, Any]) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(settings, "MONAI_LABEL_TRACKING_ENABLED", True)
    monkeypatch.setattr(settings, "MONAI_LABEL_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
    record = Draft(BASE, figures=Figures(6, 0.8, 0.7, 0.6), promoted=True, reason="Better.").named("v0001", "b")
    try:
        track(record)
    finally:
        server.shutdown()
        server.server_close()
    assert [what for what, _ in heard] == ["experiments/create", "runs/create", "runs/log-batch", "runs/update"]
    assert heard[1][1]["experiment_id"] == "7"
    metrics = {one["key"]: one["value"] for one in heard[2][1]["metrics"]}
    assert metrics == {"candidate": 0.8, "champion": 0.7, "base": 0.6, "volumes": 6.0, "promoted": 1.0}
    track(record)  # nobody there any more: a line in the log
