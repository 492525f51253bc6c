"""Snapshots: all that one client has said about one image, and how painting changes it.

A snapshot never changes; steps back and forth exchange it. Beside what the session knows it holds voxels that no prompt
stands for: labels that the client brought along (loaded from a file, drawn by another tool), which stay until a run of
their object reaches them, and voxels of locked objects, which stay whatever is computed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imos.imaging import thin_axis
from imos.propagation.composition import SessionState, compose
from imos.propagation.prompts import Place, Prompt
from imos.propagation.result import Result
from imos.propagation.states import SliceState

STEPS = 50
"""Steps that can be undone."""
LONGEST_NAME = 200
"""Characters of the name of an object."""


@dataclass(frozen=True, slots=True)
class ImageObject:
    """One object that the client segments.

    Attributes:
        value: Its label value, 1…65535.
        name: What the client calls it.
        color: Red, green and blue, 0…255, or None.
        locked: Whether runs for other objects must leave every voxel of it.
    """

    value: int
    name: str
    color: tuple[int, int, int] | None = None
    locked: bool = False


@dataclass(frozen=True, slots=True)
class Voxels:
    """A label map kept small: the box that holds its labels, compressed.

    Attributes:
        corner: First voxel of the box.
        size: Of the box.
        packed: Its uint16 labels.
    """

    corner: tuple[int, int, int]
    size: tuple[int, int, int]
    packed: bytes

    @classmethod
    def of(cls, labels: NDArray[np.uint16]) -> Voxels | None:
        """Pack `(I, J, K)` labels; None when there are none."""
        if not labels.any():
            return None
        box = []
        for axis in range(3):
            used = np.flatnonzero(labels.any(axis=tuple(other for other in range(3) if other != axis)))
            box.append(slice(int(used[0]), int(used[-1]) + 1))
        part = np.ascontiguousarray(labels[tuple(box)], dtype="<u2")
        corner = (box[0].start, box[1].start, box[2].start)
        return cls(corner, (part.shape[0], part.shape[1], part.shape[2]), zlib.compress(part.tobytes(), 1))

    def on(self, shape: tuple[int, int, int]) -> NDArray[np.uint16]:
        """The whole label map, for an image of `shape`."""
        labels = np.zeros(shape, np.uint16)
        part = np.frombuffer(zlib.decompress(self.packed), "<u2").reshape(self.size)
        box = tuple(slice(start, start + length) for start, length in zip(self.corner, self.size, strict=True))
        labels[box] = part
        return labels


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is known at one moment.

    Attributes:
        session: Prompts and what the passes found.
        brought: Labels that the client brought along and that no prompt stands for.
        locked: Voxels of objects that were locked in the latest run.
        finished: Objects that the user accepted as a whole and has not painted since.
    """

    session: SessionState = field(default_factory=SessionState)
    brought: Voxels | None = None
    locked: Voxels | None = None
    finished: frozenset[int] = frozenset()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was said at all."""
        return not self.session.prompts and not self.session.outcomes and self.brought is None and self.locked is None


@dataclass(frozen=True, slots=True)
class Timeline:
    """The present snapshot, the steps that led to it, and those undone.

    Attributes:
        present: What holds now.
        past: Name of each step and what was before it, the latest last.
        future: Name of each step undone and what it led to, the next one last.
    """

    present: Snapshot = field(default_factory=Snapshot)
    past: tuple[tuple[str, Snapshot], ...] = ()
    future: tuple[tuple[str, Snapshot], ...] = ()

    def do(self, name: str, snapshot: Snapshot) -> Timeline:
        """Go on; what was undone before is gone."""
        return Timeline(snapshot, (*self.past, (name, self.present))[-STEPS:])

    def undo(self) -> Timeline:
        """One step back; the same when there is none."""
        if not self.past:
            return self
        name, snapshot = self.past[-1]
        return Timeline(snapshot, self.past[:-1], (*self.future, (name, self.present)))

    def redo(self) -> Timeline:
        """The step undone last, again; the same when there is none."""
        if not self.future:
            return self
        name, snapshot = self.future[-1]
        return Timeline(snapshot, (*self.past, (name, self.present)), self.future[:-1])

    @property
    def undoable(self) -> list[str]:
        """Names of the steps that can be undone, the next one first."""
        return [name for name, _ in reversed(self.past)]

    @property
    def redoable(self) -> list[str]:
        """Names of the steps that can be done again, the next one first."""
        return [name for name, _ in reversed(self.future)]


@dataclass(frozen=True, eq=False, slots=True)
class Shown:
    """What a snapshot looks like.

    Attributes:
        labels: `(I, J, K)` label map on the image's grid: uint8, or uint16 when a value exceeds 255.
        result: What the session says, without the other voxels.
    """

    labels: NDArray[Any]
    result: Result


@dataclass(frozen=True, slots=True)
class Edit:
    """One slice that the user touched by hand, on the image's grid.

    Attributes:
        axis: Image axis across which it lies.
        index: Slice index.
        values: Objects that were touched on it; empty for all that are there.
    """

    axis: int
    index: int
    values: tuple[int, ...] = ()


def show(snapshot: Snapshot, shape: tuple[int, int, int]) -> Shown:
    """Put everything that a snapshot knows into one label map.

    Args:
        snapshot: What is known.
        shape: `(I, J, K)` of the image.
    """
    result = compose(snapshot.session, shape)
    labels: NDArray[Any] = result.labels
    if snapshot.brought is not None:
        brought = unexplained(snapshot.brought.on(shape), result)
        labels = np.where(labels == 0, brought, labels)
    if snapshot.locked is not None:
        locked = snapshot.locked.on(shape)
        labels = np.where(locked > 0, locked, labels)
    if labels.dtype != np.uint8 and labels.max(initial=0) <= 255:
        labels = labels.astype(np.uint8)
    return Shown(labels, result)


def unexplained(labels: NDArray[np.uint16], result: Result) -> NDArray[np.uint16]:
    """A label map without the slices on which the session knows something about the object."""
    kept = labels.copy()
    for value, states in result.states.items():
        volume = np.moveaxis(kept, result.axes[value], 0)
        for index, state in states.items():
            if state is not SliceState.UNKNOWN:
                plane = volume[index]
                plane[plane == value] = 0
    return kept


def with_prompts(state: SessionState, prompts: Iterable[Prompt]) -> SessionState:
    """A session state in which more was said; what is said later counts more."""
    said = dict(state.prompts)
    for prompt in prompts:
        said.pop(prompt.place, None)
        said[prompt.place] = prompt
    return replace(state, prompts=said)


def without_objects(state: SessionState, values: Iterable[int]) -> SessionState:
    """A session state that knows nothing of some objects."""
    gone = set(values)
    return replace(
        state,
        prompts={place: prompt for place, prompt in state.prompts.items() if place.label not in gone},
        outcomes={value: outcome for value, outcome in state.outcomes.items() if value not in gone},
    )


def prompts_of_edits(
    labels: NDArray[np.uint16], edits: Sequence[Edit], before: Shown, state: SessionState
) -> list[Prompt]:
    """What the slices that the user touched say.

    A touched object that is on the slice is painted there. One that was there before and is not any more was erased:
    it is absent. One that never was there says nothing.

    Args:
        labels: `(I, J, K)` what the user sees.
        edits: The slices.
        before: What the user saw before.
        state: What was said before.
    """
    prompts = []
    for edit in edits:
        plane = np.moveaxis(labels, edit.axis, 0)[edit.index]
        old = np.moveaxis(before.labels, edit.axis, 0)[edit.index]
        values = edit.values or tuple(int(value) for value in np.unique(plane) if value)
        for value in values:
            mask = plane == value
            said = state.prompts.get(Place(value, edit.axis, edit.index))
            if not mask.any() and said is None and not (old == value).any():
                continue
            prompt = Prompt.of_mask(value, edit.axis, edit.index, mask)
            if said is None or not said.painted or said.accepted or said.digest != prompt.digest:
                prompts.append(prompt)
    return prompts


def changed_slices(labels: NDArray[np.uint16], before: Shown, spacing: Sequence[float]) -> list[Edit]:
    """The slices on which a label map differs from what was known, object by object.

    Args:
        labels: `(I, J, K)` what the user sees.
        before: What was known.
        spacing: Mm along each axis.
    """
    differs = labels != before.labels
    if not differs.any():
        return []
    values = np.union1d(np.unique(labels[differs]), np.unique(before.labels[differs]))
    edits: list[Edit] = []
    for value in values[values != 0].tolist():
        changed = (labels == value) != (before.labels == value)
        axis = before.result.axes.get(value)
        if axis is None:
            axis = thin_axis(changed, spacing)
        used = np.flatnonzero(changed.any(axis=tuple(other for other in range(3) if other != axis)))
        edits.extend(Edit(axis, int(index), (value,)) for index in used)
    return edits


def accepted_prompts(
    labels: NDArray[np.uint16], values: Iterable[int], before: Shown, state: SessionState, spacing: Sequence[float]
) -> list[Prompt]:
    """Every slice of some objects, accepted as the user sees it.

    Args:
        labels: `(I, J, K)` what the user sees.
        values: The objects.
        before: What was known.
        state: What was said.
        spacing: Mm along each axis.
    """
    prompts = []
    for value in values:
        mask = labels == value
        states: Mapping[int, SliceState] = before.result.states.get(value, {})
        axis = before.result.axes.get(value)
        if axis is None:
            if not mask.any():
                continue
            axis = thin_axis(mask, spacing)
        volume = np.moveaxis(mask, axis, 0)
        old = np.moveaxis(before.labels == value, axis, 0)
        for index, plane in enumerate(volume):
            known = states.get(index, SliceState.UNKNOWN) is not SliceState.UNKNOWN
            if not known and not plane.any():
                continue
            said = state.prompts.get(Place(value, axis, index))
            if said is None:
                # By hand: a start of passes later on. From a pass or brought along: only kept.
                by_hand = bool((plane != old[index]).any())
                said = replace(Prompt.of_mask(value, axis, index, plane), painted=by_hand)
            prompts.append(said.accept(plane))
    return prompts


def run_name(verb: str, values: Sequence[int], name_of: Callable[[int], str]) -> str:
    """Name of a step, such as "Propagate liver"; "Propagate 4 objects" where there are many."""
    if len(values) > 2:
        return f"{verb} {len(values)} objects"
    return f"{verb} {', '.join(name_of(value) for value in values)}"
