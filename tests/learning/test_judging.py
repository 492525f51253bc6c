"""Judging: what is measured, and that it gives way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

import imos
from imos.learning.judging import measure, measure_all
from imos.learning.volumes import LabelledVolume, VolumeRef
from imos.propagation import session
from imos.registry.records import LabelRef

pytestmark = pytest.mark.slow


def test_passes_stand_still_between_two_slices_while_somebody_waits(
    volume: Callable[..., LabelledVolume], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both passes through the volume, forward and backward: they run side by side, ahead of who asks for them."""
    monkeypatch.setattr(session, "passes_at_once", lambda _: 2)
    model, ref = imos.load(device="cpu"), VolumeRef.of(volume(1))
    free, asked = threading.Event(), []
    found: dict[LabelRef, float] = {}

    def wait() -> None:
        asked.append(threading.current_thread().name)
        if len(asked) > 2:
            assert free.wait(120)

    judging = threading.Thread(target=lambda: found.update(measure_all(lambda: model, [ref], {}, wait=wait)))
    judging.start()
    deadline = time.monotonic() + 120
    while len(asked) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1)
    stood = len(asked)
    assert stood <= 2 + 3, "one slice each of the two passes, and the one who collects them"
    time.sleep(1)
    assert len(asked) == stood
    free.set()
    judging.join(120)
    assert len(set(asked)) == 3
    assert found[ref.label] == measure(model, volume(1)), "waiting changes nothing"
