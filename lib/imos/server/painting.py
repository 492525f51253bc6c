"""Painting: what a client sends becomes prompts; and accepting: what it sees becomes the image's label.

A client sends the whole label map as its user sees it, and says which slices were touched by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from imos.errors import UserError
from imos.propagation.composition import SessionState
from imos.propagation.plan import Direction
from imos.server.grids import Grid, View
from imos.server.snapshots import (
    Edit,
    ImageObject,
    Shown,
    Snapshot,
    Voxels,
    accepted_prompts,
    changed_slices,
    prompts_of_edits,
    run_name,
    show,
    unexplained,
    with_prompts,
    without_objects,
)
from imos.server.workspaces import Workspace


@dataclass(frozen=True, eq=False, slots=True)
class Painted:
    """What the user sees.

    Attributes:
        labels: Label map on the client's grid.
        grid: That grid.
        objects: The client's objects; None where it does not list them.
    """

    labels: NDArray[np.uint16]
    grid: Grid
    objects: list[ImageObject] | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """What a run shall do, in the client's indices.

    Attributes:
        edits: Slices touched by hand since the last answer.
        selected: Objects to propagate; None for all that are painted.
        direction: Which way.
        first: First slice that may show an object, or None.
        last: Last slice that may, or None.
    """

    edits: Sequence[Edit] = ()
    selected: Sequence[int] | None = None
    direction: Direction = Direction.BOTH
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Plan:
    """A run that is ready to start.

    Attributes:
        snapshot: What it starts from; in force and on disk.
        view: The client's grid on the image.
        client_labels: What the client shows, on its grid.
        values: Objects to propagate.
        direction: Which way along the image's axes.
        name: Of the step.
    """

    snapshot: Snapshot
    view: View
    client_labels: NDArray[np.uint16]
    values: list[int]
    direction: Direction
    name: str = field(default="Propagate")


def take_painting(workspace: Workspace, painted: Painted, wish: Wish) -> Plan:
    """Make prompts of what the user painted, keep them, and say what is to be done.

    Args:
        workspace: Locked, and without a run.
        painted: What the user sees.
        wish: What the run shall do.

    Raises:
        UserError: The request cannot be meant, or there is nothing to start from. Where the painting itself could be
            taken it is kept all the same.
    """
    view = View(painted.grid, workspace.image)
    _check_edits(wish.edits, view)
    labels = view.to_image(painted.labels)
    before, old = workspace.shown, workspace.present
    state = without_objects(old.session, _deleted(old.session, painted.objects, labels))
    touched: set[int] = set()
    if view.turn is not None:
        edits = [
            Edit(view.axis_to_image(edit.axis), view.index_to_image(edit.axis, edit.index), edit.values)
            for edit in wish.edits
        ]
        prompts = prompts_of_edits(labels, edits, before, state)
        touched = {prompt.label for prompt in prompts}
        slices = {(prompt.axis, prompt.index) for prompt in prompts}
        state = with_prompts(state, prompts)
    else:
        slices = {(edit.axis, edit.index) for edit in wish.edits}
        state, touched = _painted_elsewhere(workspace, painted, wish.edits, view, state)
    state = _limited(state, wish, view)
    snapshot = Snapshot(
        session=state,
        brought=_brought(labels, state, view),
        locked=_locked(labels, painted.objects),
        finished=old.finished - touched,
    )
    place = ""
    if len(slices) == 1:
        ((axis, index),) = slices
        place = f" on slice {view.index_from_image(axis, index)}"
    elif slices:
        place = f" on {len(slices)} slices"
    timeline = workspace.record.timeline
    if state.prompts != old.session.prompts:
        names = {one.value: one.name for one in painted.objects or [] if one.name}
        name = run_name("Paint", sorted(touched), lambda value: names.get(value) or workspace.name_of(value))
        timeline = timeline.do(f"{name}{place}" if touched else "Delete objects", snapshot)
    elif snapshot != old:
        timeline = replace(timeline, present=snapshot)
    if timeline is not workspace.record.timeline or painted.objects is not None:
        workspace.write(timeline, grid=painted.grid, objects=painted.objects)
    values = _asked(workspace, state, wish.selected)
    _check_limits(workspace, state, values, view)
    direction = _direction(workspace.name_of, state, values, wish.direction, view)
    return Plan(
        snapshot=workspace.present,
        view=view,
        client_labels=painted.labels,
        values=values,
        direction=direction,
        name=run_name("Propagate", values, workspace.name_of),
    )


def accept(workspace: Workspace, painted: Painted, values: Sequence[int] | None) -> NDArray[np.uint16]:
    """Keep objects as the user sees them now; everything else that was painted is kept as well.

    Args:
        workspace: Locked, and without a run.
        painted: What the user sees.
        values: The objects that are accepted; None for all.

    Returns:
        `(I, J, K)`, the label map on the image's grid: all objects accepted now or before.

    Raises:
        UserError: There is nothing to accept.
    """
    image = workspace.image
    view = View(painted.grid, image)
    labels = view.to_image(painted.labels)
    before, old = workspace.shown, workspace.present
    there = {int(value) for value in np.unique(labels) if value}
    known = there | set(before.result.states)
    asked = sorted(there if values is None else set(values))
    missing = [value for value in asked if value not in known]
    if not asked or missing:
        msg = "Nothing is painted. Paint at least one object, then accept."
        if missing:
            msg = f"There is no object {missing[0]} to accept. Paint it first."
        raise UserError(msg)
    state = without_objects(old.session, _deleted(old.session, painted.objects, labels))
    edits = [edit for edit in changed_slices(labels, before, image.spacing) if edit.values[0] not in asked]
    state = with_prompts(state, prompts_of_edits(labels, edits, before, state))
    state = with_prompts(state, accepted_prompts(labels, asked, before, state, image.spacing))
    touched = {edit.values[0] for edit in edits}
    snapshot = Snapshot(
        session=state,
        brought=_brought(labels, state, view),
        locked=_locked(labels, painted.objects),
        finished=(old.finished - touched) | set(asked),
    )
    name = run_name("Accept", asked, workspace.name_of)
    workspace.write(workspace.record.timeline.do(name, snapshot), grid=painted.grid, objects=painted.objects)
    shown = workspace.shown.labels
    return np.where(np.isin(shown, sorted(snapshot.finished)), shown, 0).astype(np.uint16)


def empty_objects(workspace: Workspace, except_named: Collection[str] = ()) -> set[int]:
    """Objects that the client lists and that are nowhere: looked for, and not there.

    Args:
        workspace: Locked.
        except_named: Names that are listed for every image, whether somebody looks for the object or not.
    """
    there = {int(value) for value in np.unique(workspace.shown.labels)}
    empty = set(workspace.record.listed).difference(there)
    return {value for value in empty if workspace.name_of(value) not in except_named}


def _check_edits(edits: Sequence[Edit], view: View) -> None:
    for edit in edits:
        size = view.grid.size[edit.axis]
        if not 0 <= edit.index < size:
            msg = f"There is no slice {edit.index} along axis {edit.axis}: slices are counted from 0 to {size - 1}."
            raise UserError(msg)


def _deleted(state: SessionState, objects: list[ImageObject] | None, labels: NDArray[np.uint16]) -> list[int]:
    """Objects that the client does not list any more and that are nowhere in what it shows."""
    if not objects:
        return []
    listed = {one.value for one in objects}
    return [value for value in state.labels if value not in listed and not (labels == value).any()]


def _painted_elsewhere(
    workspace: Workspace, painted: Painted, edits: Sequence[Edit], view: View, state: SessionState
) -> tuple[SessionState, set[int]]:
    """Prompts from a grid that does not hold the image's voxels: the touched slices, resampled."""
    only = np.zeros_like(painted.labels)
    for edit in edits:
        source = np.moveaxis(painted.labels, edit.axis, 0)[edit.index]
        chosen = source if not edit.values else np.where(np.isin(source, edit.values), source, 0)
        target = np.moveaxis(only, edit.axis, 0)[edit.index]
        target[chosen > 0] = chosen[chosen > 0]
    if not only.any():
        return state, set()
    session = workspace.session()
    session.restore(state)
    session.paint_volume(view.to_image(only))
    return session.state, {int(value) for value in np.unique(only) if value}


def _limited(state: SessionState, wish: Wish, view: View) -> SessionState:
    if wish.first is None and wish.last is None:
        return replace(state, first=None, last=None)
    if wish.edits:
        axis = wish.edits[0].axis
    else:
        painted = [found for value in state.labels if (found := state.propagation_axis(value)) is not None]
        axis = view.axis_from_image(max(set(painted), key=painted.count) if painted else 2)
    size = view.grid.size[axis]
    for name, value in (("first", wish.first), ("last", wish.last)):
        if value is not None and not 0 <= value < size:
            msg = f"The {name} slice {value} is outside the image: slices are counted from 0 to {size - 1}."
            raise UserError(msg)
    first = None if wish.first is None else view.index_to_image(axis, wish.first)
    last = None if wish.last is None else view.index_to_image(axis, wish.last)
    if view.turn is not None and view.turn.flipped[axis]:
        first, last = last, first
    if first is not None and last is not None and first > last:
        msg = f"The first slice {wish.first} lies behind the last slice {wish.last}. Swap them."
        raise UserError(msg)
    return replace(state, first=first, last=last)


def _brought(labels: NDArray[np.uint16], state: SessionState, view: View) -> Voxels | None:
    """The labels that nothing said stands for."""
    shown: Shown = show(Snapshot(session=state), view.image.shape)
    differing = np.where(labels != shown.labels, labels, 0).astype(np.uint16)
    return Voxels.of(unexplained(differing, shown.result))


def _locked(labels: NDArray[np.uint16], objects: list[ImageObject] | None) -> Voxels | None:
    values = [one.value for one in objects or [] if one.locked]
    return Voxels.of(np.where(np.isin(labels, values), labels, 0).astype(np.uint16)) if values else None


def _asked(workspace: Workspace, state: SessionState, selected: Sequence[int] | None) -> list[int]:
    painted = [value for value in state.labels if state.propagation_axis(value) is not None]
    if not painted:
        msg = "Nothing is painted. Paint at least one object on one slice, then run."
        raise UserError(msg)
    locked = {one.value for one in workspace.record.objects.values() if one.locked}
    if selected is None:
        asked = [value for value in painted if value not in locked]
    else:
        asked = sorted(set(selected))
        for value in asked:
            if value not in painted:
                msg = f"{workspace.name_of(value)} is painted on no slice. Paint it on one slice, then run."
                raise UserError(msg)
            if value in locked:
                msg = f"{workspace.name_of(value)} is locked. Unlock it, or run the others."
                raise UserError(msg)
    if not asked:
        msg = "All painted objects are locked, or none was selected. Unlock or select one, then run."
        raise UserError(msg)
    return asked


def _check_limits(workspace: Workspace, state: SessionState, values: Sequence[int], view: View) -> None:
    for value in values:
        axis = state.propagation_axis(value)
        for prompt in state.prompts_of(value):
            if prompt.axis == axis and prompt.starts_passes:
                first, last = state.limits(view.image.shape[axis])
                if not first <= prompt.index <= last:
                    shown = view.index_from_image(axis, prompt.index)
                    msg = (
                        f"{workspace.name_of(value)} is painted on slice {shown}, outside the first and last slice."
                        " Widen them, or erase it there."
                    )
                    raise UserError(msg)


def _direction(
    name_of: Callable[[int], str], state: SessionState, values: Sequence[int], wish: Direction, view: View
) -> Direction:
    """Which way along the image's axes.

    Raises:
        UserError: Forward in the client's indices is forward for one object and backward for another.
    """
    if wish is Direction.BOTH or view.turn is None:
        return wish
    axes = {value: axis for value in values if (axis := state.propagation_axis(value)) is not None}
    flipped = {value: view.turn.flipped[view.axis_from_image(axis)] for value, axis in axes.items()}
    if len(set(flipped.values())) > 1:
        one, other = (next(value for value in values if flipped[value] is turned) for turned in (False, True))
        msg = (
            f"{name_of(one)} and {name_of(other)} are painted in different planes, and {wish} is not the same way in"
            " both. Select one of them and run, then the other; or run both ways."
        )
        raise UserError(msg)
    turned = {Direction.FORWARD: Direction.BACKWARD, Direction.BACKWARD: Direction.FORWARD}
    return turned[wish] if any(flipped.values()) else wish
