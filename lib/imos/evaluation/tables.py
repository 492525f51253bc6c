"""Tables: an experiment's rows as tables for people and as TSV for programs."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from math import isnan, nan

import numpy as np

from imos.datasets.categories import UNSEEN, Categories
from imos.evaluation.calibration import BINS, calibration_of
from imos.evaluation.experiment import Method, Row
from imos.evaluation.planes import View
from imos.evaluation.sequences import Protocol

COLUMNS = (
    *("protocol", "method", "modality", "set", "case", "label", "first", "last", "painted"),
    *("J", "F", "J&F", "leak", "forward", "backward", "seconds", "view"),
)
SLICE_COLUMNS = (
    *("protocol", "method", "modality", "set", "case", "label", "slice", "distance"),
    *("J", "F", "confidence"),
)


@dataclass(frozen=True, slots=True)
class Table:
    """One table.

    Attributes:
        title: What it shows.
        header: Names of its columns; the first one, of the names of the lines, may be empty.
        lines: Cells, each line as long as the header.
        numbers: How many columns behind the first are set to the right in text.
    """

    title: str
    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    numbers: int = 1

    def as_text(self) -> str:
        """The title and the aligned columns."""
        lines = (self.header, *self.lines)
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.header))]
        aligned = (
            "  ".join(
                text.rjust(width) if 0 < column <= self.numbers else text.ljust(width)
                for column, (text, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        )
        return "\n\n".join((self.title, "\n".join(line.rstrip() for line in aligned)))


def as_tsv(rows: Iterable[Row]) -> str:
    """One line a sequence, method and view; empty where there is no number."""

    def lines() -> Iterable[Sequence[object]]:
        for row in sorted(rows, key=_place):
            score, of = row.score, row.sequence
            numbers = (score.j, score.f, score.j_and_f, score.leak, score.forward, score.backward, row.seconds)
            names = (row.protocol, row.method, row.modality, row.group, row.case)
            painted = of.painted if of.painted >= 0 else ""
            yield *names, of.label, of.first, of.last, painted, *map(said, numbers), row.view

    return write_tsv(COLUMNS, lines())


def slices_as_tsv(rows: Iterable[Row]) -> str:
    """One line a judged slice in the own plane; no confidence where the method says none."""

    def lines() -> Iterable[Sequence[object]]:
        for row in sorted(rows, key=_place):
            if row.view is View.OWN:
                names = (row.protocol, row.method, row.modality, row.group, row.case, row.sequence.label)
                for part in row.score.slices:
                    distance = part.index - row.sequence.painted
                    yield *names, part.index, distance, *map(said, (part.j, part.f, part.confidence))

    return write_tsv(SLICE_COLUMNS, lines())


def write_tsv(columns: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """The text of a TSV file."""
    text = StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(lines)
    return text.getvalue()


def said(number: float) -> str:
    """A number as TSV files have it: five digits, nothing for NaN."""
    return "" if isnan(number) else f"{number:.5f}"


def short(value: float) -> str:
    """A value of [0, 1] as papers write it: .930."""
    return "–" if isnan(value) else f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.3f}"


def tables_of(rows: Sequence[Row], categories: Categories | None = None) -> list[Table]:
    """The tables of an experiment.

    By modality, by set and by category, methods side by side; leak and passes by modality; calibration of the methods
    that say how sure they are; the other planes where they were judged.
    """
    methods = sorted({row.method for row in rows}, key=list(Method).index)
    tables: list[Table] = []
    for protocol in sorted({row.protocol for row in rows}, key=list(Protocol).index):
        every = [row for row in rows if row.protocol is protocol]
        own = [row for row in every if row.view is View.OWN]
        quality = f"protocol {protocol}: mean (std) over sequences"
        for title, group_of in (("by modality", _modality), ("by set", _set)):
            tables.append(_table(f"J&F (J / F) {title}, {quality}", own, methods, group_of, _quality))
        if categories:
            tables += _by_category(own, methods, categories, quality)
        title = f"leak by modality, protocol {protocol}: mean / median over sequences"
        tables.append(_table(title, own, methods, _modality, _leak))
        title = f"J&F of the passes by modality, protocol {protocol}: forward / backward"
        tables.append(_table(title, own, methods, _modality, _passes))
        for method in methods:
            judged = [row for row in own if row.method is method]
            if any(not isnan(part.confidence) for row in judged for part in row.score.slices):
                tables.append(_calibration(judged, f"{method}, protocol {protocol}"))
        if len(own) < len(every):
            tables.append(_planes(every, protocol))
    return tables


def as_text(rows: Sequence[Row], categories: Categories | None = None) -> str:
    """The tables of an experiment, one below the other."""
    return "\n\n".join(table.as_text() for table in tables_of(rows, categories))


def _place(row: Row) -> tuple[object, ...]:
    method, protocol = list(Method).index(row.method), list(Protocol).index(row.protocol)
    view = list(View).index(row.view)
    return protocol, view, row.modality, row.group, row.case, row.sequence.label, method


def _modality(row: Row) -> str:
    return str(row.modality)


def _set(row: Row) -> str:
    return f"{row.modality} {row.group}"


def _quality(rows: Sequence[Row]) -> str:
    values = np.array([(row.score.j_and_f, row.score.j, row.score.f) for row in rows])
    mean, std = values.mean(0), values.std(0)
    return f"{short(mean[0])} ({short(std[0])})  {short(mean[1])} / {short(mean[2])}"


def _leak(rows: Sequence[Row]) -> str:
    leaks = [row.score.leak for row in rows]
    return f"{np.mean(leaks):.2f} / {np.median(leaks):.2f}"


def _passes(rows: Sequence[Row]) -> str:
    ways = ([row.score.forward for row in rows], [row.score.backward for row in rows])
    known = ([value for value in values if not isnan(value)] for values in ways)
    return " / ".join(short(float(np.mean(values)) if values else nan) for values in known)


def _by_category(rows: Sequence[Row], methods: Sequence[Method], categories: Categories, quality: str) -> list[Table]:
    def category(row: Row) -> str:
        return f"{row.modality} {categories.name(row.group, row.case, row.sequence.label)}"

    def novelty(row: Row) -> str:
        seen = categories.is_seen(row.group, row.case, row.sequence.label)
        return {True: "seen", False: f"unseen{UNSEEN}", None: "without name"}[seen]

    by_name = sorted(rows, key=lambda row: category(row).lower())
    title = f"J&F (J / F) by category ({UNSEEN} not in the split train), {quality}"
    return [
        _table(title, by_name, methods, category, _quality, ordered=True),
        _table(
            f"J&F (J / F) of seen and unseen categories, {quality}",
            sorted(rows, key=novelty),
            methods,
            novelty,
            _quality,
            ordered=True,
        ),
    ]


def _calibration(rows: Sequence[Row], about: str) -> Table:
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=_place):
        groups.setdefault(_modality(row), []).append(row)
    lines = []
    for name, found in (*groups.items(), ("all", list(rows))):
        result = calibration_of(row.score for row in found)
        sure = [part.confidence for row in found for part in row.score.slices if not isnan(part.confidence)]
        true = [part.j for row in found for part in row.score.slices if not isnan(part.confidence)]
        means = (float(np.mean(values)) if values else nan for values in (sure, true))
        cells = (short(result.pearson), short(result.error), *map(short, means), str(result.silent))
        lines.append((name, str(result.count), *cells))
    return Table(
        f"calibration of the confidence per slice, {about}: Pearson's r and expected calibration error ({BINS} bins)",
        ("", "slices", "r", "ECE", "confidence", "J", "without confidence"),
        tuple(lines),
    )


def _planes(rows: Sequence[Row], protocol: Protocol) -> Table:
    own = [row for row in rows if row.method is Method.OURS]
    volumes = {(row.group, row.case) for row in own if row.view is not View.OWN}
    own = [row for row in own if (row.group, row.case) in volumes]
    names = {
        View.OWN: "own plane",
        View.WALKED_SECOND: "walked along 2nd axis",
        View.WALKED_THIRD: "along 3rd",
        View.SEEN_SECOND: "own, seen along 2nd axis",
        View.SEEN_THIRD: "along 3rd",
    }
    groups: dict[str, list[Row]] = {}
    for row in sorted(own, key=_place):
        groups.setdefault(_modality(row), []).append(row)
    lines = []
    for name, found in (*groups.items(), ("all", own)):
        of_view = {view: [row.score.j_and_f for row in found if row.view is view] for view in View}
        cells = (f"{short(float(np.mean(v)))} (n {len(v)})" if v else "–" for v in of_view.values())
        lines.append((name, *cells))
    title = f"J&F of volumes in the other two planes, protocol {protocol}: mean over sequences"
    return Table(title, ("", *(names[view] for view in View)), tuple(lines), numbers=0)


def _table(
    title: str,
    rows: Sequence[Row],
    methods: Sequence[Method],
    group_of: Callable[[Row], str],
    cell: Callable[[Sequence[Row]], str],
    *,
    ordered: bool = False,
) -> Table:
    groups: dict[str, dict[Method, list[Row]]] = {}
    for row in rows if ordered else sorted(rows, key=_place):
        groups.setdefault(group_of(row), {}).setdefault(row.method, []).append(row)
    everything: dict[Method, list[Row]] = {}
    for row in rows:
        everything.setdefault(row.method, []).append(row)
    lines = []
    for name, found in (*groups.items(), ("all", everything)):
        number = str(len(next(iter(found.values()))))
        lines.append((name, number, *(cell(found[method]) if method in found else "–" for method in methods)))
    return Table(title, ("", "n", *methods), tuple(lines))
