"""`python main.py batch`: propagate thousands of studies from a list; a run that was ended goes on where it was."""

from __future__ import annotations

import argparse
import fcntl
import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TextIO

from imos.arguments import positive
from imos.batch.cluster import size_of_cluster, work, workers
from imos.batch.manifest import COLUMNS, Study, read_manifest
from imos.batch.records import FOLDER, Records, checksum
from imos.batch.study import DONE, FAILED, KEPT, Job, Outcome
from imos.errors import UserError
from imos.imaging.writing import replacing

TABLE = "batch.tsv"
_TABLE_INTERVAL = 30.0
"""Seconds between two states of the table while a run goes on."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `batch`."""
    add = parser.add_argument
    add(
        "manifest",
        type=Path,
        metavar="LIST",
        help=f".csv or .tsv with the columns {', '.join(COLUMNS)}; two are needed",
    )
    add("-o", "--output", type=Path, required=True, metavar="DIR", help="folder for label maps, records and batch.tsv")
    add("--workers", type=positive, metavar="N", help="studies at a time on this machine (default: its cores)")
    add("--address", metavar="A", help="use the Ray cluster there: auto, or HOST:PORT of its head")
    add("--weights", metavar="F", help="weights: .safetensors, or a checkpoint of XMem or iMOS; default: those shipped")
    add("--adapter", metavar="F", help="adapter weights fine-tuned for one structure (.safetensors)")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: one GPU a worker (default: %(default)s)")
    add("--store", action="store_true", help="also store the segmentation in the archive that a series came from")


def run(args: argparse.Namespace) -> int:
    """Do what the list says; 2 where a study failed."""
    if args.workers is not None and args.address is not None:
        raise UserError("--workers starts workers here, --address names those of a cluster. Leave one of them out.")
    studies = read_manifest(args.manifest)
    for option, path in (("--weights", args.weights), ("--adapter", args.adapter)):
        if path is not None and not Path(path).is_file():
            raise UserError(f"{option}: there is no file {path}.")
    try:
        args.output.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {args.output}: {error.strerror}. Name another one.") from error
    output = args.output.absolute()
    if output.resolve() in {Path(study.image).resolve().parent for study in studies}:
        raise UserError(f"{args.output} holds images of the list. Label maps go to a folder of their own.")
    job = Job(output, _absolute(args.weights), _absolute(args.adapter), _digest(args), args.device, args.store)
    with _alone(output), _clean(Records(output)):
        from imos.propagation.cores import cores

        with workers(args.workers or cores(), args.address):
            at_once = size_of_cluster() if args.address else args.workers or cores()
            outcomes = _work_through(studies, job, at_once)
    return _conclude(outcomes, output / TABLE)


def _work_through(studies: Sequence[Study], job: Job, at_once: int) -> list[Outcome]:
    """All outcomes, in the order of the list; the table says so far what is known."""
    outcomes: dict[str, Outcome] = {}
    line = _Line(sys.stderr, len(studies))
    written = monotonic()

    def in_order() -> list[Outcome]:
        return [outcomes[study.id] for study in studies if study.id in outcomes]

    try:
        for outcome in work(studies, job, at_once):
            outcomes[outcome.id] = outcome
            line.show(outcome)
            if monotonic() - written > _TABLE_INTERVAL:
                _write_table(job.output / TABLE, in_order())
                written = monotonic()
    finally:
        line.clear()
        _write_table(job.output / TABLE, in_order())
    return in_order()


def _conclude(outcomes: Sequence[Outcome], table: Path) -> int:
    failed = [outcome for outcome in outcomes if outcome.state == FAILED]
    done, kept = (sum(outcome.state == state for outcome in outcomes) for state in (DONE, KEPT))
    print(f"{done} done, {kept} done before, {len(failed)} failed: {table}")
    for outcome in failed[:3]:
        print(f"{outcome.id}: {outcome.message}", file=sys.stderr)
    if len(failed) > 3:
        print(f"… and {len(failed) - 3} more; {table.name} has all", file=sys.stderr)
    return 2 if failed else 0


def _write_table(path: Path, outcomes: Sequence[Outcome]) -> None:
    lines = ["id\tstate\tseconds\tslices\tobjects\tconfidence\tmessage"]
    for each in outcomes:
        confidence = "" if math.isnan(each.confidence) else f"{each.confidence:.3f}"
        numbers = f"{each.seconds:.2f}\t{each.slices}\t{each.objects}\t{confidence}"
        lines.append(f"{each.id}\t{each.state}\t{numbers}\t{each.message}")
    with replacing(path) as beside:
        beside.write_text("\n".join(lines) + "\n", "utf-8")


def _digest(args: argparse.Namespace) -> str:
    from imos.propagation.model import BUNDLED

    weights = checksum(Path(args.weights) if args.weights else BUNDLED)
    return weights + (checksum(Path(args.adapter)) if args.adapter else "")


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(Path(path).absolute())


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Nobody else works on this folder."""
    folder = output / FOLDER
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"another run works on {output}. Wait for it, or name another folder.") from error
        yield


@contextmanager
def _clean(records: Records) -> Iterator[None]:
    """What killed workers left half-written is taken away, before and after."""
    shutil.rmtree(records.partial, ignore_errors=True)
    records.prepare()
    try:
        yield
    finally:
        shutil.rmtree(records.partial, ignore_errors=True)


class _Line:
    """How far a run is: one line on a terminal, elsewhere a line every ten seconds."""

    LOG_INTERVAL = 10.0

    def __init__(self, stream: TextIO, total: int) -> None:
        self._stream, self._total = stream, total
        self._terminal = stream.isatty()
        self._began = self._shown = monotonic()
        self._done = self._failed = self._made = 0

    def show(self, outcome: Outcome) -> None:
        """Count one."""
        self._done += 1
        self._failed += outcome.state == FAILED
        self._made += outcome.state != KEPT
        now = monotonic()
        if now - self._shown < (0.0 if self._terminal else self.LOG_INTERVAL):
            return
        self._shown = now
        rate = self._made / (now - self._began)
        left = f", {(self._total - self._done) / rate / 60:.0f} min left" if rate else ""
        text = f"{self._done}/{self._total} studies, {self._failed} failed, {rate:.2f} studies/s{left}"
        self._stream.write(f"\r\x1b[K{text}" if self._terminal else f"{text}\n")
        self._stream.flush()

    def clear(self) -> None:
        """The summary says the rest."""
        if self._terminal:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
