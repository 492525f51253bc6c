"""What was measured, as text, as TSV and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from imos.benchmark.measure import Measured
from imos.imaging.writing import replacing

_COLUMNS = (
    ("side", lambda m: str(m.task.side)),
    ("slices", lambda m: str(m.task.slices)),
    ("objects", lambda m: str(m.task.objects)),
    ("device", lambda m: m.task.device),
    ("load s", lambda m: f"{m.load:.2f}"),
    ("first s", lambda m: f"{m.first:.2f}"),
    ("all s", lambda m: f"{m.all:.2f}"),
    ("ms/slice/object", lambda m: f"{1e3 * m.per_slice:.1f}"),
    ("reached", lambda m: str(m.reached)),
    ("Dice", lambda m: f"{m.dice:.3f}"),
    ("volume MB", lambda m: f"{m.volume_mb:.0f}"),
    ("peak MB", lambda m: f"{m.peak_mb:.0f}"),
    ("GPU MB", lambda m: f"{m.gpu_mb:.0f}"),
)


def show(table: Sequence[Measured]) -> str:
    """Aligned columns."""
    rows = _rows(table)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def write_table(path: Path, table: Sequence[Measured]) -> None:
    """Write TSV; it appears as a whole."""
    with replacing(path) as beside:
        beside.write_text("".join("\t".join(row) + "\n" for row in _rows(table)), "utf-8")


def write_plot(path: Path, table: Sequence[Measured]) -> None:
    """Draw seconds over slices and over objects."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for side in sorted({one.task.side for one in table}):
        of_side = [one for one in table if one.task.side == side]
        lengths = sorted((one.task.slices, one.all) for one in of_side if one.task.objects == 1)
        left.plot(*zip(*lengths, strict=True), "o-", label=f"{side}²")
        usual = max({one.task.slices for one in of_side if one.task.objects > 1}, default=0)
        numbers = sorted((one.task.objects, one.all) for one in of_side if one.task.slices == usual)
        if numbers:
            right.plot(*zip(*numbers, strict=True), "o-", label=f"{side}², {usual} slices")
    left.set(xlabel="slices, one object", ylabel="seconds", xlim=(0, None), ylim=(0, None))
    right.set(xlabel="objects", xlim=(0, None), ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    with replacing(path) as beside:
        figure.savefig(beside, format="png", dpi=120)


def _rows(table: Sequence[Measured]) -> list[list[str]]:
    return [[name for name, _ in _COLUMNS], *([cell(one) for _, cell in _COLUMNS] for one in table)]
