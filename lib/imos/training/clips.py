"""Training clips of `xmem`: several slices of a stack, up to three objects, square crops, augmented as in the paper.

A clip is a pure function of the seed and its number, so that a resumed run sees what an unbroken one would have seen,
with however many processes and workers. Objects are those of the clip's first slice; what appears later is background,
because nobody has painted it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from imos.errors import UserError
from imos.training.curriculum import ClipPhase, Curriculum, Position
from imos.training.packing import Source
from imos.training.producers import StackChoice
from imos.training.volumes import SMALLEST_AREA, Stack

FIRST_TRIES = 5
"""Picks of slices from one stack until the first one shows an object."""
STACK_TRIES = 500
"""Stacks drawn until a clip is found."""
SMALLEST_SHARE = 1e-4
"""Of the crop: a smaller object on the first slice counts as background."""
FILL = 128
"""Gray outside the picture."""
FLIP_SHARE = 0.5
"""Stills that are mirrored. Volumes are not: left and right are not the same in a body."""
GRAY_SHARE = 0.05
"""Clips in colour that become gray."""


@dataclass(frozen=True)
class Clip:
    """T slices; the objects are painted on the first.

    Attributes:
        number: Of its stream.
        pictures: `(T, S, S, 3)` uint8.
        labels: `(T, S, S)` uint8, 0 for background, objects 1…K.
        objects: K.
    """

    number: int
    pictures: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    objects: int


class ClipMaker:
    """Makes clip number n of a seeded stream.

    Args:
        source: What to cut from.
        curriculum: Phases, over the numbers of the clips.
        seed: Of the stream.
        cases: `train` leaves every eighth volume, sequence and still out, `monitor` takes only those.

    Raises:
        UserError: There is nothing to cut a phase's clips from.
    """

    def __init__(self, source: Source, curriculum: Curriculum, seed: int, cases: str = "train") -> None:
        self._choice = StackChoice(source, seed, cases)
        self._curriculum, self._seed = curriculum, seed
        for phase in curriculum.phases:
            if not any(_fits(stack, phase) for stack in self._choice.stacks):
                raise UserError(
                    f"{source.path} has no volume or sequence of {phase.frames} slices to"
                    f" {'train on' if cases == 'train' else 'judge on'} in phase '{phase.name}'."
                    " Give fewer --frames, or longer volumes."
                )

    def make(self, number: int) -> Clip:
        """Clip `number`, the same whenever and by whomever it is made."""
        random = np.random.default_rng([self._seed, 4, number])
        position = self._curriculum.at_clip(number)
        for _ in range(STACK_TRIES):
            stacks, shares = self._choice.of(number, random)
            stack = _draw(stacks, shares, position.phase, random)
            clip = None if stack is None else cut_clip(stack, number, position, random)
            if clip is not None:
                return clip
        raise UserError(
            f"phase '{position.phase.name}' finds no slice to begin a clip with: objects are too small, or too few"
            " slices show one. Give data with more labelled slices."
        )


def _fits(stack: Stack, phase: ClipPhase) -> bool:
    """Whether a stack has slices enough."""
    return phase.still or len(stack.slices) >= phase.frames


def _draw(
    stacks: Sequence[Stack], shares: NDArray[np.float64] | None, phase: ClipPhase, random: Generator
) -> Stack | None:
    weights = np.ones(len(stacks)) if shares is None else shares
    weights = weights * [_fits(stack, phase) for stack in stacks]
    return stacks[int(random.choice(len(stacks), p=weights / weights.sum()))] if weights.any() else None


def pick_slices(count: int, frames: int, gap: int, random: Generator) -> list[int]:
    """Slices of a clip, in order or in reverse: each at most `gap` from another one.

    Args:
        count: Slices of the stack, at least `frames`.
        frames: Slices of the clip.
        gap: At most between neighbours.
        random: Its stream decides everything.
    """
    chosen = {int(random.integers(count))}
    while len(chosen) < frames:
        reach = {index for one in chosen for index in range(max(0, one - gap), min(count, one + gap + 1))}
        near = sorted(reach - chosen)
        chosen.add(near[int(random.integers(len(near)))])
    return sorted(chosen, reverse=random.random() < 0.5)


def cut_clip(stack: Stack, number: int, position: Position, random: Generator) -> Clip | None:
    """Cut a clip from a stack, or None if no slice that it begins with shows an object.

    Args:
        stack: With enough slices for the phase.
        number: Of the clip.
        position: Where in the training it is used.
        random: Its stream decides everything.
    """
    phase = position.phase
    shown = (stack.areas >= SMALLEST_AREA).any(1)
    if phase.still:
        indices = [int(random.choice(np.flatnonzero(shown)))] * phase.frames
    else:
        for _ in range(FIRST_TRIES):
            indices = pick_slices(len(stack.slices), phase.frames, position.gap, random)
            if shown[indices[0]]:
                break
        else:
            return None
    height, width = stack.labels.shape[1:]
    crop = _Crop.draw(height, width, random)
    tone = _Tone.draw(_CLIP_TONE, random)
    mirrored = phase.still and random.random() < FLIP_SHARE
    grayed = random.random() < GRAY_SHARE
    pictures, labels = [], []
    for index in indices:
        columns, rows = crop.places(_motion(position, random), phase.size, mirrored=mirrored)
        if phase.still:
            shift = _soft_field(phase.size, random)
            columns, rows = columns + shift[0] * crop.width, rows + shift[1] * crop.height
        picture = _sample(stack.slices[index], columns, rows, max(crop.width, crop.height) / phase.size)
        own = _Tone.draw(_SLICE_TONE, random)
        pictures.append(own.apply(tone.apply(picture, grayed=grayed), grayed=False).round().astype(np.uint8))
        labels.append(cv2.remap(stack.labels[index], columns, rows, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT))
    values = _objects(labels[0], phase.objects, random)
    if not values:
        return None
    renamed = np.zeros(256, np.uint8)
    renamed[values] = np.arange(1, len(values) + 1)
    return Clip(number, np.stack(pictures), renamed[np.stack(labels)], len(values))


def _objects(first: NDArray[np.uint8], largest: int, random: Generator) -> list[int]:
    """Label values on a clip's first slice that are its objects."""
    areas = np.bincount(first.ravel(), minlength=256)
    areas[0] = 0
    values = np.flatnonzero(areas >= max(SMALLEST_AREA, SMALLEST_SHARE * first.size))
    if len(values) > largest:
        values = random.choice(values, largest, replace=False)
    return [int(value) for value in values]


_CROP_SCALE = (0.8, 1.0)
_CROP_RATIO = (3 / 4, 4 / 3)
_TURN, _SHEAR = 15.0, 10.0
_STILL_TURN, _STILL_ZOOM, _STILL_SHIFT, _STILL_BEND = 20.0, 0.1, 0.1, 0.03


class _Motion(NamedTuple):
    """How one slice is moved against its clip: a matrix around the centre, and a shift, both in parts of the crop."""

    matrix: NDArray[np.float64]
    shift: NDArray[np.float64]


def _motion(position: Position, random: Generator) -> _Motion:
    still = position.phase.still
    turn, shear = (_STILL_TURN, _SHEAR) if still else (0.0, 0.0) if position.is_tail else (_TURN, _SHEAR)
    angle, slant = np.deg2rad(random.uniform(-turn, turn)), np.tan(np.deg2rad(random.uniform(-shear, shear)))
    cosine, sine = np.cos(angle), np.sin(angle)
    matrix = np.array([[cosine, -sine], [sine, cosine]]) @ np.array([[1.0, slant], [0.0, 1.0]])
    if not still:
        return _Motion(matrix, np.zeros(2))
    zoom = random.uniform(1 - _STILL_ZOOM, 1 + _STILL_ZOOM)
    return _Motion(matrix * zoom, random.uniform(-_STILL_SHIFT, _STILL_SHIFT, 2))


def _soft_field(size: int, random: Generator) -> NDArray[np.float32]:
    """A smooth random displacement of every pixel, `(2, S, S)`, in parts of the crop."""
    coarse = random.normal(0, _STILL_BEND * random.uniform(0, 1), (2, 4, 4)).astype(np.float32)
    return np.stack([cv2.resize(part, (size, size), interpolation=cv2.INTER_CUBIC) for part in coarse])


@dataclass(frozen=True, slots=True)
class _Crop:
    """A rectangle of a slice that becomes a square; one for all slices of a clip."""

    left: float
    top: float
    width: float
    height: float

    @classmethod
    def draw(cls, height: int, width: int, random: Generator) -> Self:
        """A random part of the area with a random aspect; a slice too long for any aspect loses of its length."""
        for _ in range(10):
            area = height * width * random.uniform(*_CROP_SCALE)
            ratio = np.exp(random.uniform(*np.log(_CROP_RATIO)))
            across, down = float(np.sqrt(area * ratio)), float(np.sqrt(area / ratio))
            if across <= width and down <= height:
                break
        else:
            across = min(float(width), _CROP_RATIO[1] * height)
            down = min(float(height), width / _CROP_RATIO[0])
        return cls(float(random.uniform(0, width - across)), float(random.uniform(0, height - down)), across, down)

    def places(self, motion: _Motion, size: int, *, mirrored: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Column and row of the slice that every pixel of the square shows, each `(S, S)`."""
        line = (np.arange(size) + 0.5) / size - 0.5
        across = (-line if mirrored else line)[None, :]
        (a, b), (c, d) = motion.matrix
        columns = a * across + b * line[:, None] + motion.shift[0] + 0.5
        rows = c * across + d * line[:, None] + motion.shift[1] + 0.5
        return (
            (self.left + self.width * columns - 0.5).astype(np.float32),
            (self.top + self.height * rows - 0.5).astype(np.float32),
        )


def _sample(
    plane: NDArray[np.uint8], columns: NDArray[np.float32], rows: NDArray[np.float32], scale: float
) -> NDArray[np.float32]:
    """`(S, S, 3)` in 0…255."""
    if scale > 1:  # each pixel stands for several
        plane = cv2.GaussianBlur(plane, (0, 0), 0.5 * float(np.sqrt(scale * scale - 1)))
    fill = (FILL, FILL, FILL)
    picture = cv2.remap(plane, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=fill)
    picture = picture if picture.ndim == 3 else np.repeat(picture[:, :, None], 3, 2)
    return picture.astype(np.float32)


_CLIP_TONE = (0.1, 0.03, 0.03)
_SLICE_TONE = (0.01, 0.01, 0.01)


@dataclass(frozen=True, slots=True)
class _Tone:
    """Factors of brightness, contrast and saturation."""

    brightness: float
    contrast: float
    saturation: float

    @classmethod
    def draw(cls, spans: tuple[float, float, float], random: Generator) -> Self:
        return cls(*(float(random.uniform(1 - span, 1 + span)) for span in spans))

    def apply(self, picture: NDArray[np.float32], *, grayed: bool) -> NDArray[np.float32]:
        """`(S, S, 3)` in 0…255."""
        picture = (picture * self.brightness).clip(0, 255)
        middle = float(_luma(picture).mean())
        picture = ((picture - middle) * self.contrast + middle).clip(0, 255)
        gray = _luma(picture)[:, :, None]
        return (gray + (picture - gray) * (0.0 if grayed else self.saturation)).clip(0, 255)


def _luma(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    return picture @ np.array([0.299, 0.587, 0.114], np.float32)
