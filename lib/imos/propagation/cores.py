"""Cores: how passes share the processor.

A step of `small` is many small operations. Threads inside them gain nothing, and on a machine that does other things
as well, OpenMP threads that wait for each other in busy loops made it ten times slower: 100 slices took 60 s with two
threads, 7 s with one. So each pass has one thread, and several passes run side by side. `xmem` is few large operations:
one pass at a time, with PyTorch's own threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from imos.propagation.model import Model

MOST_PASSES = 8
"""Passes side by side at most; a machine with more cores does not feel slower with eight."""

Job = TypeVar("Job")
Step = TypeVar("Step")


def cores() -> int:
    """Physical cores that this process may use; `OMP_NUM_THREADS` limits them as it limits other programs."""
    import psutil

    count = min(psutil.cpu_count(logical=False) or 1, len(os.sched_getaffinity(0)))
    wish = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return max(1, min(count, int(wish))) if wish.isdigit() else max(1, count)


def passes_at_once(model: Model) -> int:
    """How many passes to run side by side."""
    on_cpu_alone = model.xmem is None and model.device.type == "cpu"
    return min(cores(), MOST_PASSES) if on_cpu_alone else 1


class _Limit:
    """How many now need one thread an operation, and what to go back to when none does."""

    lock = threading.Lock()
    users = 0
    before = (1, 1)


@contextmanager
def threads_for(model: Model) -> Iterator[None]:
    """Gives every operation of PyTorch and OpenCV one thread while `small` runs; what was set before comes back."""
    if model.xmem is not None:
        yield
        return
    import cv2
    import torch

    with _Limit.lock:
        if not _Limit.users:
            _Limit.before = torch.get_num_threads(), cv2.getNumThreads()
            torch.set_num_threads(1)
            cv2.setNumThreads(1)
        _Limit.users += 1
    try:
        yield
    finally:
        with _Limit.lock:
            _Limit.users -= 1
            if not _Limit.users:
                torch.set_num_threads(_Limit.before[0])
                cv2.setNumThreads(_Limit.before[1])


def side_by_side(
    jobs: Sequence[Job], steps_of: Callable[[Job], Iterable[Step]], at_once: int
) -> Generator[tuple[Job, Step | None]]:
    """Runs jobs in threads and brings what they make, step by step, to the one who asks.

    Closing the iterator (or an error on either side) ends the jobs after their present step.

    Args:
        jobs: What to do.
        steps_of: Does one job; called in other threads if `at_once` is more than 1.
        at_once: Jobs at a time.

    Yields:
        A job and its next step, the steps of a job in order; a job and None when it is done.
    """
    if at_once <= 1 or len(jobs) <= 1:
        for job in jobs:
            for step in steps_of(job):
                yield job, step
            yield job, None
        return
    made: SimpleQueue[tuple[Job, Step | None] | BaseException] = SimpleQueue()
    leave = threading.Event()

    def work(job: Job) -> None:
        try:
            for step in steps_of(job):
                if leave.is_set():
                    return
                made.put((job, step))
            made.put((job, None))
        except BaseException as error:  # raised again where the steps are asked for
            made.put(error)

    with ThreadPoolExecutor(at_once, thread_name_prefix="pass") as pool:
        try:
            for job in jobs:
                pool.submit(work, job)
            running = len(jobs)
            while running:
                item = made.get()
                if isinstance(item, BaseException):
                    raise item
                running -= item[1] is None
                yield item
        finally:
            leave.set()
            pool.shutdown(wait=True, cancel_futures=True)
