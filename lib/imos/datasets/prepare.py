"""`python main.py prepare`: a public data set, as it is published, becomes a collection.

What `train`, `pack` and `evaluate` read: tables, images and label maps, divided 3:1:1 by patient. Beside them one row a
sequence, and a manifest with the hashes of all files. An interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from imos.datasets.splits import SEED, SHARES
from imos.errors import UserError

if TYPE_CHECKING:
    from imos.datasets.conversion import Progress

# Nothing heavy is imported here: `--help` answers without numpy. A test holds these names against the modules.
DATA_SETS = ("amos22", "camus", "cholecseg8k", "epfl")

_INTERVAL = 1.0
"""Seconds between lines of progress."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `prepare`."""
    add = parser.add_argument
    add("data_set", choices=DATA_SETS, metavar="SET", help=f"the data set: {', '.join(DATA_SETS)}")
    add("source", metavar="SRC", type=Path, help="folder that the data set was unpacked to")
    add("target", metavar="DST", type=Path, help="folder of the collection; a new one, or one to go on with")
    add("--limit", metavar="N", type=_count, help="only the first N cases")
    add("--workers", metavar="N", type=_count, default=os.cpu_count() or 1, help="processes (default: %(default)s)")
    add("--seed", metavar="N", type=int, default=SEED, help="of the division by patient (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Prepare a data set and say what came of it."""
    if not args.source.is_dir():
        what = "is no folder" if args.source.exists() else "is not there"
        raise UserError(f"{args.source} {what}. Unpack the data set, and name the folder it is in.")

    from imos.datasets.conversion import prepare

    records = prepare(
        args.data_set,
        args.source,
        args.target,
        limit=args.limit,
        workers=args.workers,
        seed=args.seed,
        on_progress=_ProgressLines(),
    )
    cases = Counter(record.split for record in records)
    patients = Counter(split for split, _ in {(record.split, record.patient) for record in records})
    sequences = Counter(record.split for record in records for _ in record.sequences)
    print(f"{args.target}: {len(records)} cases, {sequences.total()} sequences")
    for split in SHARES:
        print(f"{split:<5}  {patients[split]:>4} patients  {cases[split]:>4} cases  {sequences[split]:>5} sequences")
    return 0


class _ProgressLines:
    """A line a second at most, and one for the last case."""

    def __init__(self) -> None:
        self._started = perf_counter()
        self._said = 0.0

    def __call__(self, progress: Progress) -> None:
        elapsed = perf_counter() - self._started
        if elapsed - self._said < _INTERVAL and progress.done < progress.total:
            return
        self._said = elapsed
        left = elapsed / progress.done * (progress.total - progress.done)
        known = "" if progress.is_new else " (was there)"
        said = f"{progress.done}/{progress.total}  {elapsed:.0f} s, about {left:.0f} s left  {progress.case}{known}"
        print(said, file=sys.stderr, flush=True)


def _count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return number
