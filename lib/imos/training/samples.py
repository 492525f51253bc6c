"""Training samples: one object painted on one slice, and the slices that follow.

A sample is a pure function of the seed and its number, so that a resumed run sees what an unbroken one would have seen.
Everything that does not depend on the network's own predictions is made here, in worker processes: crops, optical flow,
the target model's score, the frozen encoder's maps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from imos.network.efficientnet import EfficientNetLite0
from imos.propagation.flow import backward_flow, gray
from imos.propagation.target import TargetModel, picture_tensor, pixel_features
from imos.training.phases import Phase
from imos.training.volumes import SMALLEST_AREA, Stack

LEAST_OF_LARGEST = 0.1
"""A painted slice shows at least so much of the area of the object's largest one."""
STYLED = 0.5
"""How often an object is outlined in another manner than its label's."""
CURVED = 0.25
"""How often gray values change their order."""
SHADED = 0.3
"""How often one side of the slice is brighter."""
ENDED = 0.2
"""How often an object ends where its label goes on: it is taken out of the pictures, or they go on elsewhere."""
AT_ONCE = 0.4
"""How many of the samples whose second slice no longer shows the object are kept."""


@dataclass(frozen=True)
class Sample:
    """T slices of one object in its region; the first is painted.

    Attributes:
        pictures: `(T, S, S)` uint8 gray.
        masks: `(T, S, S)` uint8, 0 or 1.
        flows: `(T-1, S, S, 2)` float16, backward.
        scores: `(T-1, S/2, S/2)` float16, target model fitted on the painted slice.
        maps: Three arrays `(T, C, h, w)` float16, the key encoder's maps at strides 4, 8, 16.
    """

    pictures: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    flows: NDArray[np.float16]
    scores: NDArray[np.float16]
    maps: tuple[NDArray[np.float16], ...]


def make_sample(
    stacks: list[Stack],
    encoder: EfficientNetLite0,
    phase: Phase,
    random: Generator,
    shares: NDArray[np.float64] | None = None,
) -> Sample:
    """Cut one sample.

    Args:
        stacks: What to cut from.
        encoder: Frozen key encoder, on the CPU.
        phase: Sizes.
        random: Its stream decides everything.
        shares: How often each stack is cut from; None for equally.
    """
    while True:
        stack = stacks[int(random.choice(len(stacks), p=shares))]
        chosen = _choose(stack, phase, random)
        if chosen is None:
            continue
        indices, values = chosen
        pictures, masks = _cut(stack, indices, values, phase.grid, random)
        if masks[0].sum() >= 40 and masks[0].mean() < 0.8:
            if random.random() < ENDED:
                pictures, masks = end_at_once(pictures, masks, int(random.integers(1, len(masks))), random)
            return _finish(pictures, masks, encoder)


def _choose(stack: Stack, phase: Phase, random: Generator) -> tuple[list[int], NDArray[np.int64]] | None:
    """Slices, painted one first, and the label values that make up the object."""
    objects = stack.objects()
    value = int(objects[int(random.integers(objects.size))])
    values = np.array([value])
    if objects.size > 2 and random.random() < 0.1:  # people also paint several things as one
        values = np.unique(random.choice(objects, 2))
    area = stack.areas[:, values].sum(1)
    starts = np.flatnonzero(area >= SMALLEST_AREA)
    if not starts.size:
        return None
    # not the larger ones more often, as people paint: the network would learn that objects always shrink
    start = int(random.choice(starts[area[starts] >= LEAST_OF_LARGEST * area.max()]))
    count = len(area)
    if count == 1 or phase.still:
        return [start] * phase.frames, values
    step = 1 if random.random() < 0.5 else -1
    gap = int(random.integers(1, phase.largest_gap + 1))
    indices = [start]
    for _ in range(phase.frames - 1):
        following = indices[-1] + step * gap
        if not 0 <= following < count:
            step = -step
            following = indices[-1] + step * gap
            if not 0 <= following < count:
                return None
        indices.append(following)
    # mostly slices that show the object, sometimes its end and what comes after
    if area[indices[-1]] == 0 and random.random() < (AT_ONCE if area[indices[1]] else 1 - AT_ONCE):
        return None
    return indices, values


def _cut(
    stack: Stack, indices: list[int], values: NDArray[np.int64], grid: int, random: Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    is_object = np.zeros(256, np.uint8)
    is_object[values] = 1
    masks = [is_object[stack.labels[index]] for index in indices]
    rows, columns = np.flatnonzero(masks[0].any(1)), np.flatnonzero(masks[0].any(0))
    size = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    side = max(2.2 * size, 32.0) * float(np.exp(random.uniform(-0.15, 0.35)))
    side = min(side, 1.1 * max(32, *masks[0].shape))
    centre = np.array([columns[0] + columns[-1], rows[0] + rows[-1]]) / 2 + random.normal(0, 0.04 * side, 2)
    still = indices[0] == indices[1]
    motion = (1.0 if still else 0.15) * float(random.uniform(0, 1))
    angle = float(random.uniform(-np.pi, np.pi)) if random.random() < 0.5 else float(random.integers(4)) * np.pi / 2
    mirror = 1 if random.random() < 0.5 else -1
    aspect = float(np.exp(random.normal(0, 0.08)))
    zoom = 1.0
    tone = Tone.draw(random)
    pictures_out, masks_out = [], []
    colour = random.dirichlet((2.0, 2.0, 2.0))
    for index, mask in zip(indices, masks, strict=True):
        scale = side * zoom / grid
        cosine, sine = np.cos(angle) * scale, np.sin(angle) * scale
        turn = np.array([[cosine * mirror * aspect, -sine], [sine * mirror * aspect, cosine]])
        offset = centre - turn @ np.full(2, (grid - 1) / 2)
        matrix = np.column_stack([turn, offset])
        plane = stack.slices[index]
        if plane.ndim == 3:
            plane = (plane.astype(np.float32) @ colour.astype(np.float32)).astype(np.uint8)
        if scale > 1.0:
            plane = cv2.GaussianBlur(plane, (0, 0), 0.5 * float(np.sqrt(scale * scale - 1.0)))
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        picture = cv2.warpAffine(plane, matrix, (grid, grid), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        soft = cv2.warpAffine(
            mask.astype(np.float32), matrix, (grid, grid), flags=flags, borderMode=cv2.BORDER_REPLICATE
        )
        pictures_out.append(tone.apply(picture, random))
        masks_out.append((soft > 0.5).astype(np.uint8))
        centre = centre + random.normal(0, 0.03 * side, 2) * motion
        angle += float(random.normal(0, 0.12)) * motion
        zoom *= float(np.exp(random.normal(0, 0.05) * motion))
    masks_cut = np.stack(masks_out)
    return np.stack(pictures_out), _in_a_style(masks_cut, random) if random.random() < STYLED else masks_cut


def _in_a_style(masks: NDArray[np.uint8], random: Generator) -> NDArray[np.uint8]:
    """The same object as somebody else would outline it: smoother, wider or tighter, alike on all slices.

    It keeps the network from drawing outlines where the picture has an edge: it must look how the painted slice has it.
    """
    radius = float(np.sqrt(masks[0].sum() / np.pi))
    sigma = max(0.8, radius * float(random.uniform(0.05, 0.25)))
    threshold = float(random.uniform(0.25, 0.75))
    blurred = [cv2.GaussianBlur(mask.astype(np.float32), (0, 0), sigma) for mask in masks]
    styled: NDArray[np.uint8] = (np.stack(blurred) > threshold).astype(np.uint8)
    return styled


def end_at_once(
    pictures: NDArray[np.uint8], masks: NDArray[np.uint8], first: int, random: Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The same slices where the object ends abruptly: from some slice on it is noise, or what surrounds it.

    Objects of real volumes mostly fade, so that nothing is learned of stopping at once, least of all with nothing but
    noise behind the end.

    Args:
        pictures: `(N, H, W)` slices.
        masks: `(N, H, W)` the object.
        first: Slice from which on it is gone.
        random: What the end looks like.

    Returns:
        Pictures and masks of the same shapes.
    """
    pictures, masks = pictures.copy(), masks.copy()
    kind = int(random.integers(3))
    for index in range(first, len(masks)):
        picture = pictures[index]
        grown = cv2.dilate(masks[index], np.ones((5, 5), np.uint8))
        outside = picture[grown == 0] if (grown == 0).any() else picture.ravel()
        noise = random.normal(float(outside.mean()), float(outside.std()) + 1.0, picture.shape)
        if kind == 0:  # nothing is left of the picture
            pictures[index] = cv2.GaussianBlur(noise, (0, 0), float(random.uniform(0.3, 2.0))).clip(0, 255)
        elif kind == 1:  # the surroundings close over the object
            pictures[index] = cv2.inpaint(picture, grown, 3, cv2.INPAINT_TELEA)
        else:  # noise as in the surroundings in the object's place
            pictures[index] = np.where(grown, noise.clip(0, 255), picture)
        masks[index] = 0
    return pictures, masks


@dataclass(frozen=True, slots=True)
class Tone:
    """One intensity transform a sample, with a little change from slice to slice.

    Attributes:
        gamma: Exponent of gray values in [0, 1].
        low: Where black goes.
        high: Where white goes.
        invert: Whether black becomes white.
        noise: Standard deviation, gray values.
        blur: Of a Gaussian, pixels.
        curve: Gray values 0 … 255 in another order: as another scanner or sequence might show the same tissues; empty
            for none.
        shading: Slope of the brightness across the slice, right and down, as a coil near one side makes it.
    """

    gamma: float
    low: float
    high: float
    invert: bool
    noise: float
    blur: float
    curve: tuple[float, ...]
    shading: tuple[float, float]

    @classmethod
    def of_the_same_kind(cls, random: Generator) -> Tone:
        """Without what no scanner of the same kind would show: inverted, in another order, brighter on one side."""
        return replace(cls.draw(random), invert=False, curve=(), shading=(0.0, 0.0))

    @classmethod
    def draw(cls, random: Generator) -> Tone:
        """Anything."""
        return cls(
            gamma=float(np.exp(random.normal(0, 0.3))),
            low=float(random.uniform(0, 0.25)),
            high=float(random.uniform(0.75, 1.0)),
            invert=bool(random.random() < 0.15),
            noise=float(random.uniform(0, 8)) if random.random() < 0.4 else 0.0,
            blur=float(random.uniform(0.4, 1.5)) if random.random() < 0.2 else 0.0,
            curve=tuple(random.uniform(0, 1, int(random.integers(4, 8)))) if random.random() < CURVED else (),
            shading=tuple(random.normal(0, 0.25, 2)) if random.random() < SHADED else (0.0, 0.0),
        )

    def apply(self, picture: NDArray[np.uint8], random: Generator) -> NDArray[np.uint8]:
        """A gray picture in this tone, a little different every time."""
        levels = np.linspace(0, 1, 256) ** (self.gamma * float(np.exp(random.normal(0, 0.03))))
        if self.curve:
            levels = np.interp(levels, np.linspace(0, 1, len(self.curve)), self.curve)
        levels = self.low + (self.high - self.low) * (1 - levels if self.invert else levels)
        levels = levels * float(np.exp(random.normal(0, 0.02)))
        picture = cv2.LUT(picture, (255 * levels).clip(0, 255).astype(np.uint8))
        if any(self.shading):
            line = np.linspace(-1, 1, len(picture), dtype=np.float32)
            field = np.exp(self.shading[0] * line[None] + self.shading[1] * line[:, None])
            picture = (picture * field).clip(0, 255).astype(np.uint8)
        if self.blur:
            picture = cv2.GaussianBlur(picture, (0, 0), self.blur)
        if self.noise:
            noisy = picture + random.standard_normal(picture.shape).astype(np.float32) * self.noise
            picture = noisy.clip(0, 255).astype(np.uint8)
        return picture


@torch.no_grad()
def _finish(pictures: NDArray[np.uint8], masks: NDArray[np.uint8], encoder: EfficientNetLite0) -> Sample:
    batch = torch.cat([picture_tensor(picture) for picture in pictures])
    pyramid = encoder.forward(batch)
    features = [pixel_features(picture, pyramid.finer, number) for number, picture in enumerate(pictures)]
    target = TargetModel(features[0].joined(), masks[0].astype(np.float32))
    scores = np.stack([target.score(feature) for feature in features[1:]])
    pairs = zip(pictures[1:], pictures[:-1], strict=True)
    flows = np.stack([backward_flow(gray(now), gray(before)) for now, before in pairs])
    maps = tuple(level.numpy().astype(np.float16) for level in pyramid[1:])
    return Sample(pictures, masks, flows.astype(np.float16), scores.astype(np.float16), maps)
