"""Efforts: what the simulated annotator had to do, as tables for people and as TSV for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import isnan, nan

import numpy as np

from imos.evaluation.annotator import TARGETS, Effort, Technique
from imos.evaluation.tables import Table, said, short, write_tsv

COLUMNS = (
    *("technique", "modality", "set", "case", "label", "first", "last", "painted_first", "slices"),
    *(f"painted_until_{target:.2f}" for target in TARGETS),
    *("accepted", "outside", "dice"),
)


def efforts_as_tsv(efforts: Iterable[Effort]) -> str:
    """One line an object and technique; `dice` has the Dice after every look, `painted:dice` each."""

    def lines() -> Iterable[Sequence[object]]:
        for effort in sorted(efforts, key=_place):
            of = effort.sequence
            names = (effort.technique, effort.modality, effort.group, effort.case)
            counts = [effort.painted_until(target) for target in TARGETS]
            course = " ".join(f"{step.painted}:{step.dice:.4f}" for step in effort.steps)
            where = (of.label, of.first, of.last, of.painted, effort.slices)
            yield *names, *where, *counts, said(effort.accepted), effort.outside, course

    return write_tsv(COLUMNS, lines())


def effort_tables(efforts: Sequence[Effort]) -> list[Table]:
    """Painted slices until each target, what that is of the work with ITK, and slices accepted untouched."""
    if not efforts:
        return []
    techniques = sorted({effort.technique for effort in efforts}, key=list(Technique).index)
    tables = [
        _table(
            f"simulated annotator, slices painted until Dice {short_target(target)}: mean / median over objects",
            efforts,
            techniques,
            _counts(target),
        )
        for target in TARGETS
    ]
    if Technique.ITK in techniques:
        tables += [
            _table(
                f"simulated annotator, all painted slices until Dice {short_target(target)} over those with itk",
                efforts,
                techniques,
                _share_of_itk(target, efforts),
            )
            for target in TARGETS
        ]
    title = "simulated annotator, share of slices accepted untouched after one painted slice (Dice at least .90)"
    tables.append(_table(title, efforts, techniques, _accepted))
    if Technique.OURS in techniques:
        ours = [effort for effort in efforts if effort.technique is Technique.OURS]
        title = "simulated annotator, proposed slices beyond the object (counted as painted): all / objects with any"
        tables.append(_table(title, ours, [Technique.OURS], _outside))
    return tables


def short_target(target: float) -> str:
    """A target as papers write it: .90."""
    return f"{target:.2f}".removeprefix("0")


def total(efforts: Iterable[Effort], technique: Technique, target: float) -> int:
    """All slices that were painted with a technique."""
    return sum(effort.painted_until(target) for effort in efforts if effort.technique is technique)


def _place(effort: Effort) -> tuple[object, ...]:
    technique = list(Technique).index(effort.technique)
    return effort.modality, effort.group, effort.case, effort.sequence.label, technique


def _counts(target: float) -> Callable[[Sequence[Effort]], str]:
    def cell(efforts: Sequence[Effort]) -> str:
        counts = [effort.painted_until(target) for effort in efforts]
        return f"{np.mean(counts):.2f} / {np.median(counts):g}"

    return cell


def _share_of_itk(target: float, everything: Sequence[Effort]) -> Callable[[Sequence[Effort]], str]:
    with_itk = {
        (effort.group, effort.case, effort.sequence.label): effort.painted_until(target)
        for effort in everything
        if effort.technique is Technique.ITK
    }

    def cell(efforts: Sequence[Effort]) -> str:
        own = sum(effort.painted_until(target) for effort in efforts)
        theirs = sum(with_itk[effort.group, effort.case, effort.sequence.label] for effort in efforts)
        return f"{own} / {theirs} = {own / theirs:.2f}"

    return cell


def _accepted(efforts: Sequence[Effort]) -> str:
    """Over all slices, not over objects: it says how much of the work is left."""
    known = [(effort.accepted, effort.slices - 1) for effort in efforts if not isnan(effort.accepted)]
    slices = sum(number for _, number in known)
    return short(sum(share * number for share, number in known) / slices if slices else nan)


def _outside(efforts: Sequence[Effort]) -> str:
    counts = [effort.outside for effort in efforts]
    return f"{sum(counts)} / {np.count_nonzero(counts)}"


def _table(
    title: str, efforts: Sequence[Effort], techniques: Sequence[Technique], cell: Callable[[Sequence[Effort]], str]
) -> Table:
    groups: dict[str, list[Effort]] = {}
    for effort in sorted(efforts, key=_place):
        groups.setdefault(str(effort.modality), []).append(effort)
    lines = []
    for name, found in (*groups.items(), ("all", list(efforts))):
        of_technique = {other: [effort for effort in found if effort.technique is other] for other in techniques}
        number = max(len(own) for own in of_technique.values())
        lines.append((name, str(number), *(cell(own) if own else "–" for own in of_technique.values())))
    return Table(title, ("", "n", *techniques), tuple(lines))
