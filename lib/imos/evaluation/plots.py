"""Plots: J over the distance from the painted slice, confidence against the true J, what annotating takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

import numpy as np

from imos.datasets.collection import Modality
from imos.evaluation.annotator import TARGETS, Effort, Technique
from imos.evaluation.calibration import calibration_of
from imos.evaluation.efforts import short_target
from imos.evaluation.experiment import Method, Row
from imos.evaluation.figures import drawing, new_figure, png
from imos.evaluation.planes import View
from imos.evaluation.sequences import Protocol

FEWEST = 5
"""Sequences that a point of a curve needs: fewer say nothing about a modality."""

_COLOURS = {
    Modality.MRI: "#1f77b4",
    Modality.CT: "#d95f02",
    Modality.EM: "#2ca02c",
    Modality.ENDOSCOPY: "#c2185b",
    Modality.MICROSCOPY: "#7b5ea7",
    Modality.ULTRASOUND: "#8c6d31",
    Modality.NATURAL: "#7f7f7f",
}
_TECHNIQUES = {
    Technique.OURS: ("#d62728", "-", "ours, slices that it proposes"),
    Technique.EVEN: ("#d62728", "--", "ours, slices evenly spaced"),
    Technique.ITK: ("#1f77b4", "-", "ITK contour interpolation"),
    Technique.WALKER: ("#2ca02c", "-", "random walker"),
}


@dataclass(frozen=True, slots=True)
class Plot:
    """One plot.

    Attributes:
        name: For its file.
        title: What it shows.
        png: The picture.
    """

    name: str
    title: str
    png: bytes


def plots_of(rows: Sequence[Row], efforts: Sequence[Effort]) -> list[Plot]:
    """All plots that there are figures for; of the first protocol only.

    Args:
        rows: Sequences, of which `ours` in the own plane are shown.
        efforts: Annotated objects.
    """
    ours = [row for row in rows if row.method is Method.OURS and row.view is View.OWN]
    first = min((row.protocol for row in ours), key=list(Protocol).index, default=None)
    ours = [row for row in ours if row.protocol is first]
    plots = []
    with drawing():
        if ours:
            plots.append(
                Plot(
                    "distance",
                    "J over the distance from the painted slice (of the objects that reach so far)",
                    _distance(ours),
                )
            )
        if any(not isnan(part.confidence) for row in ours for part in row.score.slices):
            plots.append(Plot("calibration", "Confidence against the true J", _calibration(ours)))
        if efforts:
            plots.append(Plot("effort", "Objects that are good enough after so many painted slices", _effort(efforts)))
    return plots


def _distance(rows: Sequence[Row]) -> bytes:
    figure, (axes,) = new_figure(1, 7.6, 4.3)
    farthest = 1
    for modality in sorted({row.modality for row in rows}, key=list(Modality).index):
        own = [row for row in rows if row.modality is modality]
        at: dict[int, list[float]] = {}
        for row in own:  # one value a sequence and distance: both directions count once
            near: dict[int, list[float]] = {}
            for part in row.score.slices:
                near.setdefault(abs(part.index - row.sequence.painted), []).append(part.j)
            for distance, values in near.items():
                at.setdefault(distance, []).append(float(np.mean(values)))
        shown = sorted(distance for distance, values in at.items() if len(values) >= min(FEWEST, len(own)))
        mean = [np.mean(at[distance]) for distance in shown]
        farthest = max([farthest, *shown])
        axes.plot(shown, mean, color=_COLOURS[modality], lw=2, marker=".", ms=6, label=f"{modality} (n {len(own)})")
    axes.set(xlabel="slices from the painted one", ylabel="mean J", ylim=(0, 1.02), xlim=(0.5, farthest + 0.5))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return png(figure)


def _calibration(rows: Sequence[Row]) -> bytes:
    modalities = sorted({row.modality for row in rows}, key=list(Modality).index)
    figure, (axes, counts) = new_figure(2, 9.6, 4.3)
    axes.plot([0, 1], [0, 1], color="#999999", lw=1, ls=":")
    for modality in modalities:
        bins = calibration_of(row.score for row in rows if row.modality is modality).bins
        known = [part for part in bins if part.count]
        x, y = [part.confidence for part in known], [part.j for part in known]
        axes.plot(x, y, color=_COLOURS[modality], lw=1.2, marker=".", ms=7, alpha=0.8, label=str(modality))
    every = calibration_of(row.score for row in rows)
    if len(modalities) > 1:
        known = [part for part in every.bins if part.count]
        x, y = [part.confidence for part in known], [part.j for part in known]
        axes.plot(x, y, color="black", lw=2.5, marker="o", label="all")
    axes.set(xlabel="confidence", ylabel="true J", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_title(f"r {every.pearson:.2f}, ECE {every.error:.3f}", fontsize=10.5)
    axes.legend(loc="upper left", fontsize=9)
    middles = [(part.low + part.high) / 2 for part in every.bins]
    counts.bar(middles, [part.count for part in every.bins], width=0.09, color="#8899aa")
    counts.set(xlabel="confidence", ylabel="slices", xlim=(0, 1))
    return png(figure)


def _effort(efforts: Sequence[Effort]) -> bytes:
    figure, panels = new_figure(len(TARGETS), 9.6, 4.0)
    for axes, target in zip(panels, TARGETS, strict=True):
        most = int(np.ceil(np.percentile([effort.painted_until(target) for effort in efforts], 97)))
        for technique, (colour, line, name) in _TECHNIQUES.items():
            counts = np.array([effort.painted_until(target) for effort in efforts if effort.technique is technique])
            if counts.size:
                x = np.arange(1, most + 1)
                share = [(counts <= number).mean() for number in x]
                axes.plot(
                    x,
                    share,
                    color=colour,
                    ls=line,
                    lw=2,
                    drawstyle="steps-post",
                    label=f"{name} (mean {counts.mean():.1f})",
                )
        axes.set(xlabel="painted slices", ylabel="share of objects", xlim=(0.8, max(most, 2)), ylim=(0, 1.02))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_title(f"Dice {short_target(target)}", fontsize=10.5)
        axes.legend(loc="lower right", fontsize=9)
    return png(figure)
