"""Studies side by side in Ray's workers, on this machine or a cluster (docs/scale.md)."""

from __future__ import annotations

import os
import socket
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from imos.batch.manifest import Study
from imos.batch.study import FAILED, Job, Outcome, work_on
from imos.errors import UserError

TRIES = 3
"""How often a study is begun when the worker that has it dies; the machine may be to blame, or the study."""
_AHEAD = 2
"""Studies handed out for each worker: one that it works on, one that waits."""
_STORE = 80 * 1024 * 1024
"""Bytes of Ray's object store: what is passed are names."""


@contextmanager
def workers(count: int, address: str | None) -> Iterator[None]:
    """Ray with workers: started here and ended with the block, or a cluster that is there.

    Args:
        count: Workers on this machine; each computes with one core.
        address: Of a cluster (`auto`, or HOST:PORT of its head); None to start workers here.

    Raises:
        UserError: Ray is not installed, or there is no cluster at the address.
    """
    # Before the import: Ray reports its use to the web unless told not to.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray's way from the next version on: without it Ray warns, in the middle of our output, that it hides GPUs.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise UserError("batch needs Ray: pip install ray") from error
    if address not in (None, "auto"):
        _check_listens(str(address))
    # Workers started here inherit the environment; those of a cluster have iMOS installed.
    library = str(Path(__file__).resolve().parents[2])
    os.environ["PYTHONPATH"] = os.pathsep.join([library, *filter(None, [os.environ.get("PYTHONPATH")])])
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False, "configure_logging": False}
    try:
        if address is None:
            ray.init(num_cpus=count, include_dashboard=False, object_store_memory=_STORE, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, ValueError) as error:
        raise UserError(f"there is no Ray cluster at {address}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_listens(address: str) -> None:
    """Ray itself would try for ten minutes and more."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=5):
            pass
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(f"there is no Ray cluster at {address}: write HOST:PORT of its head, or auto.") from error


def work(studies: Iterable[Study], job: Job, at_once: int) -> Generator[Outcome]:
    """Do all studies; outcomes come as they are ready.

    A study whose worker dies is begun again, `TRIES` times in all. Closing the iterator ends what runs.

    Args:
        studies: What to do.
        job: How.
        at_once: Workers.
    """
    import ray

    gpus = 1 if job.device == "cuda" else 0
    task = ray.remote(work_on).options(num_cpus=1, num_gpus=gpus, max_retries=TRIES - 1)
    rest = iter(studies)
    running: dict[Any, Study] = {}
    while True:
        for study in islice(rest, _AHEAD * at_once - len(running)):
            running[task.remote(study, job)] = study
        if not running:
            return
        ready, _ = ray.wait(list(running))
        for reference in ready:
            yield _outcome(reference, running.pop(reference))


def _outcome(reference: Any, study: Study) -> Outcome:
    import ray
    from ray.exceptions import RayError

    try:
        outcome: Outcome = ray.get(reference)
    except RayError as error:
        why = "out of memory" if "OutOfMemory" in type(error).__name__ else "its worker died"
        return Outcome(study.id, FAILED, message=f"{why}, {TRIES} times: {type(error).__name__}")
    return outcome


def size_of_cluster() -> int:
    """Cores of the cluster that `workers` joined."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))
