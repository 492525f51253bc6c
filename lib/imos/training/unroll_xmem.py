"""The training forward of `xmem`: a clip is segmented slice by slice, and what was segmented is remembered.

The first slice is memorised with its true masks. Every later one reads the first and a few random earlier slices with
a softmax over all their elements, and is memorised with the masks that were predicted, so that the network learns to
live with its own mistakes; gradients pass through them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from imos.network.encoders import Features
from imos.network.similarity import affinity, readout, similarity
from imos.network.xmem import EncodedSlice, Segmentation, XMem
from imos.training.clips import Clip
from imos.training.losses import bootstrapped_cross_entropy, dice_loss

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
"""ImageNet's, as in propagation."""


@dataclass(frozen=True)
class ClipBatch:
    """Clips of one size on the device.

    Attributes:
        numbers: Of the clips.
        pictures: `(B, T, 3, S, S)`, normalised.
        labels: `(B, T, S, S)` int64, 0 for background.
        objects: Of every clip.
    """

    numbers: tuple[int, ...]
    pictures: Tensor
    labels: Tensor
    objects: tuple[int, ...]

    @classmethod
    def of(cls, clips: Sequence[Clip], device: torch.device) -> ClipBatch:
        """Stack and normalise."""
        pictures = torch.from_numpy(np.stack([clip.pictures for clip in clips])).to(device)
        pictures = pictures.permute(0, 1, 4, 2, 3).float().div_(255)
        mean, deviation = (torch.tensor(values, device=device)[:, None, None] for values in (MEAN, DEVIATION))
        labels = torch.from_numpy(np.stack([clip.labels for clip in clips])).to(device).long()
        numbers, objects = (tuple(values) for values in zip(*((c.number, c.objects) for c in clips), strict=True))
        return cls(numbers, (pictures - mean) / deviation, labels, objects)

    def parts(self, size: int) -> Iterator[ClipBatch]:
        """The batch in pieces of at most `size` clips."""
        for first in range(0, len(self.numbers), size):
            piece = slice(first, first + size)
            yield ClipBatch(self.numbers[piece], self.pictures[piece], self.labels[piece], self.objects[piece])

    @property
    def slots(self) -> int:
        """Objects of the clip that has most; others leave slots empty."""
        return max(self.objects)

    @property
    def frames(self) -> int:
        """Slices a clip."""
        return self.labels.shape[1]

    def masks(self, t: int) -> Tensor:
        """`(B, K, S, S)` float32, the true masks of slice t."""
        every: Tensor = functional.one_hot(self.labels[:, t], self.slots + 1)
        return every[..., 1:].permute(0, 3, 1, 2).float()


def draw_references(numbers: Sequence[int], frames: int, references: int, seed: int) -> list[list[list[int]]]:
    """Memorised slices that each slice reads: all earlier ones, or the first one and random others.

    Args:
        numbers: Of the clips; with the seed they decide everything.
        frames: T.
        references: At most, the first slice included.
        seed: Of the run.

    Returns:
        For every clip and every slice from 1 on, the slices that it reads.
    """
    drawn = []
    for number in numbers:
        random = np.random.default_rng([seed, 5, number])
        drawn.append(
            [
                list(range(t))
                if t <= references
                else [0, *sorted(1 + int(index) for index in random.choice(t - 1, references - 1, replace=False))]
                for t in range(1, frames)
            ]
        )
    return drawn


def unroll_clips(
    network: XMem,
    batch: ClipBatch,
    references: Sequence[Sequence[Sequence[int]]],
    deep: Sequence[bool],
    *,
    bfloat16: bool = False,
) -> list[Segmentation]:
    """Segment slices 1…T-1 of every clip.

    Args:
        network: XMem.
        batch: Clips.
        references: For every clip and slice from 1 on, the earlier slices it reads; equally many in all clips.
        deep: For every slice from 1 on whether the sensory memory takes the deep update there. The last is not used.
        bfloat16: Convolutions in bfloat16; similarity, reading and aggregation stay float32.

    Returns:
        One segmentation a slice, of `batch.slots` objects.
    """
    clips, frames = batch.labels.shape[:2]
    size = (batch.labels.shape[2], batch.labels.shape[3])
    selector = torch.tensor(
        [[float(slot < objects) for slot in range(batch.slots)] for objects in batch.objects],
        device=batch.labels.device,
    )
    row = torch.arange(clips, device=batch.labels.device)[:, None]
    steps: list[Segmentation] = []
    with torch.autocast(batch.pictures.device.type, torch.bfloat16, enabled=bfloat16):
        encoded = network.encode_key(batch.pictures.flatten(0, 1))
        key, shrinkage, selection = (part.unflatten(0, (clips, frames)) for part in encoded[:3])
        levels = [level.unflatten(0, (clips, frames)) for level in encoded.features]
        features = [Features(*(level[:, t] for level in levels)) for t in range(frames)]
        hidden = network.new_hidden(batch.slots, size, clips)
        value, hidden = network.encode_value(batch.pictures[:, 0], features[0].f16, hidden, batch.masks(0), deep=True)
        values = [value]
        for t in range(1, frames):
            read = torch.tensor([of_clip[t - 1] for of_clip in references], device=row.device)
            memory = EncodedMemory(
                _over_time(key[row, read]), _over_time(shrinkage[row, read]), torch.stack(values, 1)[row, read]
            )
            query = EncodedSlice(key[:, t], shrinkage[:, t], selection[:, t], features[t])
            step = network.segment(
                features[t], hidden, memory.read(query), selector=selector, update_hidden=t < frames - 1
            )
            steps.append(step)
            if t == frames - 1:
                break
            value, hidden = network.encode_value(
                batch.pictures[:, t], features[t].f16, step.hidden, step.probabilities[:, 1:], deep=deep[t - 1]
            )
            values.append(value)
    return steps


@dataclass(frozen=True)
class EncodedMemory:
    """The slices that one slice reads.

    Attributes:
        key: `(B, C^k, N)`.
        shrinkage: `(B, 1, N)`.
        values: `(B, R, K, C^v, h, w)`.
    """

    key: Tensor
    shrinkage: Tensor
    values: Tensor

    def read(self, query: EncodedSlice) -> Tensor:
        """`(B, K, C^v, h, w)`, what the memory says of a slice."""
        alike = similarity(self.key, self.shrinkage, query.key.flatten(2), query.selection.flatten(2))
        with torch.autocast(alike.device.type, enabled=False):  # float32: a read in bfloat16 makes the memory useless
            values = self.values.float().permute(0, 2, 3, 1, 4, 5).flatten(3)
            mixed: Tensor = readout(values, affinity(alike)).unflatten(3, query.key.shape[2:])
        return mixed


def _over_time(part: Tensor) -> Tensor:
    """`(B, R, C, h, w)` → `(B, C, R·h·w)`."""
    return part.transpose(1, 2).flatten(2)


def clip_loss(
    steps: Sequence[Segmentation], batch: ClipBatch, slots: int, iteration: int, warm_up: tuple[int, int]
) -> tuple[Tensor, dict[str, float]]:
    """Bootstrapped cross entropy and Dice of every segmented slice, added up (XMem).

    Args:
        steps: Segmentations of slices 1…T-1.
        batch: Clips.
        slots: Objects that the mean Dice counts: those that a clip of this phase may have. Empty ones cost nothing.
        iteration: Of the phase.
        warm_up: Iterations between which the cross entropy turns to the hardest pixels.

    Returns:
        The loss, and its parts by name: means over the slices.
    """
    total = batch.pictures.new_zeros(())
    entropies, dices = [], []
    for t, step in enumerate(steps, 1):
        losses = [
            bootstrapped_cross_entropy(
                step.logits[b : b + 1, : objects + 1], batch.labels[b : b + 1, t], iteration, warm_up=warm_up
            )[0]
            for b, objects in enumerate(batch.objects)
        ]
        entropy = torch.stack(losses).mean()
        dice = dice_loss(step.probabilities[:, 1:], batch.masks(t)) * (batch.slots / slots)
        total = total + entropy + dice
        entropies.append(float(entropy.detach()))
        dices.append(float(dice.detach()))
    return total, {"cross entropy": float(np.mean(entropies)), "dice": float(np.mean(dices))}
