"""Session: paint, propagate, look, correct, accept; one image, any number of objects.

A session is set first and then asked: `paint` says what is where, `propagate` carries it through the volume. Painting
again re-computes only the slices between the neighbouring prompts; what was painted or accepted always comes back voxel
for voxel. Every step can be undone exactly.

An object's passes walk across the plane in which most of its slices are painted. Slices painted in other planes are
no starts of passes, but hold voxel for voxel: each crosses the propagated slices in a line, corrects the result there,
and its correction fades out over a few voxels to both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from imos.errors import UserError
from imos.imaging import ImageKind, Plane, choose_window, plane_axis, thin_axis
from imos.propagation.blending import Layer, Stripe, blend, one_sided, pull_to_stripe
from imos.propagation.composition import Outcome, SessionState, compose, crossing_masks
from imos.propagation.cores import passes_at_once, side_by_side, threads_for
from imos.propagation.crops import Crop
from imos.propagation.history import History
from imos.propagation.passes import Pass, PassCache, PassKey
from imos.propagation.plan import Direction, Leg, Segment, segments_of
from imos.propagation.prompts import Place, Prompt, as_labels, as_list, check_label, check_label_map, label_values
from imos.propagation.result import Progress, Result
from imos.propagation.slices import SliceSource, VolumeSlices, plane_of
from imos.propagation.states import SliceState
from imos.propagation.trackers import tracker_for

if TYPE_CHECKING:
    from imos.imaging import Image
    from imos.propagation.model import Model
    from imos.propagation.track import Estimate


class Tracker(Protocol):
    """One pass of one object; `imos.propagation.trackers` names those that are used."""

    def __call__(
        self, model: Model, slices: SliceSource, mask: NDArray[np.bool_], start: int, stop: int
    ) -> Iterator[Estimate]:
        """Carry an object from its painted slice `start` (not yielded) to `stop`; end early when the object ends."""


BlendKey = tuple[PassKey, PassKey, int]
Scalar = TypeVar("Scalar", bound=np.generic)


class Session:
    """Prompts, results and history of one image.

    Not for several threads at once; several sessions may share a model.

    Args:
        model: What `imos.load` returned.
        image: What `imos.read` returned.
        first: First slice that may show an object, along its propagation axis; None for the image's first.
        last: Last slice that may, inclusive; None for the image's last.
        tracker: Makes one pass; None for the model's own.

    Raises:
        UserError: `first` and `last` are no slices of the image.
    """

    def __init__(
        self,
        model: Model,
        image: Image,
        *,
        first: int | None = None,
        last: int | None = None,
        tracker: Tracker | None = None,
    ) -> None:
        self._model = model
        self._image = image
        self._check_limits(first, last)
        self._own_tracker = tracker is not None
        self._tracker = tracker or tracker_for(model, image.kind)
        self._lock = Lock()
        self._history = History(SessionState(first=first, last=last))
        self._passes = PassCache()
        self._blends: dict[int, dict[BlendKey, Layer]] = {}
        self._latest_source: tuple[str, SliceSource] | None = None
        self._composed: tuple[SessionState, Result] | None = None

    # What was said

    @property
    def image(self) -> Image:
        """The image."""
        return self._image

    @property
    def labels(self) -> list[int]:
        """The objects painted so far, in order."""
        return self._state.labels

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """All painted and accepted slices, in the order in which they were said."""
        return tuple(self._state.prompts.values())

    @property
    def limits(self) -> tuple[int | None, int | None]:
        """First and last slice that may show an object; None for the image's own."""
        return self._state.first, self._state.last

    def paint(self, *, plane: Plane | str, index: int, labels: ArrayLike) -> None:
        """Say where objects are on one slice.

        The slice speaks for the objects painted on it and is silent about all others. Painting an object again on the
        same slice replaces what was painted of it there.

        Args:
            plane: The plane of the slice: `axial`, `coronal`, `sagittal`, or `time` (videos; `auto` there too).
            index: Slice index along the array axis across the plane, from 0.
            labels: `(H, W)` label values, 0 = silent; H and W are the two other array axes, in order.

        Raises:
            UserError: No such plane or slice, another shape, values that are no labels, or nothing painted.
        """
        axis, index = self._locate(plane, index)
        array = check_label_map(labels, self._slice_shape(axis), f"slice {index} of the {plane} plane")
        painted = [Prompt.of_mask(label, axis, index, array == label) for label in label_values(array)]
        self._say(f"paint slice {index}", painted)

    def paint_volume(self, labels: ArrayLike, plane: Plane | str = Plane.AUTO) -> None:
        """Say where objects are on every painted slice of a label map; one step to undo.

        Args:
            labels: `(I, J, K)` label values on the image's grid; 0 = silent.
            plane: The plane in which the slices are painted; `auto`: for each object the one in which it is thin.

        Raises:
            UserError: No such plane, another shape, values that are no labels, or nothing painted.
        """
        axis = None if self._is_auto_of_volume(plane) else plane_axis(self._image, plane)
        array = check_label_map(labels, self._image.shape, "the image")
        corner, array = _box(array)
        painted = []
        for label in label_values(array):
            inner, part = _box(array == label)
            offset = [outside + inside for outside, inside in zip(corner, inner, strict=True)]
            across = thin_axis(part, self._image.spacing) if axis is None else axis
            shape = self._slice_shape(across)
            inside = tuple(
                slice(offset[other], offset[other] + part.shape[other]) for other in range(3) if other != across
            )
            for number, flat in enumerate(np.moveaxis(part, across, 0)):
                if flat.any():
                    mask = np.zeros(shape, bool)
                    mask[inside] = flat
                    painted.append(Prompt.of_mask(label, across, offset[across] + number, mask))
        self._say(f"paint {len({(prompt.axis, prompt.index) for prompt in painted})} slices", painted)

    def absent(self, label: int, plane: Plane | str, index: int) -> None:
        """Say that an object is not on a slice: passes stop there.

        Args:
            label: The object.
            plane: As in `paint`.
            index: As in `paint`.

        Raises:
            UserError: No label, no such plane or slice.
        """
        label = check_label(label)
        axis, index = self._locate(plane, index)
        nothing = np.zeros(self._slice_shape(axis), bool)
        self._say(f"absent on slice {index}", [Prompt.of_mask(label, axis, index, nothing)])

    def remove(self, label: int, plane: Plane | str, index: int) -> None:
        """Take back what was painted, accepted or said to be absent of an object on one slice.

        Raises:
            UserError: Nothing was said about the object there.
        """
        place = Place(check_label(label), *self._locate(plane, index))
        if place not in self._state.prompts:
            msg = f"Nothing was painted or accepted of object {label} on slice {index} of the {plane} plane."
            raise UserError(msg)
        prompts = {other: prompt for other, prompt in self._state.prompts.items() if other != place}
        outcomes = dict(self._state.outcomes)
        if not any(other.label == label for other in prompts):
            outcomes.pop(label, None)
        self._history.do(f"remove slice {index}", replace(self._state, prompts=prompts, outcomes=outcomes))

    def limit(self, first: int | None = None, last: int | None = None) -> None:
        """Say that no object is before `first` or behind `last`, along its propagation axis.

        Args:
            first: First slice; None for the image's first.
            last: Last slice, inclusive; None for the image's last.

        Raises:
            UserError: No slices of the image, or none between them.
        """
        self._check_limits(first, last)
        if (first, last) != self.limits:
            self._history.do("set limits", replace(self._state, first=first, last=last))

    def accept(self, label: int, indices: int | Iterable[int] | None = None) -> None:
        """Keep an object as it is now on some slices: nothing but painting there changes it again.

        Args:
            label: The object.
            indices: Slices along the object's axis (`result.axes[label]`); None for all that are known.

        Raises:
            UserError: Nothing is known about the object on one of the slices.
        """
        label = check_label(label)
        result = self.result
        states = result.states.get(label)
        if states is None:
            msg = f"There is no object {label} to accept. {self._known_objects()}"
            raise UserError(msg)
        axis = result.axes[label]
        if indices is None:
            wanted = [index for index, state in states.items() if state is not SliceState.UNKNOWN]
        else:
            wanted = [indices] if isinstance(indices, int | np.integer) else as_list(indices, "slices")
        for index in wanted:
            if isinstance(index, bool) or not isinstance(index, int | np.integer):
                msg = f"A slice index is a whole number, not {index!r}."
                raise UserError(msg)
            if states.get(index, SliceState.UNKNOWN) is SliceState.UNKNOWN:
                msg = f"Nothing is known of object {label} on slice {index}. Propagate or paint there first."
                raise UserError(msg)
        volume = np.moveaxis(result.labels, axis, 0)
        accepted = []
        for index in wanted:
            said = self._state.prompts.get(Place(label, axis, index))
            if said is None:
                said = replace(Prompt.of_mask(label, axis, index, volume[index] == label), painted=False)
            accepted.append(said.accept(volume[index] == label))
        if accepted:
            self._say("accept", accepted)

    # What came of it

    @property
    def result(self) -> Result:
        """What is known now, without computing anything: painted, accepted, and propagated so far."""
        if self._composed is None or self._composed[0] is not self._state:
            self._composed = self._state, compose(self._state, self._image.shape)
        return self._composed[1]

    def propagate(
        self,
        labels: int | Iterable[int] | None = None,
        direction: Direction | str = Direction.BOTH,
        on_progress: Callable[[Progress], object] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Result:
        """Carry the painted slices through the volume.

        Only what new prompts touch is computed. Objects that are not asked for, and slices against the direction, keep
        what they had.

        Args:
            labels: Objects to propagate; None for all that are painted.
            direction: `both`, `forward` (towards higher slice indices) or `backward`.
            on_progress: Is called after every slice.
            should_stop: Is asked after every slice; True cancels: the session stays as it was (complete passes are kept
                for the next run) and the result says `cancelled`.

        Returns:
            The result; also kept as `session.result`.

        Raises:
            UserError: Nothing is painted, no such object or direction, or a painted slice outside the limits.
        """
        started = perf_counter()
        steps = _direction(direction).steps
        plans = {label: self._plan(label) for label in self._asked(labels)}
        legs = [leg for segments in plans.values() for segment in segments for leg in segment.legs(steps)]
        missing = [leg for leg in legs if self._finished(leg) is None]
        if not self._run(missing, on_progress, should_stop):
            self._passes.trim(self._needed())
            return replace(self.result, seconds=perf_counter() - started, computed=0, cancelled=True)
        outcomes = dict(self._state.outcomes)
        for label, segments in plans.items():
            outcomes[label] = self._outcome(label, segments, steps)
        if outcomes != self._state.outcomes:
            self._history.do("propagate", replace(self._state, outcomes=outcomes))
        self._passes.trim(self._needed())
        computed = sum(len(found.layers) for leg in missing if (found := self._finished(leg)) is not None)
        result = replace(self.result, seconds=perf_counter() - started, computed=computed)
        self._composed = self._state, result
        return result

    # Back and forth

    def undo(self) -> str | None:
        """Take back the last step; `result` is then what it was before. Returns its name, None when there was none."""
        return self._history.undo()

    def redo(self) -> str | None:
        """Do the step undone last again. Returns its name, None when there was none."""
        return self._history.redo()

    @property
    def undoable(self) -> tuple[str, ...]:
        """Names of the steps that can be undone, the next one first."""
        return self._history.undoable

    @property
    def redoable(self) -> tuple[str, ...]:
        """Names of the steps that can be done again, the next one first."""
        return self._history.redoable

    # Kept elsewhere

    @property
    def state(self) -> SessionState:
        """All that is known now. It never changes, so it can be kept, written down and gone back to."""
        return self._state

    def restore(self, state: SessionState) -> None:
        """Go on from a state that `state` gave, of this session or another one of the same image.

        There is nothing to undo then. Passes computed so far are kept for the next run.
        """
        self._history = History(state)

    # Inside

    @property
    def _state(self) -> SessionState:
        return self._history.present

    def _say(self, name: str, said: Sequence[Prompt]) -> None:
        prompts = dict(self._state.prompts)
        for prompt in said:
            prompts.pop(prompt.place, None)  # said later counts more, so it goes to the end
            prompts[prompt.place] = prompt
        self._history.do(name, replace(self._state, prompts=prompts))

    def _is_auto_of_volume(self, plane: Plane | str) -> bool:
        return plane == Plane.AUTO and self._image.kind is not ImageKind.VIDEO

    def _locate(self, plane: Plane | str, index: int) -> tuple[int, int]:
        if self._is_auto_of_volume(plane):
            msg = "One painted slice does not say in which plane it lies. Name the plane: axial, coronal or sagittal."
            raise UserError(msg)
        axis = plane_axis(self._image, plane)
        count = self._image.shape[axis]
        if isinstance(index, bool) or not isinstance(index, int | np.integer):
            msg = f"A slice index is a whole number of 0 to {count - 1}, not {index!r}."
            raise UserError(msg)
        if not 0 <= index < count:
            msg = f"There is no slice {index}: the image has {count} {plane} slices, counted from 0 to {count - 1}."
            raise UserError(msg)
        return axis, int(index)

    def _slice_shape(self, axis: int) -> tuple[int, int]:
        height, width = (size for other, size in enumerate(self._image.shape) if other != axis)
        return height, width

    def _check_limits(self, first: int | None, last: int | None) -> None:
        most = max(self._image.shape) - 1
        for name, value in (("first", first), ("last", last)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | np.integer)):
                msg = f"The {name} slice is a whole number, not {value!r}."
                raise UserError(msg)
            if value is not None and not 0 <= value <= most:
                msg = f"The {name} slice {value} is outside the image: slices are counted from 0 to {most}."
                raise UserError(msg)
        if first is not None and last is not None and first > last:
            msg = f"The first slice {first} lies behind the last slice {last}. Swap them."
            raise UserError(msg)

    def _known_objects(self) -> str:
        known = ", ".join(str(label) for label in self.labels)
        return f"Painted are: {known}." if known else "Nothing is painted yet."

    def _asked(self, labels: int | Iterable[int] | None) -> list[int]:
        painted = [label for label in self.labels if self._state.propagation_axis(label) is not None]
        if not painted:
            msg = "No slice is painted. Paint at least one object on one slice, then propagate."
            raise UserError(msg)
        if labels is None:
            return painted
        asked = as_labels(labels)
        for label in asked:
            if label not in painted:
                msg = f"Object {label} is painted on no slice. {self._known_objects()}"
                raise UserError(msg)
        return asked

    def _plan(self, label: int) -> list[Segment]:
        """The segments between an object's prompts along its axis."""
        axis = self._state.propagation_axis(label)
        prompts = [prompt for prompt in self._state.prompts_of(label) if prompt.painted and prompt.axis == axis]
        prompts.sort(key=lambda prompt: prompt.index)
        count = self._image.shape[prompts[0].axis]
        for value in self.limits:
            if value is not None and value >= count:
                msg = f"The limit {value} is outside: along the slices of object {label} the image has {count} slices."
                raise UserError(msg)
        first, last = self._state.limits(count)
        for prompt in prompts:
            if prompt.starts_passes and not first <= prompt.index <= last:
                msg = (
                    f"Object {label} is painted on slice {prompt.index}, outside the limits {first} to {last}."
                    " Widen the limits or remove that slice."
                )
                raise UserError(msg)
        inside = [prompt for prompt in prompts if first <= prompt.index <= last]
        return segments_of(inside, first, last)

    def _needed(self) -> set[PassKey]:
        """The passes that the present prompts use."""
        painted = [prompt for prompt in self._state.prompts.values() if prompt.starts_passes]
        return {PassKey.of(prompt, step) for prompt in painted for step in (1, -1)}

    def _finished(self, leg: Leg) -> Pass | None:
        """The pass of a leg, if it was computed and reaches far enough."""
        found = self._passes.get(leg.key)
        return found if found is not None and found.reaches(leg.prompt.index, leg.stop) else None

    def _run(
        self,
        legs: Sequence[Leg],
        on_progress: Callable[[Progress], object] | None,
        should_stop: Callable[[], bool] | None,
    ) -> bool:
        """Compute passes; False when cancelled."""
        total, done = sum(leg.length for leg in legs), 0
        found: dict[PassKey, dict[int, Layer]] = {leg.key: {} for leg in legs}
        if should_stop is not None and should_stop():
            return False
        limited = nullcontext() if self._own_tracker else threads_for(self._model)
        at_once = 1 if self._own_tracker else passes_at_once(self._model)
        with limited, closing(side_by_side(legs, self._steps, at_once)) as steps:
            for leg, step in steps:
                layers = found[leg.key]
                if step is None:
                    self._passes.put(leg.key, Pass(layers, leg.stop))
                    index, more = leg.stop, leg.length - len(layers)
                else:
                    index, more = step[0], 1
                    layers[index] = step[1]
                done += more
                if more and on_progress is not None:
                    layer = None if step is None else step[1]
                    on_progress(Progress(done, total, leg.prompt.label, index, leg.prompt.axis, layer))
                if step is not None and should_stop is not None and should_stop():
                    return False
        return True

    def _steps(self, leg: Leg) -> Iterator[tuple[int, Layer]]:
        """What one pass sees, slice by slice."""
        prompt = leg.prompt
        with self._lock:  # the passes of one prompt share its slices
            source = self._source(prompt)
        for estimate in self._tracker(self._model, source, prompt.mask, prompt.index, leg.stop):
            crop = Crop.of_probability(estimate.probability, estimate.top, estimate.left, prompt.shape)
            yield estimate.index, Layer(crop, float(estimate.existence), float(estimate.confidence))

    def _source(self, prompt: Prompt) -> SliceSource:
        """Slices in the window that shows the painted object best."""
        # The window depends on the pass's own painted slice alone: the pass stays valid whatever is painted elsewhere.
        if self._latest_source is None or self._latest_source[0] != prompt.digest:
            near = None
            if not self._image.is_rgb:
                # The object and a rim of a fifth of its size: the tissue, and what it must be told from.
                rim = max(2, round(0.2 * float(np.sqrt(prompt.crop.area))))
                disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * rim + 1, 2 * rim + 1))
                seen = cv2.dilate(prompt.mask.astype(np.uint8), disc) > 0
                near = plane_of(self._image.voxels, prompt.index, prompt.axis)[seen]
            window = choose_window(self._image, near)
            self._latest_source = prompt.digest, VolumeSlices(self._image, prompt.axis, window)
        return self._latest_source[1]

    def _outcome(self, label: int, segments: Sequence[Segment], steps: tuple[int, ...]) -> Outcome:
        """What an object's passes say together.

        Passes that are kept of earlier runs count in the directions asked for, and where the result has them already.
        """
        state, old = self._state, self._state.outcomes.get(label)
        axis = state.propagation_axis(label)
        assert axis is not None  # `_asked` saw to it
        kept = self._blends.get(label, {})
        blends: dict[BlendKey, Layer] = {}
        layers: dict[int, Layer] = {}
        ended: set[int] = set()
        crossing = crossing_masks((prompt for prompt in state.prompts_of(label) if prompt.painted), axis)
        for segment in segments:
            is_known = old is not None and old.axis == axis and any(index in old.layers for index in segment.indices)
            legs = segment.legs() if is_known else segment.legs(steps)
            found = [(leg, done) for leg in legs if (done := self._finished(leg)) is not None]
            if not found and not segment.is_said_absent:
                if old is not None and old.axis == axis:  # against the direction asked for: nothing is lost
                    layers.update({i: old.layers[i] for i in segment.indices if i in old.layers})
                    ended.update(old.ended.intersection(segment.indices))
                continue
            for index in segment.indices:
                seen = [(leg, done.layers[index]) for leg, done in found if index in done.layers]
                if not seen:
                    ended.add(index)
                    continue
                layer = seen[0][1]
                if len(found) == 2:
                    (lower, _), (upper, _) = found
                    gaps = index - lower.prompt.index, upper.prompt.index - index
                    if len(seen) == 2:
                        key = (lower.key, upper.key, index)
                        blends[key] = layer = kept.get(key) or blend((layer, seen[1][1]), gaps)
                    else:
                        layer = one_sided(layer, gaps if seen[0][0] is lower else gaps[::-1])
                for prompt, mask in crossing:
                    layer = pull_to_stripe(layer, Stripe.of(prompt, mask, axis, index), self._slice_shape(axis))
                layers[index] = layer
        self._blends[label] = blends
        return Outcome(axis, layers, frozenset(ended))


def _direction(direction: Direction | str) -> Direction:
    try:
        return Direction(direction)
    except ValueError as error:
        msg = f"There is no direction {str(direction)!r}. Use one of: {', '.join(Direction)}."
        raise UserError(msg) from error


def _box(painted: NDArray[Scalar]) -> tuple[tuple[int, ...], NDArray[Scalar]]:
    """Where what is painted begins in an array, and the smallest part of the array that holds it."""
    extent = []
    for axis in range(3):
        used = np.flatnonzero(painted.any(axis=tuple(other for other in range(3) if other != axis)))
        extent.append(slice(int(used[0]), int(used[-1]) + 1))
    return tuple(part.start for part in extent), painted[tuple(extent)]
