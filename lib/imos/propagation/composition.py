"""Composition: from what is known about each object to one label map.

Painted and accepted voxels come back as they are, and beat propagated ones; where two of them contradict each other the
one said later holds. Among propagated objects a voxel goes to the one with the larger probability; where no object
exceeds one half it is background. A slice painted in another plane says along its whole plane where the object is and
where it is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from imos.propagation.blending import Layer, Stripe
from imos.propagation.crops import FOREGROUND
from imos.propagation.prompts import Place, Prompt
from imos.propagation.result import Result
from imos.propagation.states import SliceState
from imos.propagation.suggestion import expected_loss, suggest


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the passes of one object found, prompts aside.

    Attributes:
        axis: Array axis that the passes walked along.
        layers: Slice → the object there.
        ended: Slices that passes came for, but every one ended before.
    """

    axis: int
    layers: Mapping[int, Layer]
    ended: frozenset[int]


@dataclass(frozen=True, slots=True)
class SessionState:
    """All that a session knows; never changed, only replaced.

    Attributes:
        prompts: Painted and accepted slices, in the order in which they were said.
        outcomes: label → what its passes found.
        first: First slice that may show an object, along its own axis; None for the image's first.
        last: Last slice that may.
    """

    prompts: Mapping[Place, Prompt] = field(default_factory=dict)
    outcomes: Mapping[int, Outcome] = field(default_factory=dict)
    first: int | None = None
    last: int | None = None

    @property
    def labels(self) -> list[int]:
        """All objects that something is known of, in order."""
        return sorted({place.label for place in self.prompts} | set(self.outcomes))

    def prompts_of(self, label: int) -> list[Prompt]:
        """What was painted or accepted of an object, in the order in which it was said."""
        return [prompt for prompt in self.prompts.values() if prompt.label == label]

    def propagation_axis(self, label: int) -> int | None:
        """Axis that an object's next passes walk along: across the plane in which most of its slices are painted.

        Between planes with equally many the axis of the passes so far stays, else the plane painted first is taken.
        None where nothing is painted, only absence said.
        """
        painted = [prompt.axis for prompt in self.prompts_of(label) if prompt.starts_passes]
        if not painted:
            return None
        most = max(painted.count(axis) for axis in painted)
        best = [axis for axis in painted if painted.count(axis) == most]
        outcome = self.outcomes.get(label)
        return outcome.axis if outcome is not None and outcome.axis in best else best[0]

    def shown_axis(self, label: int) -> int:
        """Axis along which an object's slices are numbered now."""
        if label in self.outcomes:
            return self.outcomes[label].axis
        axis = self.propagation_axis(label)
        return self.prompts_of(label)[0].axis if axis is None else axis

    def limits(self, count: int) -> tuple[int, int]:
        """First and last slice that may show an object, of `count` slices."""
        return self.first or 0, count - 1 if self.last is None else min(self.last, count - 1)


def compose(state: SessionState, shape: tuple[int, int, int]) -> Result:
    """Put everything together.

    Args:
        state: What is known.
        shape: `(I, J, K)` of the image.
    """
    everything = state.labels
    # Slices lie together in memory along the axis that is walked most: drawing is several times faster.
    axes = {label: state.shown_axis(label) for label in everything}
    axis = Result.main_axis(axes)
    turned = (shape[axis], *(size for other, size in enumerate(shape) if other != axis))
    labels: NDArray[np.uint8] | NDArray[np.uint16] = np.moveaxis(np.zeros(turned, np.uint8), 0, axis)
    if max(everything, default=0) > 255:
        labels = np.moveaxis(np.zeros(turned, np.uint16), 0, axis)
    best = np.moveaxis(np.zeros(turned, np.uint8), 0, axis) if len(state.outcomes) > 1 else None
    for label in sorted(state.outcomes):
        _draw(state, label, labels, best)
    for prompt in state.prompts.values():
        plane, mask = np.moveaxis(labels, prompt.axis, 0)[prompt.index], prompt.mask
        plane[(plane == prompt.label) & ~mask] = 0
        plane[mask] = prompt.label
    labels.flags.writeable = False  # it is shared by all who ask; who wants to change it makes a copy
    states = {label: _slice_states(state, label, shape[axes[label]]) for label in everything}
    return Result(
        labels=labels,
        confidence={label: _confidence(state, label, states[label]) for label in everything},
        states=states,
        suggested={label: _suggested(state, label, states[label]) for label in everything},
        axes=axes,
    )


def _draw(
    state: SessionState,
    label: int,
    labels: NDArray[np.uint8] | NDArray[np.uint16],
    best: NDArray[np.uint8] | None,
) -> None:
    """Draw one object's propagated slices where its probability is the largest so far."""
    outcome = state.outcomes[label]
    volume = np.moveaxis(labels, outcome.axis, 0)
    first, last = state.limits(volume.shape[0])
    crossing = crossing_masks(state.prompts_of(label), outcome.axis)
    for index, layer in outcome.layers.items():
        crop = layer.crop
        if not first <= index <= last or crop.area == 0 or Place(label, outcome.axis, index) in state.prompts:
            continue
        levels = crop.levels()
        inside = levels >= FOREGROUND
        for prompt, mask in crossing:
            stripe = Stripe.of(prompt, mask, outcome.axis, index)
            lines = inside if stripe.dimension == 0 else inside.T
            offset, other = crop.window if stripe.dimension == 0 else crop.window[::-1]
            if offset.start <= stripe.position < offset.stop:
                lines[stripe.position - offset.start] &= stripe.known[other]
        if best is not None:
            rival = np.moveaxis(best, outcome.axis, 0)[index][crop.window]
            inside &= levels > rival
            rival[inside] = levels[inside]
        volume[index][crop.window][inside] = label


def crossing_masks(prompts: Iterable[Prompt], axis: int) -> list[tuple[Prompt, NDArray[np.bool_]]]:
    """The prompts that lie in other planes than the slices along `axis`, unpacked."""
    return [(prompt, prompt.mask) for prompt in prompts if prompt.axis != axis]


def _slice_states(state: SessionState, label: int, count: int) -> dict[int, SliceState]:
    axis = state.shown_axis(label)
    outcome = state.outcomes.get(label)
    first, last = state.limits(count)

    def state_of(index: int) -> SliceState:
        prompt = state.prompts.get(Place(label, axis, index))
        if prompt is not None:
            if prompt.accepted:
                return SliceState.ACCEPTED
            return SliceState.ABSENT if prompt.is_empty else SliceState.PROMPTED
        if not first <= index <= last:
            return SliceState.ABSENT
        if outcome is None:
            return SliceState.UNKNOWN
        if index in outcome.layers:
            return SliceState.PROPAGATED if outcome.layers[index].crop.area else SliceState.ABSENT
        return SliceState.ABSENT if index in outcome.ended else SliceState.UNKNOWN

    return {index: state_of(index) for index in range(count)}


def _confidence(state: SessionState, label: int, states: Mapping[int, SliceState]) -> dict[int, float]:
    axis = state.shown_axis(label)
    outcome = state.outcomes.get(label)
    first, last = state.limits(len(states))
    confidence = {}
    for index in states:
        if Place(label, axis, index) in state.prompts:
            confidence[index] = 1.0
        elif outcome is not None and index in outcome.layers and first <= index <= last:
            confidence[index] = min(1.0, max(0.0, float(outcome.layers[index].confidence)))
    return confidence


def _suggested(state: SessionState, label: int, states: Mapping[int, SliceState]) -> int | None:
    outcome = state.outcomes.get(label)
    if outcome is None:
        return None
    losses = {
        index: expected_loss(outcome.layers[index].confidence, outcome.layers[index].crop.area)
        for index, slice_state in states.items()
        if slice_state is SliceState.PROPAGATED
    }
    settled = [index for index in states if Place(label, outcome.axis, index) in state.prompts]
    return suggest(losses, settled)
