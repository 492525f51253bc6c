"""Plots of what `main.py simulate` found, from its table."""

from __future__ import annotations

from collections.abc import Sequence

from imos.evaluation.figures import drawing, new_figure, png

Table = Sequence[Sequence[str]]
"""The header and the rows."""


def plot(what: str, table: Table) -> bytes:
    """A table of `gains`, `rounds` or `effort` as a PNG file."""
    header, *lines = table
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    with drawing():
        return {"gains": _gains, "rounds": _rounds, "effort": _effort}[what](rows)


def _gains(rows: Sequence[dict[str, str]]) -> bytes:
    figure, (axes,) = new_figure(1, 6.4, 3.8)
    for name in dict.fromkeys(row["set"] for row in rows):
        own = [row for row in rows if row["set"] == name]
        x = [0, *(int(row["accepted"]) for row in own)]
        axes.plot(x, [float(own[0]["base"]), *(float(row["after"]) for row in own)], marker="o", lw=2, label=name)
    axes.set(xlabel="accepted volumes", ylabel="J&F on other patients")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return png(figure)


def _rounds(rows: Sequence[dict[str, str]]) -> bytes:
    figure, (axes,) = new_figure(1, 7.6, 3.8)
    number = [int(row["round"]) for row in rows]
    value = [float(row["frozen J&F in use"]) for row in rows]
    axes.plot(number, value, color="#555555", lw=1.5, drawstyle="steps-post", zorder=1)
    shown = {
        ("right", "yes"): ("#2ca02c", "o", "used"),
        ("right", "no"): ("#999999", "o", "kept, unused"),
        ("wrong", "yes"): ("#d62728", "X", "wrong labels, used"),
        ("wrong", "no"): ("#1f77b4", "X", "wrong labels, refused"),
    }
    for (labels, used), (colour, marker, name) in shown.items():
        at = [place for place, row in enumerate(rows) if (row["labels"], row["used"]) == (labels, used)]
        if at:
            places, heights = [number[place] for place in at], [value[place] for place in at]
            axes.scatter(places, heights, color=colour, marker=marker, s=45, label=name, zorder=2)
    axes.set(xlabel="round", ylabel="J&F of the version in use, frozen set")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return png(figure)


def _effort(rows: Sequence[dict[str, str]]) -> bytes:
    figure, (axes,) = new_figure(1, 6.4, 3.8)
    for name in dict.fromkeys(row["set"] for row in rows):
        own = [row for row in rows if row["set"] == name]
        x = [int(row["accepted"]) for row in own]
        (line,) = axes.plot(x, [float(row["painted"]) for row in own], marker="o", lw=2, label=name)
        axes.axhline(float(own[0]["painted without the loop"]), color=line.get_color(), ls=":", lw=1)
    axes.set(xlabel="accepted volumes", ylabel="slices painted an object, Dice .90", ylim=(0, None))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), title="dotted: without the loop")
    return png(figure)
