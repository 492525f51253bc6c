"""`python main.py simulate`: what the learning loop gains on a labelled collection, without people.

`gains`: from the base, learn from the first 1 (5, …) volumes of a data set as if somebody had accepted them; judge on
volumes of other patients, of that set and of all others.

`rounds`: one project that accepts volumes of all sets, one a round, with the gate. Some are accepted with wrong labels
on purpose: the objects are moved and mirrored. As on a server, a round learns from everything that the version in use
has not learned from, wrong labels included, until they are accepted again. A frozen set judges every version; the gate
looks at other held-out volumes.

`effort`: slices that a simulated annotator paints, against accepted volumes (effort.py).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np

import imos
from imos.arguments import names, numbers, positive
from imos.datasets.collection import Case, read_collection
from imos.errors import UserError
from imos.imaging.writing import replacing
from imos.learning.effort import effort
from imos.learning.finetuning import Recipe
from imos.learning.judging import measure
from imos.learning.plots import plot
from imos.learning.rounds import Lessons, Round, divided
from imos.learning.volumes import LabelledVolume, VolumeRef
from imos.propagation.model import BUNDLED
from imos.registry.records import BASE
from imos.registry.store import Registry

ROUNDS = 20
OF_FIRST = 3
"""Every third volume of a set's stream judges in `rounds`; the others teach."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `simulate`."""
    add = parser.add_argument
    add("data", type=Path, help="folder of a collection with volumes.tsv and frames.tsv")
    add("what", choices=("gains", "rounds", "effort"), help="what to simulate")
    add("--sets", type=names, required=True, metavar="S,…", help="data sets")
    add("--stream", default="adapt", help="split whose labels are accepted (default: %(default)s)")
    add("--judges", default="val", help="split that judges, frozen (default: %(default)s)")
    add("--accept", type=numbers, default=(1, 5), metavar="N,…", help="gains, effort: volumes accepted (1,5)")
    add("--rounds", type=positive, default=ROUNDS, metavar="N", help="rounds: how many (default: %(default)s)")
    add("--wrong", type=numbers, default=(5, 12), metavar="N,…", help="rounds: those with wrong labels (5,12)")
    add("--weights", type=Path, default=BUNDLED, help="the base")
    add("--steps", type=positive, metavar="N", help="optimiser steps of a round (default: those of finetune)")
    add("-o", "--output", type=Path, metavar="F.tsv", help="write the table")
    add("--plot", type=Path, metavar="F.png", help="draw it")


def run(args: argparse.Namespace) -> int:
    """Simulate and print a table, a line as soon as it is known."""
    for path in filter(None, (args.output, args.plot)):
        if not path.absolute().parent.is_dir():
            raise UserError(f"cannot write {path}: {path.parent} is not a folder. Create it first.")
    stream, judges = (_by_set(args.data, split, args.sets) for split in (args.stream, args.judges))
    recipe = Recipe(args.weights, steps=args.steps)
    made: list[list[str]] = []
    for row in _rows(args, recipe, stream, judges):
        made.append(row)
        print("\t".join(row), flush=True)
        if args.output is not None:
            with replacing(args.output) as beside:
                beside.write_text("".join("\t".join(row) + "\n" for row in made), "utf-8")
    if args.plot is not None:
        with replacing(args.plot) as beside:
            beside.write_bytes(plot(args.what, made))
    return 0


def _rows(args: argparse.Namespace, recipe: Recipe, stream: Cases, judges: Cases) -> Iterator[list[str]]:
    if args.what == "gains":
        return gains(recipe, stream, judges, args.accept)
    if args.what == "effort":
        return effort(recipe, stream, judges, args.accept)
    return rounds(recipe, stream, judges, args.rounds, args.wrong)


Cases = dict[str, list[Case]]


def gains(recipe: Recipe, stream: Cases, judges: Cases, accept: Sequence[int]) -> Iterator[list[str]]:
    """A row for every set and number of accepted volumes: J&F before and after, there and elsewhere, and the time."""
    scores = Scores(recipe.weights, judges)
    yield ["set", "accepted", "base", "after", "gain", *(f"other: {name}" for name in judges), "seconds"]
    for name, cases in stream.items():
        for count in accept:
            chosen = [LabelledVolume.of_case(case) for case in cases[:count]]
            with TemporaryDirectory() as folder:
                started = perf_counter()
                registry = Registry(Path(folder))
                record = Round(registry, recipe).run(Lessons([VolumeRef.of(one) for one in chosen]))
                seconds = perf_counter() - started
                after = scores.of(registry.adapter(record.name))
            before = scores.of(None)
            others = [f"{after[other] - before[other]:+.3f}" for other in judges]
            gain = after[name] - before[name]
            yield [
                name, str(len(chosen)), f"{before[name]:.3f}", f"{after[name]:.3f}", f"{gain:+.3f}", *others,
                f"{seconds:.0f}",
            ]  # fmt: skip


def rounds(recipe: Recipe, stream: Cases, judges: Cases, count: int, wrong: Sequence[int]) -> Iterator[list[str]]:
    """A row for every round: what was accepted, whether the version was used and why, J&F of the one in use."""
    scores = Scores(recipe.weights, judges)
    teaching = _in_turn({name: [c for i, c in enumerate(cases) if i % OF_FIRST] for name, cases in stream.items()})
    if not teaching:
        raise UserError("every third volume of a set judges, from the first on: no set has a second one that teaches.")
    holding = [
        VolumeRef.of(LabelledVolume.of_case(case), "held out")
        for cases in stream.values()
        for case in cases[::OF_FIRST]
    ]
    yield ["round", "accepted", "labels", "version", "used", "frozen J&F in use", "reason"]
    in_use = float(np.mean(list(scores.of(None).values())))
    yield ["0", "", "", BASE, "yes", f"{in_use:.4f}", ""]
    with TemporaryDirectory() as folder:
        registry = Registry(Path(folder))
        accepted: dict[str, VolumeRef] = {}
        for number in range(1, count + 1):
            case = teaching[(number - 1) % len(teaching)]
            volume, is_wrong = LabelledVolume.of_case(case), number in wrong
            if is_wrong:
                volume = _wrong(volume)
            place = f"{case.group}/{case.name}"
            accepted.pop(place, None)  # what is accepted again, right or wrong, takes the place of what was
            accepted[place] = VolumeRef.of(volume, f"round {number}")
            known = registry.learned(registry.champion)
            new, old = divided(list(accepted.values())[::-1], lambda one: one.label in known)  # noqa: B023  used at once
            record = Round(registry, recipe).run(Lessons(new, old, holding))
            used = registry.champion == record.name
            if used:
                in_use = float(np.mean(list(scores.of(registry.adapter(record.name)).values())))
            labels = "wrong" if is_wrong else "right"
            yield [
                str(number), place, labels, record.name, "yes" if used else "no", f"{in_use:.4f}",
                record.reason,
            ]  # fmt: skip


class Scores:
    """J&F of versions on frozen volumes; each version is measured once.

    Args:
        weights: The base.
        judges: Cases of each set.
    """

    def __init__(self, weights: Path, judges: Cases) -> None:
        self._weights = weights
        self._judges = judges
        self._known: dict[bytes | None, dict[str, float]] = {}

    def of(self, adapter: Path | None) -> dict[str, float]:
        """J&F of every set: mean over its volumes."""
        key = None if adapter is None else adapter.read_bytes()
        if key not in self._known:
            model = imos.load(self._weights, adapter=adapter, device="cpu")
            found = {
                name: [measure(model, LabelledVolume.of_case(case)) for case in cases]
                for name, cases in self._judges.items()
            }
            self._known[key] = {
                name: float(np.mean([v for v in values if v is not None])) for name, values in found.items()
            }
        return self._known[key]


def _wrong(volume: LabelledVolume) -> LabelledVolume:
    """The same objects, moved by a third of the volume and mirrored: on other tissue, with another outline."""
    rows, columns, _ = volume.labels.shape
    moved = np.roll(volume.labels[::-1], (rows // 3, columns // 3), (0, 1))
    return replace(volume, name=f"{volume.name} wrong", labels=np.ascontiguousarray(moved))


def _by_set(root: Path, split: str, sets: Sequence[str]) -> Cases:
    cases = read_collection(root, split)
    found = {name: [case for case in cases if case.group == name] for name in sets}
    for name, of_set in found.items():
        if not of_set:
            known = ", ".join(sorted({case.group for case in cases}))
            raise UserError(f"there is no set {name!r} in the split {split!r}; its sets: {known}.")
    return found


def _in_turn(cases: Cases) -> list[Case]:
    """One of each set, then the next of each."""
    longest = max(len(of_set) for of_set in cases.values())
    return [of_set[place] for place in range(longest) for of_set in cases.values() if place < len(of_set)]
