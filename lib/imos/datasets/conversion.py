"""From a published data set to a collection: case by case, in several processes, taken up where it was.

A volume is written as NIfTI with the geometry and values of its source; what a network sees is chosen when it is read.
Frames are written as PNG, so that nothing is lost.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imos.datasets.manifest import (
    Header,
    Record,
    begin,
    finish,
    hashes,
    note,
    remove_files,
    remove_partial_files,
    still_holds,
)
from imos.datasets.published import LARGEST_LABEL, DataSet, LabelledImage, PublishedCase
from imos.datasets.splits import SEED, Split, split_of
from imos.errors import UserError
from imos.imaging.image import ImageKind
from imos.imaging.nifti import write_nifti
from imos.imaging.writing import replacing

_COMPRESSION = 3
"""PNG: hardly larger than with 6, and written three times as fast."""


@dataclass(frozen=True, slots=True)
class Progress:
    """One case is done.

    Attributes:
        done: Cases so far.
        total: Cases of this run.
        case: Its name.
        is_new: Whether there was anything to do.
    """

    done: int
    total: int
    case: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class Job:
    """What a process needs to know for one case.

    Attributes:
        data_set: Name of the data set.
        case: What to convert.
        source: Folder of the data set.
        target: Folder of the collection.
        split: What the case is for.
        before: What an earlier run made of it.
    """

    data_set: str
    case: PublishedCase
    source: Path
    target: Path
    split: Split
    before: Record | None


def data_set_of(name: str) -> DataSet:
    """The data set of a name of the command line."""
    found: DataSet = import_module(f"imos.datasets.{name}").DATA_SET
    return found


def prepare(
    name: str,
    source: Path,
    target: Path,
    *,
    limit: int | None = None,
    workers: int = 1,
    seed: int = SEED,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> list[Record]:
    """Make a collection of a data set, or go on with one.

    Args:
        name: `amos22`, `camus`, `cholecseg8k` or `epfl`.
        source: Folder that the data set was unpacked to.
        target: Folder of the collection; made if it is not there.
        limit: Only so many cases, the first that are listed. Those of an earlier run stay.
        workers: Processes.
        seed: Of the division into splits.
        on_progress: Called for every case as it is finished, in no order.

    Returns:
        Records of all cases of the collection.

    Raises:
        UserError: Source or target cannot be used, a file is broken, or the disk is full. Cases that were finished
            stay, and the next run goes on from there.
    """
    source, target = source.resolve(), target.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise UserError(f"{target} and the data set {source} overlap. Name a folder outside of the data set.")
    data_set = data_set_of(name)
    listing = data_set.find(source)
    header = Header(name, seed)
    records = begin(target, header)
    listed = {case.name for case in listing.cases}
    for gone in records.keys() - listed:
        remove_files(target, records.pop(gone))
    jobs = [
        Job(name, case, source, target, case.split or split_of(case.patient, seed), records.get(case.name))
        for case in listing.cases[:limit]
    ]
    try:
        with closing(_run(jobs, workers)) as results:
            for done, (record, is_new) in enumerate(results, 1):
                if is_new:
                    note(target, record)
                records[record.case] = record
                on_progress(Progress(done, len(jobs), record.case, is_new))
    finally:
        remove_partial_files(target)
    ordered = [records[case.name] for case in listing.cases if case.name in records]
    finish(target, header, ordered, hashes(listing.files, source))
    return ordered


def convert(job: Job) -> tuple[Record, bool]:
    """Write one case, unless an earlier run did and nothing changed since.

    Returns:
        Its record, and whether it was written now.

    Raises:
        UserError: A file is broken, image and labels do not fit, or the collection cannot be written.
    """
    case, before = job.case, job.before
    sources = hashes(case.sources, job.source)
    if before is not None:
        if before.sources == sources and still_holds(job.target, before.written):
            return before, False
        remove_files(job.target, before)
    data_set = data_set_of(job.data_set)
    found = data_set.read(case)
    if found.image.kind is ImageKind.VIDEO:
        table, paths = "frames", _write_frames(job, found)
        row = _row_of_frames(job, data_set, found)
    else:
        table, paths = "volumes", _write_volume(job, found)
        row = _row_of_volume(job, data_set, found, sum(path.stat().st_size for path in paths))
    sequences = _sequences(job, found)
    record = Record(
        case=case.name,
        patient=case.patient,
        split=job.split,
        table=table,
        row=row,
        sequences=sequences,
        sources=sources,
        written=hashes(paths, job.target),
    )
    return record, True


# ---- files -------------------------------------------------------------------------------------------------------


def _write_volume(job: Job, found: LabelledImage) -> list[Path]:
    folder = job.target / job.split / job.data_set
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{job.case.name}.nii.gz", folder / f"{job.case.name}.seg.nii.gz"]
    for path, array in zip(paths, (found.image.voxels, found.labels), strict=True):
        with replacing(path) as temporary:
            write_nifti(temporary, array, found.image)
    return paths


def _write_frames(job: Job, found: LabelledImage) -> list[Path]:
    folder = job.target / job.split / "frames" / job.data_set / job.case.name
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():  # a run was killed between this folder and its line in the journal
        shutil.rmtree(folder)
    parts = {"images": found.image.voxels, "masks": found.labels}
    with replacing(folder) as temporary:
        for part, array in parts.items():
            (temporary / part).mkdir(parents=True)
            for number in range(array.shape[2]):
                _write_picture(temporary / part / _picture_name(number), array[:, :, number])
    return [folder / part / _picture_name(number) for part in parts for number in range(found.labels.shape[2])]


def _picture_name(number: int) -> str:
    return f"{number:05}.png"


def _write_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    from PIL import Image as Pillow

    with path.open("wb") as file:
        Pillow.fromarray(np.ascontiguousarray(pixels)).save(file, format="PNG", compress_level=_COMPRESSION)
        file.flush()
        os.fsync(file.fileno())


# ---- rows of the tables ------------------------------------------------------------------------------------------


def _row_of_volume(job: Job, data_set: DataSet, found: LabelledImage, size: int) -> dict[str, str]:
    from nibabel.orientations import aff2axcodes

    image, case = found.image, job.case
    return {
        "split": job.split,
        "set": job.data_set,
        "case": case.name,
        "file": f"{job.split}/{job.data_set}/{case.name}.nii.gz",
        "modality": case.modality,
        "body_part": data_set.body_part,
        "licence": data_set.licence,
        "licence_read_at": data_set.licence_read_at,
        "source_repo": data_set.source,
        "shape": "x".join(str(side) for side in image.shape),
        "spacing_mm": "x".join(f"{side:.4g}" for side in image.spacing),
        "orientation": "".join(aff2axcodes(image.affine)),
        "slice_axis": str(found.axis),
        "labels": json.dumps({str(label): found.names[label] for label in _labels(found)}),
        "label_origin": data_set.label_origin,
        "preprocessing": found.preprocessing,
        "kib": str(round(size / 1024)),
    }


def _row_of_frames(job: Job, data_set: DataSet, found: LabelledImage) -> dict[str, str]:
    frames = str(found.labels.shape[2])
    return {
        "split": job.split,
        "set": job.data_set,
        "sequence": job.case.name,
        "modality": job.case.modality,
        "frames": frames,
        "labelled_frames": frames,
        "labels": ";".join(f"{label}={found.names[label]}" for label in _labels(found)),
        "licence": f"{data_set.licence} ({data_set.licence_read_at})",
        "source": f"{data_set.source} {job.case.name}",
        "preprocessing": found.preprocessing,
    }


def _sequences(job: Job, found: LabelledImage) -> list[dict[str, str]]:
    """One row a label: the slices from the first to the last that shows it, and the one that shows most of it."""
    rows: list[dict[str, str]] = []
    slices = np.moveaxis(found.labels, found.axis, 0)
    areas = np.stack([np.bincount(plane.ravel(), minlength=LARGEST_LABEL + 1) for plane in slices])
    for label in _labels(found):
        shown = np.flatnonzero(areas[:, label])
        rows.append(
            {
                "split": job.split,
                "set": job.data_set,
                "case": job.case.name,
                "patient": job.case.patient,
                "label": str(label),
                "name": found.names[label],
                "first": str(shown[0]),
                "last": str(shown[-1]),
                "largest": str(areas[:, label].argmax()),
                "slices": str(shown.size),
                "pixels": str(areas[:, label].max()),
            }
        )
    return rows


def _labels(found: LabelledImage) -> list[int]:
    """Labels that occur."""
    present = np.flatnonzero(np.bincount(found.labels.ravel(), minlength=LARGEST_LABEL + 1))
    return [int(label) for label in present if label]


# ---- processes ---------------------------------------------------------------------------------------------------


def _run(jobs: Sequence[Job], workers: int) -> Generator[tuple[Record, bool], None, None]:
    """Convert, in several processes when asked for; a failure comes after what the others still finished."""
    if workers == 1 or len(jobs) < 2:
        yield from map(convert, jobs)
        return
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # the processes share the cores: one thread each
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), context, _start_worker) as pool:
        waiting = [pool.submit(convert, job) for job in jobs]
        failure: Exception | None = None
        try:
            for future in as_completed(waiting):
                if future.cancelled():
                    continue
                error = future.exception()
                if error is None:
                    yield future.result()
                elif failure is None:
                    failure = _failure(error)
                    _cancel(waiting)
        except BaseException:
            _cancel(waiting)
            raise
    if failure is not None:
        raise failure


def _cancel(futures: Sequence[Future[Any]]) -> None:
    for future in futures:
        future.cancel()


def _failure(error: BaseException) -> Exception:
    if isinstance(error, BrokenProcessPool):
        return UserError("a process was ended from outside, perhaps for want of memory. Run it again with --workers 1.")
    return error if isinstance(error, Exception) else RuntimeError(str(error))


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches all processes; the parent alone has something to say
    parent = multiprocessing.parent_process()
    if parent is not None:  # when the parent is killed, nobody else would end this process
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
