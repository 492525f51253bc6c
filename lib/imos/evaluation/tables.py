"""Tables: an experiment's rows as text for people and as TSV for programs."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from io import StringIO
from math import isnan, nan

import numpy as np

from imos.evaluation.experiment import Method, Row
from imos.evaluation.sequences import Protocol

COLUMNS = (
    *("protocol", "method", "modality", "set", "case", "label", "first", "last", "painted"),
    *("J", "F", "J&F", "leak", "forward", "backward", "seconds"),
)


def as_tsv(rows: Iterable[Row]) -> str:
    """One line a sequence and method; empty where there is no number."""
    text = StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in sorted(rows, key=_place):
        score, of = row.score, row.sequence
        numbers = (score.j, score.f, score.j_and_f, score.leak, score.forward, score.backward, row.seconds)
        said = ["" if isnan(number) else f"{number:.5f}" for number in numbers]
        names = (row.protocol, row.method, row.modality, row.group, row.case)
        writer.writerow([*names, of.label, of.first, of.last, of.painted, *said])
    return text.getvalue()


def as_text(rows: Sequence[Row]) -> str:
    """The tables of an experiment: by modality and by set, methods side by side; then leak and passes by modality."""
    methods = sorted({row.method for row in rows}, key=list(Method).index)
    parts: list[str] = []
    for protocol in sorted({row.protocol for row in rows}, key=list(Protocol).index):
        own = [row for row in rows if row.protocol is protocol]
        for title, group_of in (("by modality", _modality), ("by set", _set)):
            parts.append(f"J&F (J / F) {title}, protocol {protocol}: mean (std) over sequences")
            parts.append(_table(own, methods, group_of, _quality))
        parts.append(f"leak by modality, protocol {protocol}: mean / median over sequences")
        parts.append(_table(own, methods, _modality, _leak))
        parts.append(f"J&F of the passes by modality, protocol {protocol}: forward / backward")
        parts.append(_table(own, methods, _modality, _passes))
    return "\n\n".join(parts)


def _place(row: Row) -> tuple[object, ...]:
    method, protocol = list(Method).index(row.method), list(Protocol).index(row.protocol)
    return protocol, row.modality, row.group, row.case, row.sequence.label, method


def _modality(row: Row) -> str:
    return str(row.modality)


def _set(row: Row) -> str:
    return f"{row.modality} {row.group}"


def _quality(rows: Sequence[Row]) -> str:
    values = np.array([(row.score.j_and_f, row.score.j, row.score.f) for row in rows])
    mean, std = values.mean(0), values.std(0)
    return f"{_short(mean[0])} ({_short(std[0])})  {_short(mean[1])} / {_short(mean[2])}"


def _leak(rows: Sequence[Row]) -> str:
    leaks = [row.score.leak for row in rows]
    return f"{np.mean(leaks):.2f} / {np.median(leaks):.2f}"


def _passes(rows: Sequence[Row]) -> str:
    ways = ([row.score.forward for row in rows], [row.score.backward for row in rows])
    known = ([value for value in values if not isnan(value)] for values in ways)
    return " / ".join(_short(float(np.mean(values)) if values else nan) for values in known)


def _short(value: float) -> str:
    return "–" if isnan(value) else f"{value:.3f}".replace("0.", ".", 1) if value < 1 else f"{value:.3f}"


def _table(
    rows: Sequence[Row], methods: Sequence[Method], group_of: Callable[[Row], str], cell: Callable[[Sequence[Row]], str]
) -> str:
    groups: dict[str, dict[Method, list[Row]]] = {}
    for row in sorted(rows, key=_place):
        groups.setdefault(group_of(row), {}).setdefault(row.method, []).append(row)
    everything: dict[Method, list[Row]] = {}
    for row in rows:
        everything.setdefault(row.method, []).append(row)
    lines = [["", "n", *methods]]
    for name, found in (*groups.items(), ("all", everything)):
        number = str(len(next(iter(found.values()))))
        lines.append([name, number, *(cell(found[method]) if method in found else "–" for method in methods)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    aligned = (
        [line[0].ljust(widths[0]), line[1].rjust(widths[1])]
        + [text.ljust(width) for text, width in zip(line[2:], widths[2:], strict=True)]
        for line in lines
    )
    return "\n".join("  ".join(line).rstrip() for line in aligned)
