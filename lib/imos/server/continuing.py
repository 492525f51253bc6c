"""Continuing: which slices of a mask were painted by hand, when a client sends back the whole mask.

3D Slicer gets an object's volume as an answer, its user corrects a slice, and Slicer sends the whole volume again
without saying what was corrected. What was answered is remembered here; the slices that differ from it were painted.
The mask itself tells which answer it continues, so that it does not matter whether the user has undone steps, or
whether two people work under one name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imos.imaging import thin_axis
from imos.propagation.composition import SessionState
from imos.propagation.prompts import Prompt
from imos.propagation.states import SliceState
from imos.server.snapshots import Edit, Shown, Snapshot, Timeline, prompts_of_edits, show, with_prompts

VALUE = 1
"""Label value of the one object of a draft."""

_REMEMBERED = 8
_ACROSS = 2
"""Slices: a correction that is so thin along another axis, and thicker along the object's own, was painted there."""


@dataclass(frozen=True, eq=False, slots=True)
class Draft:
    """What is known about one object once its mask has been looked at.

    Attributes:
        state: With a prompt for each slice that was painted by hand.
        before: What was answered last and is continued; None where the mask is a new beginning.
        touched: Axis and index of the slices that were painted since then.
    """

    state: SessionState
    before: Shown | None
    touched: frozenset[tuple[int, int]]


def continued(
    timeline: Timeline, mask: NDArray[np.bool_], unsaid: NDArray[np.bool_], spacing: Sequence[float], axis: int | None
) -> Draft:
    """Find out what the user painted.

    Args:
        timeline: What was answered before.
        mask: `(I, J, K)` the object as the client shows it.
        unsaid: `(I, J, K)` voxels of which the mask does not tell whether they belong to the object.
        spacing: Mm along each axis.
        axis: Axis across which slices are painted; None: the one along which the mask is thin.
    """
    best: tuple[int, Draft] | None = None
    latest = [timeline.present, *(snapshot for _, snapshot in reversed(timeline.past))]
    for snapshot in latest[:_REMEMBERED]:
        draft = _compared(snapshot, mask, unsaid, spacing)
        if draft is not None and (best is None or len(draft.touched) < best[0]):
            best = len(draft.touched), draft
    if best is not None:
        return best[1]
    if not mask.any():
        return Draft(SessionState(), None, frozenset())
    across = thin_axis(mask, spacing) if axis is None else axis
    painted = [
        Prompt.of_mask(VALUE, across, index, plane)
        for index, plane in enumerate(np.moveaxis(mask, across, 0))
        if plane.any()
    ]
    touched = frozenset((across, prompt.index) for prompt in painted)
    return Draft(with_prompts(SessionState(), painted), None, touched)


def _compared(
    snapshot: Snapshot, mask: NDArray[np.bool_], unsaid: NDArray[np.bool_], spacing: Sequence[float]
) -> Draft | None:
    """What was painted if this answer is continued; None where nothing that was propagated is left of it."""
    before = show(snapshot, (mask.shape[0], mask.shape[1], mask.shape[2]))
    states = before.result.states.get(VALUE)
    if states is None:
        return None
    old = before.labels == VALUE
    seen = np.where(unsaid, old, mask)
    axis = before.result.axes[VALUE]
    changed = seen != old
    rest = tuple(other for other in range(3) if other != axis)
    touched = set(np.flatnonzero(changed.any(axis=rest)).tolist())
    shown = np.flatnonzero(old.any(axis=rest)).tolist()
    carried = [index for index in shown if states.get(index) is SliceState.PROPAGATED]
    if not any(index not in touched for index in carried):
        return None
    edits = [Edit(axis, index, (VALUE,)) for index in sorted(touched)]
    if touched:
        across = thin_axis(changed, spacing)
        slices = np.flatnonzero(changed.any(axis=tuple(other for other in range(3) if other != across)))
        if across != axis and slices.size <= _ACROSS < len(touched):
            edits = [Edit(across, int(index), (VALUE,)) for index in slices]
    labels = seen.astype(np.uint16)
    state = with_prompts(snapshot.session, prompts_of_edits(labels, edits, before, snapshot.session))
    return Draft(state, before, frozenset((edit.axis, edit.index) for edit in edits))
