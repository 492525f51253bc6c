"""What is accepted, what is learned from it, which volume comes next, and what the page says; without a server."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from imos.registry.records import BASE, Draft, Figures, LabelRef, Record
from imos.registry.split import Side
from imos.server.acceptances import Acceptance, AcceptanceLog, Effort
from imos.server.conf import AppConf
from imos.server.datastores import FolderDatastore
from imos.server.models import ModelCache
from imos.server.project import MOST_VOLUMES, Project
from imos.server.project_page import page
from imos.server.project_report import report_of
from imos.server.scoring import scoring_methods
from imos.server.strategies import strategies

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
    assert lessons.replay == []
    volume = lessons.new[0].load()
    assert volume.axis_of(3) == 0
    assert (volume.labels == 3).sum() == 12 * 20 * 7

    learned = lessons.new[0].label
    _publish(project, tmp_path, learned)
    again = project.lessons()
    assert [one.label for one in again.replay] == [learned]
    assert learned not in {one.label for one in again.new}


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
    for number, painted in enumerate((6, 3)):
        effort = Effort(12, painted, 100)
        project.log.add(Acceptance(f"2026-01-0{number + 1}", f"<ct{number}>", "d", Side.TRAINING, BASE, effort=effort))
    _publish(project, tmp_path)
    report = report_of(project)
    assert report.untouched_share == pytest.approx(15 / 24)
    assert report.painted_per_volume == 4.5
    assert report.corrected_voxels == 200
    html = page(report)
    assert "4.5" in html
    assert "v0001" in html
    assert html.count("<svg") == 4
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
