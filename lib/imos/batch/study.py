"""One study: read, propagate, write, note. Runs in a worker."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any

from imos.batch.archive import fetch_series, is_address, store
from imos.batch.manifest import Study
from imos.batch.records import Found, Record, Records, asked_for, checksum
from imos.errors import UserError

if TYPE_CHECKING:
    from imos.imaging import Image
    from imos.propagation.model import Model

DONE, KEPT, FAILED = "done", "kept", "failed"


@dataclass(frozen=True, slots=True)
class Job:
    """What is the same for all studies of a run.

    Attributes:
        output: Folder that all workers can write to.
        weights: File; None for those shipped.
        adapter: File, or None.
        digest: Of weights and adapter.
        device: `auto`, `cpu` or `cuda`.
        storing: Whether segmentations of an archive's series are stored there.
    """

    output: Path
    weights: str | None
    adapter: str | None
    digest: str
    device: str
    storing: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a study.

    Attributes:
        id: The study's.
        state: `done`, `kept` (done by an earlier run) or `failed`.
        seconds: It took, reading and writing included.
        slices: That were propagated to.
        objects: Painted ones.
        confidence: Mean over all slices sought; not a number where nothing was.
        message: Why it failed.
    """

    id: str
    state: str
    seconds: float = 0.0
    slices: int = 0
    objects: int = 0
    confidence: float = float("nan")
    message: str = ""


def work_on(study: Study, job: Job) -> Outcome:
    """Do what is left to do of one study; never raises what the study is to blame for."""
    started = perf_counter()
    try:
        return _work_on(study, job, started)
    except UserError as error:
        message = str(error)
    except MemoryError:
        message = "out of memory; propagate fewer slices (first, last), or let fewer workers run"
    except Exception as error:  # one broken study of thousands must not end the run
        message = f"unexpected {type(error).__name__}: {error}"
    return Outcome(study.id, FAILED, perf_counter() - started, message=" ".join(message.split()))


def _work_on(study: Study, job: Job, started: float) -> Outcome:
    records = Records(job.output)
    asked = asked_for(study, job.digest)
    storing = job.storing and is_address(study.image)
    found = records.found(study, asked, storing=storing)
    state = KEPT
    if found is Found.NOTHING:
        _propagate(study, job, records, asked)
        state = DONE
    record = records.read(study.id)
    if record is None:
        raise UserError(f"the record of {study.id} is gone. Does another run use the same folder?")
    if storing and not record.stored:
        store(job.output / study.output, study.image)
        records.write(replace(record, stored=True))
        state = DONE
    return _outcome(record, state, perf_counter() - started)


def _propagate(study: Study, job: Job, records: Records, asked: str) -> None:
    from imos.imaging import check_writable, read_image, read_label_map, write_label_map
    from imos.propagation.report import make_report
    from imos.propagation.session import Session

    started = perf_counter()
    with ExitStack() as stack:
        image = read_image(_local(study.image, stack), time=study.time)
        partial = records.partial / f"{secrets.token_hex(4)}.{study.output}"
        check_writable(partial, image)
        painted = read_label_map(_local(study.prompt, stack), image)
        if not painted.any():
            raise UserError(f"{study.prompt} has no painted voxel. Paint at least one slice.")
        model = _model(job.weights, job.adapter, job.device, _is_video(image), image.is_rgb)
        session = Session(model, image, first=study.first, last=study.last)
        session.paint_volume(painted, plane=study.plane)
        loaded = perf_counter() - started
        result = session.propagate()
        output = job.output / study.output
        try:
            write_label_map(partial, result.labels, image)
            if output.exists():  # since we looked
                raise UserError(f"{output.name} has appeared meanwhile and was left alone. Move it away.")
            report = asdict(make_report(result, model, load_seconds=loaded))
            records.write(Record(study.id, asked, study.output, checksum(partial), report=report))
            os.replace(partial, output)
        finally:
            if partial.is_dir():
                shutil.rmtree(partial)
            else:
                partial.unlink(missing_ok=True)


def _local(place: str, stack: ExitStack) -> Path:
    if not is_address(place):
        return Path(place)
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="imos-")))
    fetch_series(place, folder)
    return folder


def _is_video(image: Image) -> bool:
    from imos.imaging import ImageKind

    return image.kind is ImageKind.VIDEO


@lru_cache(maxsize=4)
def _model(weights: str | None, adapter: str | None, device: str, is_video: bool, has_colour: bool) -> Model:
    from imos.propagation.model import load

    model = load(weights, adapter=adapter, device=device)
    model.prepare(is_video=is_video, has_colour=has_colour)
    return model


def _outcome(record: Record, state: str, seconds: float) -> Outcome:
    objects: list[dict[str, Any]] = record.report.get("objects", [])
    confidence = [float(value) for each in objects for value in each["confidence"].values()]
    mean = sum(confidence) / len(confidence) if confidence else float("nan")
    slices = max((len(each["confidence"]) for each in objects), default=0)
    return Outcome(record.id, state, seconds, slices, len(objects), mean)
