"""Uploaded images: kept for as long as they are used, and no longer, whatever happens to the server."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from imos.server.sessions import SafeSessions

LONG_AGO = 10**6


@pytest.fixture
def keep(tmp_path: Path):
    """Uploads an image; its id."""

    def upload(sessions: SafeSessions, expiry: int = 100) -> str:
        image = tmp_path / "image.nii.gz"
        image.write_bytes(b"voxels")
        return sessions.add_session(str(image), expiry)[0]

    return upload


def age(folder: Path) -> None:
    """Let a session lie there for long."""
    info = json.loads((folder / "meta.info").read_text())
    (folder / "meta.info").write_text(json.dumps(info | {"last_access_ts": LONG_AGO}))


def test_what_is_over_goes_also_after_a_restart(tmp_path: Path, keep) -> None:
    store = tmp_path / "sessions"
    before = SafeSessions(str(store))
    over, used = keep(before), keep(before)
    age(store / over)

    again = SafeSessions(str(store))

    assert again  # else MONAI Label asks nothing of it
    assert again.remove_expired() == 1
    assert [path.name for path in store.iterdir()] == [used]
    assert again.get_session(used).image.endswith("image.nii.gz")


@pytest.mark.parametrize("half", ["", '{"image": "x', '["x"]', None])
def test_what_a_killed_server_left_goes_when_its_time_is_over(tmp_path: Path, keep, half: str | None) -> None:
    store = tmp_path / "sessions"
    sessions = SafeSessions(str(store))
    damaged, whole = keep(sessions), keep(sessions)
    info = store / damaged / "meta.info"
    info.unlink() if half is None else info.write_text(half)
    again = SafeSessions(str(store))

    assert again.get_session(damaged) is None
    assert again.remove_expired() == 0  # it may be being written
    os.utime(store / damaged, (LONG_AGO, LONG_AGO))
    assert again.remove_expired() == 1
    assert [path.name for path in store.iterdir()] == [whole]


def test_an_image_that_is_gone_stops_nothing(tmp_path: Path, keep) -> None:
    """MONAI Label's own loop would end with it, and remove nothing any more."""
    store = tmp_path / "sessions"
    sessions = SafeSessions(str(store))
    gone, over = keep(sessions), keep(sessions)
    (store / gone / "image.nii.gz").unlink()
    age(store / over)

    assert sessions.remove_expired() == 1
    assert not (store / over).exists()
    assert sessions.get_session(gone) is None


def test_what_is_no_session_is_left_alone(tmp_path: Path) -> None:
    store = tmp_path / "sessions"
    (store / "mine").mkdir(parents=True)
    os.utime(store / "mine", (LONG_AGO, LONG_AGO))

    assert SafeSessions(str(store)).remove_expired() == 0
    assert (store / "mine").is_dir()


def test_each_use_makes_the_time_begin_anew(tmp_path: Path, keep) -> None:
    sessions = SafeSessions(str(tmp_path / "sessions"))
    kept = keep(sessions)
    age(tmp_path / "sessions" / kept)

    assert SafeSessions(str(tmp_path / "sessions")).get_session(kept).last_access_ts > time.time() - 60
    assert sessions.remove_expired() == 0
