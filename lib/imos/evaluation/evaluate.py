"""`python main.py evaluate`: how good the weights are on a labelled collection, beside the baselines.

The tables go to standard output, progress to standard error, one row a sequence and method to a TSV file.
"""

from __future__ import annotations

import argparse
import os
import sys
from difflib import get_close_matches
from pathlib import Path
from time import perf_counter

from imos.errors import UserError

# Nothing heavy is imported here: `--help` answers without numpy. A test holds these names against the enums.
BASELINES = ("floor", "flow", "copy")
PROTOCOLS = ("largest", "first", "both")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `evaluate`."""
    add = parser.add_argument
    add("data", metavar="DATA", type=Path, help="folder of a collection with volumes.tsv and frames.tsv")
    add("--split", default="val", help="which rows of the tables (default: %(default)s)")
    add("--protocol", choices=PROTOCOLS, default="largest", help="which slice is painted (default: %(default)s)")
    add("--weights", metavar="F", help="weights: .safetensors, or a checkpoint of XMem or iMOS; default: those shipped")
    add("--adapter", metavar="F", help="adapter weights (.safetensors)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes a GPU where there is one")
    add("--compare", type=_methods, default=(), metavar="M,…", help=f"baselines beside: {', '.join(BASELINES)}")
    add("--sets", type=_names, default=(), metavar="S,…", help="only these data sets")
    add("--workers", type=_count, default=os.cpu_count() or 1, metavar="N", help="processes (default: %(default)s)")
    add("-o", "--output", type=Path, metavar="F.tsv", help="write one row a sequence and method")


def run(args: argparse.Namespace) -> int:
    """Judge a split and print the tables."""
    for name in ("weights", "adapter"):
        path = getattr(args, name)
        if path is not None and not os.path.isfile(path):
            raise UserError(f"there is no {name} file {path}. Check the path, or leave --{name} out.")
    if not args.data.is_dir():
        raise UserError(f"there is no folder {args.data}. Give the folder of a collection (volumes.tsv, frames.tsv).")
    if args.output is not None and not args.output.absolute().parent.is_dir():
        raise UserError(f"cannot write {args.output}: {args.output.parent} is not a folder. Create it first.")

    from imos.datasets.collection import read_collection
    from imos.evaluation.experiment import Experiment, Method, Row, WeightsChoice, run_cases
    from imos.evaluation.sequences import Protocol
    from imos.evaluation.tables import as_text, as_tsv

    cases = read_collection(args.data, args.split)
    if args.sets:
        known = sorted({case.group for case in cases})
        for name in args.sets:
            if name not in known:
                raise UserError(f"split '{args.split}' has no set {name!r}: {_hint(name, known)}")
        cases = [case for case in cases if case.group in args.sets]
    methods = (Method.OURS, *(Method(name) for name in args.compare))
    protocols = tuple(Protocol) if args.protocol == "both" else (Protocol(args.protocol),)
    experiment = Experiment(methods, protocols, WeightsChoice(args.weights, args.adapter, args.device))

    started = perf_counter()
    rows: list[Row] = []
    finished = run_cases(cases, experiment, min(args.workers, len(cases)))
    for number, (case, found) in enumerate(finished, 1):
        rows += found
        elapsed = perf_counter() - started
        left = elapsed / number * (len(cases) - number)
        said = f"{number}/{len(cases)}  {elapsed:.0f} s, about {left:.0f} s left  {case.group}/{case.name}"
        print(said, file=sys.stderr, flush=True)
    if not rows:
        raise UserError("no label is on at least 4 slices and larger than 12 pixels, so there is nothing to judge.")
    if args.output is not None:
        temporary = args.output.with_name(f"{args.output.name}.part")
        try:
            temporary.write_text(as_tsv(rows), encoding="utf-8")
            temporary.replace(args.output)
        finally:
            temporary.unlink(missing_ok=True)
    print(as_text(rows))
    return 0


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise argparse.ArgumentTypeError("names are missing")
    return names


def _methods(text: str) -> tuple[str, ...]:
    names = _names(text)
    for name in names:
        if name not in BASELINES:
            raise argparse.ArgumentTypeError(f"there is no method {name!r}: {_hint(name, BASELINES)}")
    return names


def _hint(name: str, known: list[str] | tuple[str, ...]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}."


def _count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processes")
    return number
