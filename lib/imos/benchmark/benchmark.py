"""`python main.py benchmark`: time and memory of propagation on this machine, against what the product promises."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from imos.arguments import numbers, positive
from imos.benchmark.cases import make_case
from imos.benchmark.goals import Goal, growth, linearity
from imos.benchmark.measure import Measured, Task, measure_apart
from imos.benchmark.roofline import Roofline, roofline
from imos.benchmark.start import process_start
from imos.benchmark.table import show, write_plot, write_table
from imos.errors import UserError

SIDES, SLICES, OBJECTS = (256, 512), (50, 100, 200, 500, 1000), (1, 4, 8, 16)
FULL_SIDE, HALF_SIDE, USUAL_SLICES = 512, 256, 100
QUICK_SLICES = (50, 100, 200)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `benchmark`."""
    add = parser.add_argument
    add("--quick", action="store_true", help="only what the goals need, in less than three minutes")
    add("--sides", type=numbers, default=SIDES, metavar="N,…", help="pixels of a slice's sides (256,512)")
    add("--slices", type=numbers, default=SLICES, metavar="N,…", help="slices of a volume (50,100,200,500,1000)")
    add("--objects", type=numbers, default=OBJECTS, metavar="N,…", help="objects (1,4,8,16)")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where to compute (default: %(default)s)")
    add("--repeats", type=positive, default=3, metavar="N", help="runs of each goal; the median counts (%(default)s)")
    add("-o", "--output", type=Path, metavar="DIR", help="write benchmark.tsv and benchmark.png there")
    add("--reference", type=Path, metavar="PATH", help="a checkout of XMem: time `xmem` against it, in turns")


def run(args: argparse.Namespace) -> int:
    """Measure, print, write."""
    if min(args.slices) < 2:
        raise UserError("--slices 1: there is nothing to propagate to. Give 2 or more.")
    if args.output is not None and not args.output.is_dir():
        raise UserError(f"{args.output} is not a folder. Create it first.")
    if args.reference is not None:
        from imos.benchmark.reference import compare

        for line in compare(args.reference, args.repeats, quick=args.quick):
            print(line, flush=True)
        return 0
    import imos

    _check_device(args.device)
    table: list[Measured] = []
    goals = _goals(args.device, args.repeats, table)
    for side, slices, objects in [] if args.quick else _grid(args.sides, args.slices, args.objects):
        task = Task(side, slices, objects, args.device)
        if all(replace(one.task, corrects=False) != task for one in table):
            table.append(_measure(task))
    print()
    print(show(table))
    print()
    for goal in goals:
        print(goal)
    print()
    print(_limits(roofline(imos.load(device="cpu"))))
    ours = next(one for one in table if one.task.side == FULL_SIDE and one.task.objects == 1)
    flow = f"Optical flow of whole slices of {FULL_SIDE}² alone: {1e3 * _flow_seconds():.0f} ms a slice;"
    print(f"{flow} propagation of one object: {1e3 * ours.per_slice:.0f} ms.")
    if args.output is not None:
        write_table(args.output / "benchmark.tsv", table)
        write_plot(args.output / "benchmark.png", table)
    return 0


def _goals(device: str, repeats: int, table: list[Measured]) -> list[Goal]:
    one = [_measure(Task(FULL_SIDE, USUAL_SLICES, 1, device, corrects=True)) for _ in range(repeats)]
    eight = [_measure(Task(FULL_SIDE, USUAL_SLICES, 8, device)) for _ in range(repeats)]
    lengths = [_measure(Task(HALF_SIDE, slices, 1, device)) for slices in QUICK_SLICES]
    table += [_middle(one), _middle(eight), *lengths]
    starts = process_start(repeats)
    corrections = [seconds for each in one for seconds in each.corrections]
    return [
        Goal(f"{USUAL_SLICES} slices of {FULL_SIDE}², one object, after loading", 3.0, _middle(one).all),
        Goal(f"{USUAL_SLICES} slices of {FULL_SIDE}², eight objects", 8.0, _middle(eight).all),
        Goal("once more after a correction between two prompts, median", 0.5, median(corrections)),
        Goal("first slice", 0.3, median(each.first for each in one)),
        Goal("a warm process of `propagate`, beside the propagation", 2.0, median(starts)),
        Goal("time over slices, R² of a line", 0.98, linearity(QUICK_SLICES, [each.all for each in lengths]), "", True),
        Goal("eight objects over eight times one", 1.0, growth(_middle(one), _middle(eight)), ""),
    ]


def _limits(limit: Roofline) -> str:
    asked = f"{limit.operations / 1e9:.2f} GFLOP, {limit.bytes / 1e6:.1f} MB of weights and maps"
    machine = f"{limit.rate / 1e9:.0f} GFLOP/s, {limit.bandwidth / 1e9:.1f} GB/s"
    times = f"at least {1e3 * limit.bound:.1f} ms, measured {1e3 * limit.seconds:.1f} ms"
    return f"The networks' part of a step: {asked}. One core: {machine}; so {times}."


def _middle(runs: Sequence[Measured]) -> Measured:
    return sorted(runs, key=lambda each: each.all)[len(runs) // 2]


def _measure(task: Task) -> Measured:
    print(f"{task.side}² × {task.slices}, {task.objects} object(s) …", end=" ", file=sys.stderr, flush=True)
    found = measure_apart(task)
    print(f"{found.all:.2f} s", file=sys.stderr, flush=True)
    return found


def _grid(sides: Sequence[int], slices: Sequence[int], objects: Sequence[int]) -> list[tuple[int, int, int]]:
    """All lengths with one object, all numbers of objects at the usual length."""
    lengths = [(side, count, 1) for side in sides for count in slices]
    return lengths + [(side, USUAL_SLICES, count) for side in sides for count in objects]


def _flow_seconds() -> float:
    from time import perf_counter

    from imos.evaluation.baselines import flow

    case = make_case(FULL_SIDE, 8, 1)
    slices = (case.voxels // 4).clip(0, 255).astype("uint8")
    started = perf_counter()
    steps = sum(1 for _ in flow(slices, case.labels[0] > 0, 0))
    return (perf_counter() - started) / steps


def _check_device(device: str) -> None:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("There is no CUDA GPU that this PyTorch can use. Leave --device out.")
