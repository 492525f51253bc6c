"""Effort: what a person did to an image until it was accepted, read off the history of the work on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imos.server.acceptances import Effort
from imos.server.snapshots import Snapshot, Timeline, show
from imos.server.stored import slices_said
from imos.server.workspaces import Workspace


@dataclass(frozen=True, eq=False, slots=True)
class Made:
    """How a label came about.

    Attributes:
        effort: What it cost.
        axes: Label value → axis of the image along which it was painted.
        original: `(I, J, K)` what the first propagation found of the accepted objects; None where there was none.
        slices: What is known about each slice of the objects, for whoever opens the image next.
    """

    effort: Effort
    axes: dict[int, int]
    original: NDArray[Any] | None
    slices: dict[str, dict[str, Any]]


def made_of(workspace: Workspace, final: NDArray[np.uint16]) -> Made:
    """How the label came about that was accepted just now.

    Args:
        workspace: Where it was; locked.
        final: `(I, J, K)` the label.
    """
    values = [int(value) for value in np.flatnonzero(np.bincount(final.ravel(order="K"))) if value]
    axes = {value: workspace.shown.result.axes.get(value, 2) for value in values}
    shown: set[tuple[int, int]] = set()
    for value, axis in axes.items():
        used = (final == value).any(axis=tuple(other for other in range(3) if other != axis))
        shown |= {(axis, int(index)) for index in np.flatnonzero(used)}
    by_hand = {
        (prompt.axis, prompt.index)
        for prompt in workspace.present.session.prompts.values()
        if prompt.painted and prompt.label in axes
    }
    original = None
    first = _first_found(workspace.record.timeline)
    if first is not None:
        labels = show(first, workspace.image.shape).labels
        original = np.where(np.isin(labels, values), labels, 0)
    corrected = None if original is None else int(np.count_nonzero(original != final))
    slices = slices_said(workspace.shown.result, workspace.present.session, values)
    return Made(Effort(len(shown), len(by_hand), corrected), axes, original, slices)


def _first_found(timeline: Timeline) -> Snapshot | None:
    """The first snapshot since the last new beginning in which something was propagated."""
    snapshots = [snapshot for _, snapshot in timeline.past] + [timeline.present]
    beginnings = [number for number, snapshot in enumerate(snapshots) if snapshot.is_empty]
    since = snapshots[beginnings[-1] :] if beginnings else snapshots
    return next((snapshot for snapshot in since if snapshot.session.outcomes), None)
