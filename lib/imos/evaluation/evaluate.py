"""`python main.py evaluate`: how good the weights are on a labelled collection, beside the baselines.

The tables go to standard output, progress to standard error; rows, plots and the report to files where asked for.
"""

from __future__ import annotations

import argparse
import os
import sys
from difflib import get_close_matches
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from imos.arguments import names
from imos.errors import UserError

if TYPE_CHECKING:
    from imos.datasets.categories import Categories
    from imos.datasets.collection import Case
    from imos.evaluation.experiment import Experiment, Findings

# Nothing heavy is imported here: `--help` answers without numpy. A test holds these names against the enums.
BASELINES = ("floor", "flow", "copy", "walker")
ANNOTATED = ("itk", "walker")
METHODS = tuple(dict.fromkeys((*BASELINES, *ANNOTATED)))
PROTOCOLS = ("largest", "first", "both")
FILES = ("output", "slices", "effort", "causes", "html")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `evaluate`."""
    add = parser.add_argument
    add("data", metavar="DATA", type=Path, help="folder of a collection with volumes.tsv and frames.tsv")
    add("--split", default="val", help="which rows of the tables (default: %(default)s)")
    add("--protocol", choices=PROTOCOLS, default="largest", help="which slice is painted (default: %(default)s)")
    add("--weights", metavar="F", help="weights: .safetensors, or a checkpoint of XMem or iMOS; default: those shipped")
    add("--adapter", metavar="F", help="adapter weights (.safetensors)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes a GPU where there is one")
    add(
        "--compare",
        type=_methods,
        metavar="M,…",
        help=f"methods beside: {', '.join(BASELINES)}; with --annotate also itk (default: none; with --annotate:"
        f" {','.join(ANNOTATED)} for the annotator)",
    )
    add("--planes", action="store_true", help="judge volumes along their two other axes as well")
    add("--annotate", action="store_true", help="count the slices to paint until an object's Dice is .90 and .95")
    add("--sets", type=names, default=(), metavar="S,…", help="only these data sets")
    add("--workers", type=_count, default=os.cpu_count() or 1, metavar="N", help="processes (default: %(default)s)")
    add("-o", "--output", type=Path, metavar="F.tsv", help="write one row a sequence and method")
    add("--slices", type=Path, metavar="F.tsv", help="write one row a slice: J, F, confidence")
    add("--effort", type=Path, metavar="F.tsv", help="write one row an annotated object and technique")
    add("--causes", type=Path, metavar="F.md", help="write what goes wrong first, and the worst sequences")
    add("--html", type=Path, metavar="F.html", help="write one file with tables, plots and pictures")
    add("--plots", type=Path, metavar="DIR", help="write the plots as PNG into this folder")


def run(args: argparse.Namespace) -> int:
    """Judge a split and print the tables."""
    _check(args)

    from imos.datasets.categories import read_categories
    from imos.datasets.collection import read_collection
    from imos.evaluation.experiment import Findings, run_cases

    cases = read_collection(args.data, args.split)
    if args.sets:
        known = sorted({case.group for case in cases})
        for name in args.sets:
            if name not in known:
                raise UserError(f"split '{args.split}' has no set {name!r}: {_hint(name, known)}")
        cases = [case for case in cases if case.group in args.sets]
    experiment = _experiment(args)
    started = perf_counter()
    findings = Findings()
    finished = run_cases(cases, experiment, min(args.workers, len(cases)))
    for number, (case, found) in enumerate(finished, 1):
        findings.rows.extend(found.rows)
        findings.efforts.extend(found.efforts)
        elapsed = perf_counter() - started
        left = elapsed / number * (len(cases) - number)
        said = f"{number}/{len(cases)}  {elapsed:.0f} s, about {left:.0f} s left  {case.group}/{case.name}"
        print(said, file=sys.stderr, flush=True)
    if not findings.rows:
        raise UserError("no label is on at least 4 slices and larger than 12 pixels, so there is nothing to judge.")
    _tell(args, cases, findings, read_categories(args.data, args.split))
    return 0


def _experiment(args: argparse.Namespace) -> Experiment:
    from imos.evaluation import interpolation, walker
    from imos.evaluation.annotator import Technique
    from imos.evaluation.experiment import Experiment, Method, WeightsChoice
    from imos.evaluation.sequences import Protocol

    asked = args.compare or ()
    techniques: tuple[Technique, ...] = ()
    if args.annotate:
        beside = ANNOTATED if args.compare is None else [name for name in asked if name in ANNOTATED]
        techniques = (Technique.OURS, Technique.EVEN, *map(Technique, beside))
    methods = (Method.OURS, *(Method(name) for name in asked if name in BASELINES))
    if Technique.ITK in techniques:
        interpolation.check_installed()
    if Technique.WALKER in techniques or Method.WALKER in methods:
        walker.check_installed()
    return Experiment(
        methods,
        tuple(Protocol) if args.protocol == "both" else (Protocol(args.protocol),),
        WeightsChoice(args.weights, args.adapter, args.device),
        planes=args.planes,
        techniques=techniques,
        keeps_found=args.html is not None,
        explains=args.causes is not None,
    )


def _tell(args: argparse.Namespace, cases: list[Case], findings: Findings, categories: Categories) -> None:
    """Print the tables and write what was asked for, each file whole or not at all."""
    from imos.evaluation.efforts import effort_tables, efforts_as_tsv
    from imos.evaluation.tables import as_tsv, slices_as_tsv, tables_of

    tables = tables_of(findings.rows, categories) + effort_tables(findings.efforts)
    print("\n\n".join(table.as_text() for table in tables))
    if args.output is not None:
        _put(args.output, as_tsv(findings.rows))
    if args.slices is not None:
        _put(args.slices, slices_as_tsv(findings.rows))
    if args.effort is not None:
        _put(args.effort, efforts_as_tsv(findings.efforts))
    if args.causes is not None:
        from imos.evaluation.causes import Told, as_markdown

        told = [
            Told(f"{row.group}/{row.case} {row.sequence.label}", row.modality, row.score.j_and_f, row.score.leak, why)
            for row in findings.rows
            if (why := row.explained) is not None
        ]
        _put(args.causes, as_markdown(told))
    if args.html is None and args.plots is None:
        return

    from imos.evaluation.plots import plots_of

    plots = plots_of(findings.rows, findings.efforts)
    if args.plots is not None:
        args.plots.mkdir(exist_ok=True)
        for plot in plots:
            _put(args.plots / f"{plot.name}.png", plot.png)
    if args.html is not None:
        from imos.evaluation.pictures import pictures_of
        from imos.evaluation.report_html import report

        weights = args.weights or "the weights shipped"
        if args.adapter:
            weights += f" with adapter {os.path.basename(args.adapter)}"
        about = (
            f"split {args.split} of {args.data.resolve().name}",
            f"{len(cases)} volumes and videos",
            os.path.basename(weights),
            f"painted slice: {args.protocol}",
        )
        pictures = pictures_of(cases, findings.rows, categories)
        _put(args.html, report("iMOS evaluation", about, tables, plots, pictures))


def _put(path: Path, content: str | bytes) -> None:
    from imos.imaging.writing import replacing

    with replacing(path) as beside:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)


# ---- what was asked for --------------------------------------------------------------------------------------------


def _check(args: argparse.Namespace) -> None:
    """See before hours of work that nothing is missing."""
    for name in ("weights", "adapter"):
        path = getattr(args, name)
        if path is not None and not os.path.isfile(path):
            raise UserError(f"there is no {name} file {path}. Check the path, or leave --{name} out.")
    if not args.data.is_dir():
        raise UserError(f"there is no folder {args.data}. Give the folder of a collection (volumes.tsv, frames.tsv).")
    seen: dict[Path, str] = {}
    for name in (*FILES, "plots"):
        path = getattr(args, name)
        if path is None:
            continue
        option = "-o" if name == "output" else f"--{name}"
        if not path.absolute().parent.is_dir():
            raise UserError(f"cannot write {path}: {path.parent} is not a folder. Create it first.")
        if name == "plots" and path.exists() and not path.is_dir():
            raise UserError(f"--plots {path} is a file, but plots go to a folder. Name another place.")
        if name != "plots" and path.is_dir():
            raise UserError(f"{option} {path} is a folder. Name a file.")
        other = seen.setdefault(path.resolve(), option)
        if other != option:
            raise UserError(f"{option} {path} would overwrite {other}. Choose another name.")
    if not args.annotate:
        if "itk" in (args.compare or ()):
            raise UserError(
                "itk interpolates between painted slices, so one is not enough: ask for it with --annotate, or leave it"
                " out of --compare."
            )
        if args.effort is not None:
            raise UserError("--effort is about the simulated annotator: ask for him with --annotate.")


def _methods(text: str) -> tuple[str, ...]:
    methods = names(text)
    for name in methods:
        if name not in METHODS:
            raise argparse.ArgumentTypeError(f"there is no method {name!r}: {_hint(name, METHODS)}")
    return methods


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
