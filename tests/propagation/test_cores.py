"""Passes run side by side and say the same as one after the other; threads are as before afterwards."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import imos
from imos.imaging import Image
from imos.propagation.cores import cores, passes_at_once, side_by_side, threads_for

SMALL = SimpleNamespace(xmem=None, device=torch.device("cpu"))


def count_to(number: int) -> Iterator[int]:
    for step in range(number):
        time.sleep(0.001)
        yield step


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_every_jobs_steps_come_in_order_and_then_its_end(at_once: int) -> None:
    got: dict[int, list[int | None]] = {7: [], 3: [], 0: []}
    for job, step in side_by_side([7, 3, 0], count_to, at_once):
        got[job].append(step)
    assert got == {7: [*range(7), None], 3: [0, 1, 2, None], 0: [None]}


def test_jobs_do_run_side_by_side() -> None:
    both = threading.Barrier(2, timeout=10)  # passed only if two are there at the same time

    def meet(_: int) -> Iterator[int]:
        yield both.wait()

    assert len(list(side_by_side([1, 2], meet, 2))) == 4


@pytest.mark.parametrize("at_once", [1, 2])
def test_an_error_of_a_job_is_raised_where_its_steps_are_asked_for(at_once: int) -> None:
    def fail(job: int) -> Iterator[int]:
        yield job
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        list(side_by_side([1, 2], fail, at_once))


def test_closing_ends_all_jobs() -> None:
    ran = []

    def endless(job: int) -> Iterator[int]:
        while True:
            time.sleep(0.001)
            ran.append(job)
            yield job

    with closing(side_by_side([1, 2, 3], endless, 2)) as steps:
        next(steps)
    count = len(ran)
    time.sleep(0.05)
    assert len(ran) == count


def test_small_runs_with_one_thread_an_operation_and_then_as_before() -> None:
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(2)
    cv2.setNumThreads(2)
    try:
        with threads_for(SMALL), threads_for(SMALL):
            assert (torch.get_num_threads(), cv2.getNumThreads()) == (1, 1)
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (2, 2)
        with threads_for(SimpleNamespace(xmem=object())):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def test_the_environment_limits_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert 1 <= cores() <= (os.cpu_count() or 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert cores() == passes_at_once(SMALL) == 1


def test_only_small_on_a_processor_runs_passes_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imos.propagation.cores.cores", lambda: 64)
    assert passes_at_once(SMALL) == 8
    assert passes_at_once(SimpleNamespace(xmem=None, device=torch.device("cuda"))) == 1
    assert passes_at_once(SimpleNamespace(xmem=object(), device=torch.device("cpu"))) == 1


def test_side_by_side_the_result_is_the_same(image: Image, truth: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = imos.load()
    results = []
    for at_once in (1, 3):
        monkeypatch.setattr("imos.propagation.session.passes_at_once", lambda _, number=at_once: number)
        session = imos.Session(model, image)
        session.paint(plane="axial", index=11, labels=truth[:, :, 11])
        seen: list[Any] = []
        results.append(session.propagate(on_progress=seen.append))
        assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)
        assert seen[-1].done == seen[-1].total == 46
    assert np.array_equal(results[0].labels, results[1].labels)
    assert results[0].confidence == results[1].confidence


def test_cancelling_ends_all_passes(image: Image, truth: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imos.propagation.session.passes_at_once", lambda _: 3)
    session = imos.Session(imos.load(), image)
    session.paint(plane="axial", index=11, labels=truth[:, :, 11])
    answers = iter([False, False, True])
    assert session.propagate(should_stop=lambda: next(answers)).cancelled
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pass")]


def test_a_pass_ends_with_the_step_that_it_is_at_when_a_run_is_cancelled(
    image: Image, truth: Any, new_follower: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes, steps, follow = 2, [], new_follower()
    # A step is done when it is allowed to be: every pass is in the middle of one when the run is cancelled.
    free, waiting, allowed = threading.Condition(), 0, passes

    def may_go() -> bool:
        return allowed > 0

    def track(*arguments: Any) -> Iterator[Any]:
        nonlocal waiting, allowed
        for step in follow(*arguments):
            with free:
                waiting += 1
                free.notify_all()
                assert free.wait_for(may_go, timeout=30)
                allowed, waiting = allowed - 1, waiting - 1
                steps.append(step)
            yield step

    def allow_all() -> None:
        nonlocal allowed
        with free:
            allowed = 1000
            free.notify_all()

    done_before = 0

    def is_cancelled() -> bool:
        nonlocal allowed, done_before
        with free:
            if len(steps) < 6:
                allowed += 1
                free.notify_all()
                return False
            allowed = 0
            assert free.wait_for(lambda: waiting == passes, timeout=30)
            done_before = len(steps)
        # Long after the answer: a pass that has not heard of it by then makes all the steps that are left.
        threading.Timer(0.5, allow_all).start()
        return True

    monkeypatch.setattr("imos.propagation.session.passes_at_once", lambda _: passes)
    monkeypatch.setattr("imos.propagation.session.tracker_for", lambda *_: track)
    session = imos.Session(SimpleNamespace(xmem=None), image)
    session.paint(plane="axial", index=11, labels=truth[:, :, 11])
    assert session.propagate(should_stop=is_cancelled).cancelled
    assert 6 <= done_before < 20, "of 46"
    assert len(steps) == done_before + passes
