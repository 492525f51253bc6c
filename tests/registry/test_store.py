"""Versions, the alias that says which one is in use, and what a killed process or a broken disk does to them."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from imos.errors import UserError
from imos.registry.adapter_files import RECORD, digest, read_metadata
from imos.registry.records import BASE, Draft, Figures, Gain, LabelRef, State
from imos.registry.store import Registry

Write = Callable[..., Path]
FIGURES = Figures(5, 0.9, 0.8, 0.7, Gain(0.1, 0.05, 0.2), Gain(0.2, 0.1, 0.3))


def test_without_versions_the_base_is_in_use(registry: Registry) -> None:
    assert registry.champion == BASE
    assert registry.versions() == []
    assert registry.adapter(BASE) is None
    assert not registry.folder.exists()


def test_published_version_is_kept_and_not_used(registry: Registry, adapter: Write) -> None:
    draft = Draft(BASE, (LabelRef("ct1", "aa"),), (LabelRef("ct0", "bb"),), FIGURES, False, "Not better.")
    record = registry.publish(adapter(), draft)

    assert record.name == "v0001"
    assert registry.record("v0001") == record
    assert (record.new, record.replay, record.figures) == (draft.new, draft.replay, FIGURES)
    assert record.base_sha256 == "b" * 64
    assert registry.champion == BASE
    assert [(one.state, one.reason) for one in registry.versions()] == [(State.KEPT, "Not better.")]
    path = registry.adapter("v0001")
    assert path is not None
    assert digest(path) == record.sha256
    assert np.array_equal(load_file(path)["network.out.bias"], load_file(adapter())["network.out.bias"])


def test_every_move_is_kept_with_its_reason(registry: Registry, adapter: Write) -> None:
    for number in range(2):
        registry.publish(adapter(number), Draft(BASE))
    registry.activate("v0001", "better")
    registry.activate("v0002", "better still")
    assert registry.rollback("it was not") == "v0001"

    moves = [(move.before, move.after, move.reason) for move in registry.moves]
    assert moves == [(BASE, "v0001", "better"), ("v0001", "v0002", "better still"), ("v0002", "v0001", "it was not")]
    assert [one.state for one in registry.versions()] == [State.CHAMPION, State.RETIRED]
    assert registry.rollback("neither") == BASE
    with pytest.raises(UserError, match="no version to go back to"):
        registry.rollback("once more")


def test_activating_the_version_in_use_is_no_move(registry: Registry, adapter: Write) -> None:
    registry.publish(adapter(), Draft(BASE))
    registry.activate("v0001", "first")
    registry.activate("v0001", "again")
    assert len(registry.moves) == 1


def test_candidate_that_beat_another_champion_is_not_used(registry: Registry, adapter: Write) -> None:
    for number in range(2):
        registry.publish(adapter(number), Draft(BASE))
    registry.activate("v0001", "by hand, while v0002 was judged against the base")
    assert not registry.activate("v0002", "better than base", instead_of=BASE)
    assert registry.champion == "v0001"
    assert len(registry.moves) == 1
    refused = Registry(registry.folder).versions()[1]
    assert refused.state is State.KEPT
    assert refused.reason == "Not used: v0001 was put to use while it was judged against base. better than base"
    registry.activate("v0002", "a person decided")
    assert registry.versions()[1].reason == "a person decided"


def test_stamp_changes_with_every_move(registry: Registry, adapter: Write) -> None:
    registry.publish(adapter(), Draft(BASE))
    stamps = [registry.stamp()]
    registry.activate("v0001", "")
    stamps.append(registry.stamp())
    registry.rollback("")
    stamps.append(registry.stamp())
    assert len(set(stamps)) == 3


@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_damaged_version_is_not_used_and_the_one_before_is(
    registry: Registry, adapter: Write, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(2):
        registry.publish(adapter(number), Draft(BASE))
        registry.activate(f"v{number + 1:04}", "better")
    file = registry.folder / "versions" / "v0002" / "adapter.safetensors"
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:-3] if damage == "cut" else content[:-1] + bytes([content[-1] ^ 1]))

    with pytest.raises(UserError, match="v0002 is damaged or missing"):
        registry.adapter("v0002")
    with caplog.at_level(logging.ERROR):
        assert registry.give_up("v0002", "its file is damaged") == "v0001"
    assert "v0002 cannot be used" in caplog.text
    assert registry.moves[-1].reason == "v0002 cannot be used: its file is damaged"
    assert registry.give_up("v0002", "said by a second thread") == "v0001"
    assert [one.state for one in registry.versions()] == [State.CHAMPION, State.DAMAGED]


def test_version_that_is_damaged_while_it_is_listed_again_and_again_is_found_out(
    registry: Registry, adapter: Write
) -> None:
    registry.publish(adapter(), Draft(BASE))
    file = registry.folder / "versions" / "v0001" / "adapter.safetensors"
    content = file.read_bytes()
    found = []
    for now in (content, content[:-1] + bytes([content[-1] ^ 1]), content):
        file.write_bytes(now)
        found.append([one.state for one in registry.versions()])
    assert found == [[State.KEPT], [State.DAMAGED], [State.KEPT]]


def test_many_who_give_up_the_same_version_go_back_once(registry: Registry, adapter: Write) -> None:
    for number in range(3):
        registry.publish(adapter(number), Draft(BASE))
        registry.activate(f"v{number + 1:04}", "better")
    others = [Registry(registry.folder) for _ in range(8)]  # as processes, each with a lock of its own
    together = threading.Barrier(len(others))

    def give_up(one: Registry) -> str:
        together.wait()
        return one.give_up("v0003", "damaged")

    with ThreadPoolExecutor(len(others)) as pool:
        found = list(pool.map(give_up, others))
    assert found == ["v0002"] * len(others)
    assert [move.after for move in registry.moves] == ["v0001", "v0002", "v0003", "v0002"]


def test_going_back_skips_damaged_versions(registry: Registry, adapter: Write) -> None:
    for number in range(3):
        registry.publish(adapter(number), Draft(BASE))
        registry.activate(f"v{number + 1:04}", "better")
    (registry.folder / "versions" / "v0002" / "adapter.safetensors").write_bytes(b"no")
    assert registry.rollback("worse") == "v0001"


def test_damaged_alias_is_put_aside_and_the_base_used(registry: Registry, adapter: Write) -> None:
    registry.publish(adapter(), Draft(BASE))
    registry.activate("v0001", "better")
    (registry.folder / "champion.json").write_text('{"line": ["ba')
    assert registry.champion == BASE
    assert (registry.folder / "champion.json.damaged").is_file()
    registry.activate("v0001", "again")
    assert registry.champion == "v0001"


def test_version_learned_from_its_labels_and_those_of_its_parents(registry: Registry, adapter: Write) -> None:
    first, second, third = (LabelRef(f"ct{number}", "d") for number in range(3))
    registry.publish(adapter(1), Draft(BASE, (first,)))
    registry.publish(adapter(2), Draft("v0001", (second,), (first,)))
    registry.publish(adapter(3), Draft(BASE, (third,)))
    assert registry.learned("v0002") == {first, second}
    assert registry.learned("v0003") == {third}
    assert registry.learned(BASE) == set()


def test_one_file_travels_to_another_server(registry: Registry, adapter: Write, tmp_path: Path) -> None:
    draft = Draft(BASE, (LabelRef("ct1", "aa"),), (), FIGURES, True, "Better than base.")
    record = registry.publish(adapter(7), draft)
    file = tmp_path / "liver.safetensors"
    registry.export("v0001", file)

    there = Registry(tmp_path / "there")
    brought = there.bring(file)

    assert there.champion == BASE
    assert brought.reason == f"Imported from liver.safetensors: v0001 of {record.time}, J&F 0.900 there"
    assert brought.figures.candidate is None  # about volumes that are not here
    path = there.adapter("v0001")
    assert path is not None
    assert np.array_equal(load_file(path)["network.out.bias"], load_file(file)["network.out.bias"])
    assert json.loads(read_metadata(file)[RECORD])["reason"] == "Better than base."


@pytest.mark.parametrize("content", [b"", b"\x10\0\0\0\0\0\0\0{}", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0{}rest"])
def test_what_is_no_adapter_is_not_imported(registry: Registry, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "other.safetensors"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"other\.safetensors is"):
        registry.bring(file)
    assert registry.names() == []


def test_weights_are_no_adapter(registry: Registry, adapter: Write) -> None:
    with pytest.raises(UserError, match="is not an adapter file"):
        registry.bring(adapter(0, kind="weights"))


_PUBLISH = """
import sys
from pathlib import Path
from imos.registry.store import Registry
from imos.registry.records import Draft
registry = Registry(Path(sys.argv[1]))
while True:
    record = registry.publish(Path(sys.argv[2]), Draft(registry.champion))
    registry.activate(record.name, "better")
    print(record.name, flush=True)
"""


def test_killed_while_publishing_leaves_whole_versions_and_an_alias(
    registry: Registry, adapter: Write, tmp_path: Path
) -> None:
    words = [sys.executable, "-c", _PUBLISH, str(registry.folder), str(adapter())]
    for round_ in range(4):
        process = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.003 * round_)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        names = registry.names()
        for name in names:
            registry.adapter(name)  # raises if it is not what was published
        assert registry.champion in names
        assert registry.moves[-1].after == registry.champion
    record = registry.publish(adapter(), Draft(BASE))
    assert record.name == f"v{len(registry.names()):04}"
    assert not list((registry.folder / "versions").glob(".*"))


def test_registry_is_imported_without_torch() -> None:
    code = "import sys, imos.registry.verb, imos.registry.store; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
