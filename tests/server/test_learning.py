"""The learning loop over HTTP, with a real server: accept, train, look, activate, propagate, roll back."""

from __future__ import annotations

import gzip
import json
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import nibabel
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from imos import cli
from imos.network.small import SmallNetwork
from imos.network.weights import WeightsInfo, read_weights, save_weights, sha256
from imos.propagation.model import BUNDLED, NETWORK_PREFIX
from tests.server.conftest import stop

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.xdist_group("server")]

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])


def body(number: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """A bright body that widens and moves, and its label, `(40, 40, 14)`."""
    random = np.random.default_rng(number)
    i, j, k = np.mgrid[:40, :40, :14]
    radius = 7 + 3 * random.random()
    labels = ((i - 18 - k / 3) ** 2 + (j - 20) ** 2 + (1.3 * (k - 7)) ** 2 < radius**2).astype(np.uint8)
    voxels = 100 + 200 * labels + 40 * np.sin(i / 3) + random.normal(0, 25, labels.shape)
    return voxels.astype(np.int16), labels


def nifti(array: NDArray[Any]) -> bytes:
    return gzip.compress(nibabel.Nifti1Image(array, AFFINE).to_bytes(), 1)


def adapter(folder: Path, number: int) -> Path:
    """An adapter that does what the shipped network does, but takes less (or more) of it."""
    shipped = read_weights(BUNDLED).tensors
    network = SmallNetwork(adapters=True).state_dict()
    tensors = {NETWORK_PREFIX + name: shipped.get(NETWORK_PREFIX + name, tensor) for name, tensor in network.items()}
    tensors["network.out.bias"] = tensors["network.out.bias"] + 3.0 * number
    path = folder / f"adapter{number}.safetensors"
    save_weights(path, tensors, WeightsInfo("small", extra={"kind": "adapter", "base_sha256": sha256(BUNDLED)}))
    return path


@dataclass
class Loop:
    """A project of its own.

    Attributes:
        url: Of the server.
        studies: The folder it serves.
        process: The server.
    """

    url: str
    studies: Path
    process: subprocess.Popen[bytes]

    @property
    def folder(self) -> Path:
        return self.studies / ".imos" / "models"

    def get(self, what: str) -> Any:
        answer = httpx.get(f"{self.url}{what}", timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, what: str, said: dict[str, Any] | None = None) -> Any:
        answer = httpx.post(f"{self.url}{what}", json=said or {}, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def accept(self, number: int, labels: NDArray[Any] | None = None) -> dict[str, Any]:
        """Store a final label, as 3D Slicer does."""
        content = nifti(body(number)[1] if labels is None else labels)
        answer = httpx.put(
            f"{self.url}/datastore/label",
            params={"image": f"body{number}"},
            data={"params": json.dumps({"client_id": "slicer"})},
            files={"label": ("label.nii.gz", content)},
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def propagate(self, number: int = 9) -> tuple[bytes, dict[str, Any]]:
        """The label map of one image from one painted slice, and what is said about it."""
        painted = body(number)[1]
        painted[:, :, :7] = painted[:, :, 8:] = 0
        said = {}
        for output in ("image", "json"):
            answer = httpx.post(
                f"{self.url}/infer/imos",
                params={"image": f"body{number}", "output": output},
                files={"label": ("painted.nii.gz", nifti(painted))},
                timeout=120,
            )
            assert answer.status_code == 200, answer.text
            said[output] = answer
        voxels = nibabel.Nifti1Image.from_bytes(gzip.decompress(said["image"].content))
        return np.asarray(voxels.dataobj).tobytes(), said["json"].json()["confidence"]

    def stats(self) -> dict[str, Any]:
        return self.get("/info/")["train_stats"]["imos"]

    def train(self, seconds: float = 240) -> dict[str, Any]:
        """One round, to its end."""
        self.post("/train/imos")
        return self.wait(lambda stats: bool(stats.get("total_time")), seconds)

    def wait(self, until: Callable[[dict[str, Any]], bool], seconds: float = 240) -> dict[str, Any]:
        """Until the clients' progress says so."""
        deadline = time.monotonic() + seconds
        started = self.stats().get("start_ts")
        while time.monotonic() < deadline:
            stats = self.stats()
            task = httpx.get(f"{self.url}/train/", timeout=30).json()
            if stats and until(stats) and (stats.get("start_ts") != started or task["status"] != "SUBMITTED"):
                return stats
            if task["status"] == "ERROR":
                pytest.fail("\n".join(task["details"]))
            time.sleep(0.3)
        pytest.fail(f"still {self.stats()}")


@pytest.fixture
def loop(tmp_path: Path, launch: Any) -> Callable[..., Loop]:
    """Starts a server on a project of ten images; beside so many of them lies a final label already."""

    def start(*conf: str, steps: int = 3, labelled: int = 0) -> Loop:
        studies = tmp_path / "studies"
        if not studies.is_dir():
            (studies / "labels" / "final").mkdir(parents=True)
            for number in range(10):
                (studies / f"body{number}.nii.gz").write_bytes(nifti(body(number)[0]))
            for number in range(labelled):
                (studies / "labels" / "final" / f"body{number}.nii.gz").write_bytes(nifti(body(number)[1]))
        words = ["--conf", "train_steps", str(steps), *conf]
        process, url = launch(studies, *words)
        return Loop(url, studies, process)

    return start


def test_accept_train_activate_propagate_and_roll_back(loop: Callable[..., Loop]) -> None:
    project = loop("--conf", "auto_train", "0")
    base = project.propagate()
    for number in range(3):
        assert project.accept(number)["training"] == "off"
    split = json.loads((project.folder / "split.json").read_text())
    assert [one["side"] for one in split.values()].count("validation") >= 1

    stats = project.train()

    assert stats["epoch"] == stats["total_epochs"] == 3
    assert stats["start_ts"] > 0
    assert 0 < stats["best_metric"] <= 1
    said = project.get("/imos/v1/models")
    (version,) = said["versions"]
    assert (version["name"], version["parent"], version["state"]) == ("v0001", "base", "kept")
    assert version["figures"]["volumes"] == 1
    assert version["figures"]["base"] > 0.5
    assert version["reason"] == "Not promoted: 1 volume is held out, 5 are the least."
    assert set(version["new"]) < {"body0", "body1", "body2"}
    assert said["champion"] == "base"
    assert project.propagate() == base

    said = project.post("/imos/v1/models/activate", {"version": "v0001", "reason": "to see it"})
    assert said["champion"] == "v0001"
    changed = project.propagate()
    assert changed != base

    began = time.monotonic()
    said = project.post("/imos/v1/models/rollback")
    assert time.monotonic() - began < 2
    assert [(move["before"], move["after"]) for move in said["moves"]] == [("base", "v0001"), ("v0001", "base")]
    assert project.propagate() == base
    assert list((project.folder / "logs" / "v0001").glob("events.out.tfevents.*"))
    page = httpx.get(f"{project.url}/imos/project", timeout=30)
    assert page.status_code == 200
    assert "v0001" in page.text
    assert "<script" not in page.text


def test_enough_accepted_labels_start_a_round_and_a_killed_one_leaves_the_champion(
    loop: Callable[..., Loop], painter_of: Any
) -> None:
    project = loop("--conf", "auto_train", "2", steps=300)
    base = project.propagate()
    # Painted, propagated and accepted in the viewer: it is known what that cost.
    _, labels = body(0)
    painter = painter_of(project.url, "body0", "viewer", AFFINE)
    painted = np.zeros_like(labels)
    painted[:, :, 7] = labels[:, :, 7]
    painter.run(painted, [7])
    seen = painter.labels()
    seen[0:3, 0:3, 7] = 1  # mended by hand
    accepted = painter.post("accept", seen)
    assert accepted.json()["training"] == "waiting"
    report = project.get("/imos/v1/project")
    (said,) = report["accepted"]
    assert (said["image"], said["side"], said["painted"]) == ("body0", "training", 1)
    assert said["untouched"] == said["slices"] - 1 > 3
    assert said["corrected"] == 9
    assert report["since_last_round"] == 1

    assert project.accept(1)["training"] == "scheduled"
    project.wait(lambda stats: stats["epoch"] >= 2)
    assert project.get("/imos/v1/project")["since_last_round"] == 0
    assert project.accept(2)["training"] == "waiting"
    assert project.propagate() == base  # answered while it trains
    (child,) = [one for one in psutil.Process(project.process.pid).children() if "train" in one.cmdline()]
    family = [child, *child.children(recursive=True)]
    child.kill()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []

    stats = project.wait(lambda stats: stats["stage"] == "stopped", 30)
    assert stats["total_time"]
    assert project.get("/imos/v1/models")["champion"] == "base"
    assert project.propagate() == base

    # Stopped by a person, as OHIF and 3D Slicer do it.
    project.post("/train/imos")
    project.wait(lambda stats: stats["stage"] == "training" and stats["epoch"] >= 1)
    assert httpx.delete(f"{project.url}/train/", timeout=30).status_code == 200
    assert project.wait(lambda stats: stats["stage"] == "stopped", 30)["total_time"]
    assert project.get("/imos/v1/models")["versions"] == []
    assert project.propagate() == base


def test_damaged_version_in_use_is_replaced_by_the_one_before_it(loop: Callable[..., Loop], tmp_path: Path) -> None:
    project = loop("--conf", "auto_train", "0")
    base = project.propagate()
    place = ["--studies", str(project.studies)]
    for number in (1, 2):
        assert cli.main(["weights", "import", str(adapter(tmp_path, number)), *place]) == 0
        assert cli.main(["weights", "activate", f"v000{number}", *place]) == 0
        if number == 1:
            first = project.propagate()
            assert first != base  # the server noticed by itself
    file = project.folder / "versions" / "v0002" / "adapter.safetensors"
    file.write_bytes(file.read_bytes()[:-100])

    assert project.propagate() == first
    said = project.get("/imos/v1/models")
    assert said["champion"] == "v0001"
    assert said["moves"][-1]["reason"].startswith("v0002 cannot be used: The adapter file of v0002 is damaged")
    assert "v0002 cannot be used" in (tmp_path / "server0.log").read_text()


def test_nobody_is_sent_to_what_somebody_else_has_open(loop: Callable[..., Loop], painter_of: Any) -> None:
    project = loop("--conf", "auto_train", "0")
    project.accept(0)
    # One works on a volume in the viewer, one scribbles in 3D Slicer; nobody had sent them there.
    _, labels = body(8)
    labels[:, :, :7] = labels[:, :, 8:] = 0
    painter_of(project.url, "body8", "viewer", AFFINE).run(labels, [7])
    answer = httpx.post(
        f"{project.url}/infer/imos_scribbles",
        params={"image": "body9", "output": "json"},
        data={
            "params": json.dumps(
                {"client_id": "scribbler", "label": "body", "label_info": [{"name": "body", "idx": 1}]}
            )
        },
        files={"label": ("painted.nii.gz", nifti(labels))},
        timeout=120,
    )
    assert answer.status_code == 200, answer.text

    def ask(number: int) -> str:
        return str(project.post("/activelearning/diverse", {"client_id": f"client{number}"})["id"])

    with ThreadPoolExecutor(7) as pool:  # all at the same time
        given = list(pool.map(ask, range(7)))
    assert sorted(given) == [f"body{number}" for number in range(1, 8)]
    assert project.post("/activelearning/random", {"client_id": "late"}) == {}
    # His own he may open again.
    assert project.post("/activelearning/random", {"client_id": "client3"})["id"] == given[3]
    assert project.get("/imos/v1/next?client=viewer&strategy=random")["image"] == "body8"
    assert project.post("/activelearning/random", {"client_id": "scribbler"})["id"] == "body9"
    project.accept(int(given[3][4:]))
    assert project.post("/activelearning/least_certain", {"client_id": "client3"}) == {}
    answer = httpx.post(f"{project.url}/activelearning/best", json={}, timeout=30)
    assert answer.status_code == 404
    assert answer.json()["detail"].startswith("There is no 'best' here.")


def test_labels_that_lay_there_before_count_as_learned_from_after_a_round(
    loop: Callable[..., Loop], tmp_path: Path
) -> None:
    # A project of its own on shared images: its versions in a folder of their own, on an adapter of its own.
    own, livers = adapter(tmp_path, 1), tmp_path / "livers"
    conf = ("--conf", "models", str(livers), "--conf", "adapter", str(own))
    project = loop("--conf", "auto_train", "2", *conf, labelled=4)
    adapted = project.propagate()
    project.train(600)
    report = project.get("/imos/v1/project")
    assert report["training"] + report["validation"] == 4
    assert report["since_last_round"] == 0
    assert project.accept(4)["training"] == "waiting"

    said = project.get("/imos/models")
    assert said == project.get("/imos/v1/models")
    (version,) = said["versions"]
    assert sorted(path.name for path in (livers / "versions").iterdir()) == [version["name"]] == ["v0001"]
    project.post("/imos/v1/models/activate", {"version": "v0001"})
    tuned = project.propagate()
    assert tuned != adapted
    project.post("/imos/v1/models/rollback")
    assert project.propagate() == adapted  # the base of this project is its own adapter

    # Another project on the same images begins with what is shipped.
    project.post("/imos/v1/models/activate", {"version": "v0001"})
    stop(project.process)
    other = loop("--conf", "auto_train", "0")
    assert other.get("/imos/models") == {"champion": "base", "versions": [], "moves": []}
    assert other.propagate() not in (adapted, tuned)
    assert json.loads((livers / "champion.json").read_text())["line"] == ["base", "v0001"]


def test_going_back_over_a_restart_gives_the_same_result(loop: Callable[..., Loop], tmp_path: Path) -> None:
    project = loop("--conf", "auto_train", "0")
    place = ["--studies", str(project.studies)]
    results = [project.propagate()]
    for number in range(1, 5):
        assert cli.main(["weights", "import", str(adapter(tmp_path, number)), *place]) == 0
        assert cli.main(["weights", "activate", f"v000{number}", *place]) == 0
        results.append(project.propagate())
    assert len(set(map(str, results))) == len(results)
    stop(project.process)

    again = loop("--conf", "auto_train", "0")
    for number in (3, 2, 1, 0):  # none of them is in memory
        began = time.monotonic()
        again.post("/imos/v1/models/rollback")
        assert time.monotonic() - began < 2
        if number in (3, 0):
            assert again.propagate() == results[number]


def test_scores_are_asked_for_over_http(loop: Callable[..., Loop]) -> None:
    project = loop("--conf", "auto_train", "0", labelled=2)
    final = body(0)[1]
    found = final.copy()
    found[:, :, 9:] = 0
    answer = httpx.put(
        f"{project.url}/datastore/label",
        params={"image": "body0", "tag": "original"},
        data={"params": "{}"},
        files={"label": ("label.nii.gz", nifti(found))},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    assert project.get("/info/")["scoring"].keys() == {"j", "f", "dice"}
    deadline = time.monotonic() + 240
    while httpx.post(f"{project.url}/scoring/dice", timeout=30).status_code == 429:  # one at a time
        assert time.monotonic() < deadline
        time.sleep(0.3)
    while (status := httpx.get(f"{project.url}/scoring/", timeout=30).json()["status"]) in ("SUBMITTED", "RUNNING"):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    assert status == "DONE"
    scores = json.loads((project.studies / ".imos" / "scores" / "dice.json").read_text())
    both = int((final & found).sum())
    assert scores == {"body0": pytest.approx(2 * both / int(final.sum() + found.sum()))}


@pytest.mark.parametrize(
    ("route", "wanted", "sentence"),
    [
        ("activate", {"version": "v0007"}, "There is no version 'v0007'. There are: base."),
        ("activate", {"version": "../../x"}, "version: String should match pattern"),
        ("rollback", {}, "There is no version to go back to: the base is in use."),
    ],
)
def test_refusals_are_sentences(server: Any, route: str, wanted: dict[str, str], sentence: str) -> None:
    answer = httpx.post(f"{server.url}/imos/v1/models/{route}", json=wanted, timeout=30)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(sentence)


def test_training_ends_with_a_killed_server_and_the_next_round_goes_on(loop):
    project = loop("--conf", "auto_train", "0", steps=12)
    base = project.propagate()
    for number in (0, 1):
        project.accept(number)
    project.post("/train/imos")
    project.wait(lambda stats: stats["stage"] == "training" and stats["epoch"] >= 1)
    family = psutil.Process(project.process.pid).children(recursive=True)
    assert any("finetune" in one.cmdline() for one in family)
    project.process.kill()
    project.process.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []

    again = loop("--conf", "auto_train", "0", steps=12)
    assert again.propagate() == base
    again.post("/train/imos")
    assert again.wait(lambda stats: bool(stats["version"]), 240)["version"] == "v0001"
