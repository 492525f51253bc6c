"""States of whole passes: what the network is asked on its own way, with the truth beside.

A network that learns from short sequences is good at their slices and poor at the twentieth: there it starts from masks
that it has never seen. So passes are walked as they are in use, with the network that is being trained, and what its
decoder was given on every slice becomes a training sample (DAgger, Ross et al. 2011).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from imos.network.small import PRIOR, SCORE, Maps
from imos.propagation.cores import passes_at_once, threads_for
from imos.propagation.existence import Sure
from imos.propagation.floor import FLOOR
from imos.propagation.kinds import Kind
from imos.propagation.model import Model
from imos.propagation.parts import GAP, GAP_OF_VIDEOS, split
from imos.propagation.track import Observed, track_part
from imos.training.passes import StackSlices
from imos.training.samples import LEAST_OF_LARGEST, Tone
from imos.training.volumes import SMALLEST_AREA, Stack

LONGEST = 24
"""Slices of a pass."""
FROM_LARGEST = 0.3
"""How often a pass begins at the largest slice, where people mostly paint; else anywhere."""
CHANGED = 0.6
"""How often a stack is turned, mirrored and shown in another tone: few volumes shall teach more than themselves."""
LOST = 2
"""Slices without the object, or without any of it in the mask, after which a pass teaches nothing more."""
SHOWN = 20
"""Grid pixels of the object below which a slice teaches nothing."""


class State(NamedTuple):
    """One step of a pass.

    Attributes:
        maps: The key encoder's maps at strides 4, 8, 16, normalised, `(1, C, h, w)` float16.
        readout: `(1, 64, S/16, S/16)` float16.
        hidden: `(1, 32, S/16, S/16)` float16.
        cues: `(1, 7, S, S)` float16.
        truth: `(S, S)` bool.
        share: How much of the correction was taken.
    """

    maps: tuple[Tensor, ...]
    readout: Tensor
    hidden: Tensor
    cues: Tensor
    truth: Tensor
    share: float


@dataclass(frozen=True)
class StateBatch:
    """States side by side, float32."""

    maps: Maps
    readout: Tensor
    hidden: Tensor
    cues: Tensor
    truth: Tensor
    share: Tensor

    @classmethod
    def of(cls, states: Sequence[State], device: torch.device) -> StateBatch:
        """Stack states on a device."""
        maps = Maps(*(torch.cat([state.maps[level] for state in states]).to(device).float() for level in range(3)))
        readout, hidden, cues = (
            torch.cat([getattr(state, name) for state in states]).to(device).float()
            for name in ("readout", "hidden", "cues")
        )
        truth = torch.stack([state.truth for state in states]).to(device).float()
        share = torch.tensor([state.share for state in states], device=device)
        return cls(maps, readout, hidden, cues, truth, share)

    @property
    def floor(self) -> Tensor:
        """The floor's log odds, `(B, S, S)`."""
        prior, score = self.cues[:, PRIOR], self.cues[:, SCORE]
        return 4 * (prior + FLOOR.score_weight * score)


class _LostError(Exception):
    """Nothing more to learn on this pass."""


@dataclass(frozen=True)
class Course:
    """What is walked.

    Attributes:
        stack: Labelled slices.
        kinds: What the target model may know; nothing of this stack's volume itself.
        weight: How often it is walked, against the others.
    """

    stack: Stack
    kinds: tuple[Kind, ...] = ()
    weight: float = 1.0


def collect(model: Model, courses: Sequence[Course], seed: Sequence[int], least: int) -> list[State]:
    """Walk at random until there are enough states.

    Args:
        model: What acts; its judge is not asked.
        courses: What to walk through.
        seed: Decides everything.
        least: States.

    Returns:
        A little more than `least`.
    """
    sure = Sure()
    weights = np.array([course.weight for course in courses])
    found: list[State] = []
    workers = passes_at_once(model)
    begun = 0
    with threads_for(model), ThreadPoolExecutor(workers) as pool:

        def walked(number: int) -> list[State]:
            random = np.random.default_rng([*seed, number])
            course = courses[int(random.choice(len(courses), p=weights / weights.sum()))]
            return walk(model.but(judge=sure, floor_judge=sure, kinds=course.kinds), course.stack, random)

        while len(found) < least:
            for states in pool.map(walked, range(begun, begun + workers)):
                found += states
            begun += workers
            if begun >= 50 * workers and not found:
                break
    return found


def walk(model: Model, stack: Stack, random: Generator) -> list[State]:
    """One pass with one object, from some slice in one direction.

    Args:
        model: What acts.
        stack: Labelled slices.
        random: Its stream decides everything.

    Returns:
        Empty where the network is not asked, or the object is on no further slice.
    """
    drawn = _drawn(stack, random)
    if drawn is None:
        return []
    slices, masks = drawn
    if random.random() < CHANGED:
        slices, masks = _changed(slices, masks, random)
    parts = split(masks[0], GAP_OF_VIDEOS if stack.is_video else GAP)
    part = parts[int(random.integers(len(parts)))]
    if np.count_nonzero(part) < SMALLEST_AREA:
        return []
    states: list[State] = []
    lost = 0

    def observe(seen: Observed) -> None:
        nonlocal lost
        region, shape = seen.region, (part.shape[0], part.shape[1])
        truth = region.beyond(region.crop(masks[seen.index].astype(np.float32)), shape) > 0.5
        if len(parts) > 1:
            truth = _touched(truth, seen.mask)
        lost = 0 if (truth & seen.mask).any() else lost + 1
        if lost >= LOST:
            raise _LostError
        if lost == 0 and np.count_nonzero(truth) >= SHOWN:
            asked = seen.asked
            maps = tuple(level.cpu().half() for level in asked.maps)
            readout, hidden, cues = (tensor.cpu().half() for tensor in (asked.readout, asked.hidden, asked.cues))
            states.append(State(maps, readout, hidden, cues, torch.from_numpy(truth), seen.share))

    source = StackSlices(Stack.of(slices, masks.astype(np.uint8), is_video=stack.is_video))
    patience = None if stack.is_video else len(slices)
    try:
        for _ in track_part(
            model, source, part, masks[0] & ~part, 0, len(slices) - 1, patience=patience, observe=observe
        ):
            pass
    except _LostError:
        pass
    return states


def _drawn(stack: Stack, random: Generator) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | None:
    """Slices from a painted one on, and one object on them."""
    value = int(random.choice(stack.objects()))
    area = stack.areas[:, value]
    starts = np.flatnonzero((area >= SMALLEST_AREA) & (area >= LEAST_OF_LARGEST * area.max()))
    start = int(area.argmax()) if random.random() < FROM_LARGEST else int(random.choice(starts))
    step = 1 if random.random() < 0.5 else -1
    indices = [index for index in range(start, start + step * (LONGEST + 1), step) if 0 <= index < len(area)]
    if len(indices) < 2 or not area[indices[1:]].any():
        return None
    return stack.slices[indices], stack.labels[indices] == value


def _changed(
    slices: NDArray[np.uint8], masks: NDArray[np.bool_], random: Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    turns, mirrored = int(random.integers(4)), random.random() < 0.5

    def turned(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.ascontiguousarray(np.rot90(array[:, :, ::-1] if mirrored else array, turns, axes=(1, 2)))

    slices, masks = turned(slices), turned(masks.astype(np.uint8)) > 0
    if slices.ndim == 3:
        tone = Tone.of_the_same_kind(random)
        slices = np.stack([tone.apply(plane, random) for plane in slices])
    return slices, masks


def _touched(truth: NDArray[np.bool_], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The connected parts of the truth that a mask lies on: the others are other passes' task."""
    _, parts = cv2.connectedComponents(truth.astype(np.uint8))
    mine = np.unique(parts[mask & truth])
    touched: NDArray[np.bool_] = np.isin(parts, mine[mine > 0])
    return touched
